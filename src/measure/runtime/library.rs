//! Where onnxruntime's library is, and getting it: the official wheel through the user's own pip, checked and unpacked.
//!
//! Nothing is loaded here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::store;

/// The onnxruntime that [`install`] gets, and that our tests run with. It knows opsets up to [`OPSET`].
pub const VERSION: &str = "1.31.1";

/// The newest opset of the default domain that onnxruntime [`VERSION`] accepts; newer ones it refuses to load.
pub const OPSET: i64 = 26;

/// The variable that names a library, as for every user of crate ort.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";

/// An official wheel, for one platform.
struct Wheel {
    os: &'static str,
    arch: &'static str,
    /// pip's name of the platform.
    platform: &'static str,
    sha256: &'static str,
    /// The library inside the wheel.
    library: &'static str,
}

/// The wheels of [`VERSION`] for CPython 3.11 on PyPI. There is one for every Python version; one is chosen, whatever
/// Python is installed here, so that there is one hash a platform.
const WHEELS: [Wheel; 4] = [
    Wheel {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
        library: "onnxruntime/capi/libonnxruntime.so.1.31.1",
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
        library: "onnxruntime/capi/libonnxruntime.so.1.31.1",
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        platform: "macosx_14_0_arm64",
        sha256: "60b6b69bfe580eab576cacc5d132a0e9cf2a37fcfd18d46dd191042b1d1ed0d7",
        library: "onnxruntime/capi/libonnxruntime.1.31.1.dylib",
    },
    Wheel {
        os: "windows",
        arch: "x86_64",
        platform: "win_amd64",
        sha256: "c3d91b5de31e2fc82d71bd65b2b22bddee8b49057a3a36338e9a868e0ea90c05",
        library: "onnxruntime/capi/onnxruntime.dll",
    },
];

/// Why the library cannot be got.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// There is no official wheel for this platform.
    #[error("onnxruntime {VERSION} has no official wheel for {os} on {arch}")]
    Platform {
        /// `linux` …
        os: &'static str,
        /// `x86_64` …
        arch: &'static str,
    },
    /// There is no folder to put it in.
    #[error("no folder for the cache is known: neither ALUDEL_CACHE nor HOME is set")]
    NoCache,
    /// No pip could be started, or it failed.
    #[error("pip could not download onnxruntime {VERSION}:\n{}", attempts.join("\n"))]
    Pip {
        /// each command tried and what it said
        attempts: Vec<String>,
    },
    /// The file that came is not the one we know.
    #[error("{file}: sha256 is {got}, expected {expected}: it is not the official wheel and was not unpacked")]
    Hash {
        /// the wheel's name
        file: String,
        /// of the table
        expected: &'static str,
        /// of the file
        got: String,
    },
    /// The wheel cannot be unpacked or the cache not written.
    #[error("cannot unpack onnxruntime: {0}")]
    Unpack(#[from] io::Error),
    /// The cache cannot be written.
    #[error(transparent)]
    Store(#[from] store::StoreError),
}

impl LibraryError {
    /// What the reader can do about it, in one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            LibraryError::Platform { .. } => "build onnxruntime and name its library with --library or ORT_DYLIB_PATH",
            LibraryError::NoCache => "set ALUDEL_CACHE to a folder",
            LibraryError::Pip { .. } => {
                "install Python's pip, or get the wheel elsewhere and name the library in it with --library or ORT_DYLIB_PATH"
            }
            LibraryError::Hash { .. } => "look at what pip's index and proxy are; pip config list names them",
            LibraryError::Unpack(_) | LibraryError::Store(_) => {
                "look at the space and the permissions of the cache folder"
            }
        }
    }
}

/// Who says where the library is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The command line.
    Flag,
    /// `ORT_DYLIB_PATH`.
    Environment,
    /// Our own cache, filled by [`install`].
    Cache,
    /// The system's folders for libraries.
    System,
    /// An onnxruntime that is installed for Python.
    Python,
}

/// A place that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Who names it.
    pub origin: Origin,
    /// The file, or the folder in which there is none.
    pub path: PathBuf,
    /// Whether a library is there.
    pub found: bool,
}

/// Every place looked at, in the order in which they count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Search {
    /// The places, all of them, so that a status can tell what hides what.
    pub places: Vec<Place>,
}

impl Search {
    /// The library to use: the first found, except that a place that was asked for, by flag or variable, must be right:
    /// where nothing is there the rest does not count.
    pub fn chosen(&self) -> Option<&Place> {
        let asked = |place: &&Place| matches!(place.origin, Origin::Flag | Origin::Environment);
        match self.places.iter().find(asked) {
            Some(place) => place.found.then_some(place),
            None => self.places.iter().find(|place| place.found),
        }
    }

