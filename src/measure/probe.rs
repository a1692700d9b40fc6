//! What a device is and how it is doing: clocks, heat, throttling, memory, and how quick a product of matrices is on it.

use std::fs; // of the file system only /proc and /sys
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::inputs::{self, Bindings};
use super::latency::{self, Contender};
use super::machine::Machine;
use super::runtime::tract::Tract;
use super::runtime::{ModelBytes, Options, Runtime as _, RuntimeError};

/// A device and its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The device.
    pub machine: Machine,
    /// Processors with their clocks; none where the system does not say.
    pub cores: Vec<Core>,
    /// Memory that programs can still get; none where the system does not say.
    pub available_bytes: Option<u64>,
    /// Processes that wanted to run in the last minute, on average.
    pub load: Option<f64>,
    /// Thermometers.
    pub zones: Vec<Zone>,
    /// What holds the clock back, or did since the start; none where the system does not say.
    pub throttling: Option<Throttling>,
    /// How quick a product of matrices is.
    pub rate: Option<Rate>,
}

/// A processor's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Core {
    /// Its number.
    pub core_idx: usize,
    /// Who sets the clock: `performance`, `ondemand`, `schedutil` …
    pub governor: Option<String>,
    /// Now.
    pub current_khz: Option<u64>,
    /// At the least.
    pub min_khz: Option<u64>,
    /// At the most.
    pub max_khz: Option<u64>,
}

/// A thermometer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// What the system calls it.
    pub name: String,
    /// What it shows.
    pub celsius: f64,
}

/// What holds the clock back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling {
    /// Who says so.
    pub source: String,
    /// What does now.
    pub now: Vec<String>,
    /// What did since the start.
    pub before: Vec<String>,
}

/// How quick a product of two square matrices of f32 is, by tract on one thread, packing included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Rows and columns of each.
    pub size: usize,
    /// Median time of one product.
    pub median_us: f64,
    /// Multiplications and additions a second, in thousands of millions.
    pub gflops: f64,
}

/// Looks at the machine that this process runs on. `vcgencmd` is what the Raspberry Pi's `vcgencmd get_throttled` prints, where
/// somebody has asked it.
///
/// # Errors
/// When the product of matrices does not run.
pub fn probe(vcgencmd: Option<&str>) -> Result<Probe, RuntimeError> {
    let system = Path::new("/");
    Ok(Probe {
        machine: Machine::this(),
        cores: cores(system),
        available_bytes: available_bytes(system),
        load: text(&system.join("proc/loadavg")).and_then(|text| text.split_whitespace().next()?.parse().ok()),
        zones: zones(system),
        throttling: vcgencmd.and_then(raspberry_pi_words).or_else(|| throttling(system)),
        rate: Some(rate()?),
    })
}

fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// What lies in a folder, in order of name with numbers counted; nothing where there is no such folder.
fn entries(folder: &Path, prefix: &str) -> Vec<(usize, std::path::PathBuf)> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let numbered = names.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some((name.strip_prefix(prefix)?.parse().ok()?, entry.path()))
    });
    let mut numbered: Vec<(usize, std::path::PathBuf)> = numbered.collect();
    numbered.sort();
    numbered
}

fn cores(system: &Path) -> Vec<Core> {
    let core = |(core_idx, folder): (usize, std::path::PathBuf)| {
        let folder = folder.join("cpufreq");
        let core = Core {
            core_idx,
            governor: text(&folder.join("scaling_governor")),
            current_khz: number(&folder.join("scaling_cur_freq")),
            min_khz: number(&folder.join("scaling_min_freq")),
            max_khz: number(&folder.join("scaling_max_freq")),
        };
        (core.governor.is_some() || core.current_khz.is_some()).then_some(core)
    };
    entries(&system.join("sys/devices/system/cpu"), "cpu").into_iter().filter_map(core).collect()
}