    /// What was looked at, for an error.
    pub fn describe(&self) -> String {
        let line = |place: &Place| {
            let origin = match place.origin {
                Origin::Flag => "given",
                Origin::Environment => VARIABLE,
                Origin::Cache => "cache",
                Origin::System => "system",
                Origin::Python => "Python",
            };
            format!("{origin}: {}", place.path.display())
        };
        self.places.iter().map(line).collect::<Vec<_>>().join(", ")
    }
}

/// Looks for onnxruntime's library: at `flag`, in `ORT_DYLIB_PATH`, our cache, the system, Python's packages.
pub fn search(flag: Option<&Path>) -> Search {
    let mut places = Vec::new();
    let mut asked = |origin, path: PathBuf| places.push(Place { origin, found: path.is_file(), path });
    if let Some(path) = flag {
        asked(Origin::Flag, absolute(path));
    }
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        asked(Origin::Environment, absolute(Path::new(&path)));
    }
    places.extend(cache_folder().map(|folder| look_in(Origin::Cache, folder)));
    places.extend(system_folders().into_iter().map(|folder| look_in(Origin::System, folder)));
    places.extend(python_folders().into_iter().map(|folder| look_in(Origin::Python, folder.join("onnxruntime/capi"))));
    Search { places }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The folder of our cache that [`install`] fills.
fn cache_folder() -> Option<PathBuf> {
    Some(store::cache_folder()?.join("onnxruntime").join(VERSION))
}

fn look_in(origin: Origin, folder: PathBuf) -> Place {
    let names = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut libraries: Vec<PathBuf> = names.filter(|path| is_library(path) && path.is_file()).collect();
    libraries.sort_by_key(|path| version_in_name(path));
    match libraries.pop() {
        Some(path) => Place { origin, path, found: true },
        None => Place { origin, path: folder, found: false },
    }
}

/// The numbers in a library's name; those of `libonnxruntime.so.1.9.0` come before those of `libonnxruntime.so.1.31.1`.
fn version_in_name(path: &Path) -> Vec<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').filter_map(|part| part.parse().ok()).collect()
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if cfg!(windows) {
        return name == "onnxruntime.dll";
    }
    let Some(rest) = name.strip_prefix("libonnxruntime.") else { return false };
    if cfg!(target_os = "macos") { rest.ends_with("dylib") } else { rest == "so" || rest.starts_with("so.") }
}

/// Windows brings an old onnxruntime.dll of its own in System32, which is never meant.
fn system_folders() -> Vec<PathBuf> {
    let listed = |variable: &str| {
        let value = std::env::var_os(variable).unwrap_or_default();
        std::env::split_paths(&value).filter(|path| path.is_absolute()).collect::<Vec<_>>()
    };
    if cfg!(windows) {
        return Vec::new();
    }
    if cfg!(target_os = "macos") {
        let fixed = ["/opt/homebrew/lib", "/usr/local/lib"].map(PathBuf::from);
        return listed("DYLD_LIBRARY_PATH").into_iter().chain(fixed).collect();
    }
    let triplet = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let fixed = ["/usr/local/lib", "/usr/lib", "/usr/lib64", &triplet, "/opt/onnxruntime/lib"].map(PathBuf::from);
    listed("LD_LIBRARY_PATH").into_iter().chain(fixed).collect()
}

/// The folders of installed packages, as the Python that the user would start says; onnxruntime is not imported.
fn python_folders() -> Vec<PathBuf> {
    const ASK: &str = "import site, sysconfig\n\
        paths = [sysconfig.get_paths()[k] for k in ('purelib', 'platlib')] + [site.getusersitepackages()]\n\
        print('\\n'.join(dict.fromkeys(paths)))";
    for python in ["python3", "python"] {
        let asked = Command::new(python).args(["-c", ASK]).stdin(Stdio::null()).stderr(Stdio::null()).output();
        let Ok(output) = asked else { continue };
        if output.status.success() {
            return String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect();
        }
    }
    Vec::new()
}

/// Gets the official library of [`VERSION`] into our cache and says where it is. `observe` is told what is being done,
/// a line at a time.
///
/// # Errors
/// When there is no wheel for this platform, pip fails, the wheel is not the official one, or the cache cannot be written.
pub fn install(observe: &mut dyn FnMut(&str)) -> Result<PathBuf, LibraryError> {
    let folder = cache_folder().ok_or(LibraryError::NoCache)?;
    install_into(&folder, observe)
}