fn available_bytes(system: &Path) -> Option<u64> {
    let meminfo = text(&system.join("proc/meminfo"))?;
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn zones(system: &Path) -> Vec<Zone> {
    let zone = |(_, folder): (usize, std::path::PathBuf)| {
        let millidegrees: i32 = text(&folder.join("temp"))?.parse().ok()?;
        Some(Zone { name: text(&folder.join("type"))?, celsius: f64::from(millidegrees) / 1000.0 })
    };
    entries(&system.join("sys/class/thermal"), "thermal_zone").into_iter().filter_map(zone).collect()
}

/// From the Raspberry Pi's firmware, else from the counters of x86 processors.
fn throttling(system: &Path) -> Option<Throttling> {
    let firmware = system.join("sys/devices/platform/soc/soc:firmware/get_throttled");
    if let Some(throttling) = text(&firmware).and_then(|bits| raspberry_pi(&bits, &firmware.display().to_string())) {
        return Some(throttling);
    }
    let cpus = entries(&system.join("sys/devices/system/cpu"), "cpu").into_iter();
    let counts: Vec<u64> =
        cpus.filter_map(|(_, folder)| number(&folder.join("thermal_throttle/core_throttle_count"))).collect();
    if counts.is_empty() {
        return None;
    }
    let n_times: u64 = counts.iter().fold(0, |sum, count| sum.saturating_add(*count));
    let before =
        if n_times == 0 { Vec::new() } else { vec![format!("throttled by heat {n_times} times, all cores together")] };
    Some(Throttling { source: "thermal_throttle".to_owned(), now: Vec::new(), before })
}

/// `throttled=0x50000`.
fn raspberry_pi_words(words: &str) -> Option<Throttling> {
    raspberry_pi(words.trim().strip_prefix("throttled=")?, "vcgencmd get_throttled")
}

/// The bits are listed in the documentation of `vcgencmd` (raspberrypi.com/documentation/computers/os.html#get_throttled).
fn raspberry_pi(bits: &str, source: &str) -> Option<Throttling> {
    const MEANINGS: [&str; 4] = ["voltage too low", "clock capped", "throttled", "soft temperature limit"];
    let bits = bits.trim();
    let bits = u32::from_str_radix(bits.strip_prefix("0x").unwrap_or(bits), 16).ok()?;
    let set = |first: usize| {
        let meanings = MEANINGS.iter().enumerate().filter(|(idx, _)| bits >> (first + idx) & 1 == 1);
        meanings.map(|(_, meaning)| (*meaning).to_owned()).collect()
    };
    Some(Throttling { source: source.to_owned(), now: set(0), before: set(16) })
}

/// A MatMul of two inputs `[256, 256]`, as an ONNX file.
const PRODUCT: &[u8] = include_bytes!("../../targets/product.onnx");
const SIZE: usize = 256;

fn rate() -> Result<Rate, RuntimeError> {
    let mut session = Tract.load(&ModelBytes::new(PRODUCT), &Options::default())?;
    let tensors = inputs::random(session.inputs(), &Bindings::new(), 0).expect("its inputs are declared");
    session.run(&tensors)?;
    let run = Box::new(|| session.run(&tensors).map(drop));
    let mut contenders = [Contender { label: "product".to_owned(), run }];
    let options =
        latency::Options { budget: Duration::from_secs(2), relative_width: 0.01, ..latency::Options::default() };
    let measured = latency::interleaved(&mut contenders, &options, &mut |_| ())?;
    let median_us = measured.first().map_or(f64::INFINITY, |latency| latency.median_us);
    let n_operations = 2.0 * (SIZE as f64).powi(3);
    Ok(Rate { size: SIZE, median_us, gflops: n_operations / median_us / 1e3 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_s_bits_are_read() {
        let check =
            |words: &str| raspberry_pi_words(words).map(|found| (found.now.join(", "), found.before.join(", ")));
        let both = |now: &str, before: &str| Some((now.to_owned(), before.to_owned()));
        assert_eq!(check("throttled=0x0\n"), both("", ""));
        assert_eq!(check("throttled=0x50005"), both("voltage too low, throttled", "voltage too low, throttled"));
        assert_eq!(check("throttled=0xa0002"), both("clock capped", "clock capped, soft temperature limit"));
        assert_eq!(check("throttled=yes"), None);
        assert_eq!(check("error"), None);
    }

    #[test]
    fn what_the_system_says_is_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("the folder is ours");
            fs::write(path, text).expect("the folder is ours");
        };
        assert_eq!((cores(folder.path()), zones(folder.path()), throttling(folder.path())), (vec![], vec![], None));
        for core in [10, 2] {
            write(&format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"), "ondemand\n");
            write(&format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq"), "600000\n");
            write(&format!("sys/devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count"), "2\n");
        }
        write("sys/devices/system/cpu/cpufreq/policy0", "");
        write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n");
        write("sys/class/thermal/thermal_zone0/temp", "48312\n");
        write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   2 kB\n");
        let found = cores(folder.path());
        assert_eq!(found.iter().map(|core| core.core_idx).collect::<Vec<_>>(), [2, 10]);
        assert_eq!(
            (found[0].governor.as_deref(), found[0].current_khz, found[0].max_khz),
            (Some("ondemand"), Some(600_000), None)
        );
        assert_eq!(zones(folder.path()), [Zone { name: "cpu-thermal".to_owned(), celsius: 48.312 }]);
        assert_eq!(available_bytes(folder.path()), Some(2048));
        assert_eq!(
            throttling(folder.path()).expect("counters").before,
            ["throttled by heat 4 times, all cores together"]
        );
        write("sys/devices/platform/soc/soc:firmware/get_throttled", "4\n");
        assert_eq!(throttling(folder.path()).expect("bits").now, ["throttled"]);
    }

    #[test]
    fn this_machine_multiplies() {
        let rate = rate().expect("tract runs a product");
        assert!(rate.gflops > 0.01 && rate.gflops.is_finite(), "{rate:?}");
    }
}