/// Like [`install`], into a folder of one's choice.
///
/// # Errors
/// As for [`install`].
pub fn install_into(folder: &Path, observe: &mut dyn FnMut(&str)) -> Result<PathBuf, LibraryError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let wheel = WHEELS.iter().find(|wheel| wheel.os == os && wheel.arch == arch);
    let wheel = wheel.ok_or(LibraryError::Platform { os, arch })?;
    let downloads = tempfile::tempdir()?;
    let file = download(wheel, downloads.path(), observe)?;
    observe("checking its sha256");
    check(wheel, &file)?;
    let target = folder.join(Path::new(wheel.library).file_name().expect("the table names files"));
    observe(&format!("unpacking to {}", target.display()));
    unpack(wheel, &file, &target)?;
    Ok(target)
}

fn download(wheel: &Wheel, folder: &Path, observe: &mut dyn FnMut(&str)) -> Result<PathBuf, LibraryError> {
    const PIPS: [(&str, &[&str]); 4] =
        [("python3", &["-m", "pip"]), ("python", &["-m", "pip"]), ("pip3", &[]), ("pip", &[])];
    let package = format!("onnxruntime=={VERSION}");
    let mut attempts = Vec::new();
    for (program, before) in PIPS {
        let mut command = Command::new(program);
        command.args(before).args(["download", &package, "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]);
        command.args(["--disable-pip-version-check", "--platform", wheel.platform, "--python-version", "3.11"]);
        command.args(["--implementation", "cp", "--abi", "cp311", "--dest"]).arg(folder).stdin(Stdio::null());
        let shown = [&[program], before].concat().join(" ");
        observe(&format!("{shown} download {package} ({})", wheel.platform));
        match command.output() {
            Err(error) => attempts.push(format!("{shown}: {error}")),
            Ok(output) if !output.status.success() => {
                let said = String::from_utf8_lossy(&output.stderr);
                attempts.push(format!("{shown}: {}: {}", output.status, said.trim()));
            }
            Ok(_) => match wheel_in(folder)? {
                Some(file) => return Ok(file),
                None => attempts.push(format!("{shown}: ended well but left no wheel")),
            },
        }
    }
    Err(LibraryError::Pip { attempts })
}

fn wheel_in(folder: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn check(wheel: &Wheel, file: &Path) -> Result<(), LibraryError> {
    let got = store::sha256_of_file(file)?;
    if got == wheel.sha256 {
        return Ok(());
    }
    let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(LibraryError::Hash { file, expected: wheel.sha256, got })
}

fn unpack(wheel: &Wheel, file: &Path, target: &Path) -> Result<(), LibraryError> {
    let archive = io::BufReader::new(fs::File::open(file)?);
    let mut archive = zip::ZipArchive::new(archive).map_err(io::Error::other)?;
    let mut entry = archive.by_name(wheel.library).map_err(io::Error::other)?;
    store::write_atomic_with(target, |out| io::copy(&mut entry, out).map(|_| ()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(origin: Origin, found: bool) -> Place {
        Place { origin, path: PathBuf::from("/x"), found }
    }

    #[test]
    fn what_was_asked_for_must_be_right() {
        let check = |places: &[Place]| Search { places: places.to_vec() }.chosen().map(|place| place.origin);
        let cache = place(Origin::Cache, true);
        assert_eq!(check(&[place(Origin::System, false), cache.clone()]), Some(Origin::Cache));
        assert_eq!(check(&[place(Origin::Environment, true), cache.clone()]), Some(Origin::Environment));
        assert_eq!(check(&[place(Origin::Environment, false), cache.clone()]), None);
        assert_eq!(check(&[place(Origin::Flag, true), place(Origin::Environment, false), cache]), Some(Origin::Flag));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_newest_library_of_a_folder_is_taken_and_its_helpers_are_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let helper = "libonnxruntime_providers_shared.so";
        for name in ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.31.1", helper] {
            fs::write(folder.path().join(name), b"").expect("written");
        }
        let found = look_in(Origin::System, folder.path().to_owned());
        assert!(found.found && found.path.ends_with("libonnxruntime.so.1.31.1"), "{found:?}");
    }

    #[test]
    fn another_wheel_is_not_unpacked() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("onnxruntime.whl");
        fs::write(&file, b"abc").expect("written");
        let error = check(&WHEELS[0], &file).expect_err("it is another file").to_string();
        assert!(error.starts_with("onnxruntime.whl: sha256 is ba7816bf"), "{error}");
    }
}
