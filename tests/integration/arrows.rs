//! The house's arrows: which room may use which, and what may be done in one room only. Read off the source text, test
//! modules included, so that an arrow against the grain fails here before anybody leans on it.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms that it uses. Transitive: a room may use what those use.
const ROOMS: &[(&str, &[&str])] = &[
    ("graph/tensor", &[]),
    ("graph", &["graph/tensor"]),
    ("store", &[]),
    ("onnx", &["graph", "store"]),
    ("zoo", &["graph"]),
    ("data", &["graph/tensor", "store"]),
    ("learn", &["graph", "data", "store"]),
    ("compress", &["learn"]),
    ("measure", &["graph/tensor", "data", "store"]),
    ("audit", &["onnx", "measure"]),
    ("report", &["measure"]),
    ("recipe", &["onnx", "zoo", "compress", "audit", "report"]),
    ("cli", &["recipe"]),
];

/// What only these places (prefixes of paths below `src`) may name.
const ONLY_HERE: &[(&str, &[&str])] = &[
    ("prost::", &["onnx/"]),
    ("candle_", &["learn/", "compress/"]),
    ("tract_onnx", &["measure/runtime/tract.rs", "measure/runtime/tract/"]),
    ("ort::", &["measure/runtime/ort.rs", "measure/runtime/ort/"]),
    ("std::time", &["measure/", "cli/"]),
    (
        "std::fs",
        &[
            "onnx/external.rs",
            "data/",
            "store.rs",
            "store/",
            "measure/runtime/library.rs",
            "measure/machine.rs", // /proc only
            "measure/memory.rs",  // /proc only
            "measure/probe.rs",   // /proc and /sys only
            "recipe/",
            "cli/",
            "bin/",
        ],
    ),
    (
        "std::process",
        // the last: a second Ctrl-C ends the program
        &[
            "measure/runtime/remote/",
            "measure/runtime/library.rs",
            "measure/child.rs",
            "main.rs",
            "bin/",
            "cli/screen.rs",
        ],
    ),
    ("println!", &["cli/", "bin/", "main.rs"]),
    ("unsafe ", &["learn/kernels/", "store.rs"]),
];

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("src is there") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                walk(&path, files);
            } else {
                files.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    files.sort();
    let below = |file: &PathBuf| file.strip_prefix(&src).expect("walked from src").to_string_lossy().into_owned();
    files.iter().map(|file| (below(file), fs::read_to_string(file).expect("source is text"))).collect()
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")).map(|(idx, line)| (idx + 1, line))
}

fn room_of(path: &str) -> Option<&'static str> {
    ROOMS.iter().map(|row| row.0).find(|room| path.strip_prefix(room).is_some_and(|rest| rest.starts_with(['/', '.'])))
}

fn reachable(room: &'static str) -> Vec<&'static str> {
    let mut seen = vec![room];
    let mut next = 0;
    while let Some(&room) = seen.get(next) {
        let row = ROOMS.iter().find(|row| row.0 == room).expect("every room has a row");
        seen.extend(row.1.iter().filter(|used| !seen.contains(used)).copied().collect::<Vec<_>>());
        next += 1;
    }
    seen
}

/// The rooms that a line names: `crate::graph::tensor::Tensor` is the room `graph/tensor`.
fn rooms_named(line: &str) -> Vec<&'static str> {
    let mut named = Vec::new();
    for (position, _) in line.match_indices("crate::") {
        let path = line[position + "crate::".len()..].replace("::", "/");
        let path = format!("{path}/");
        let end = |room: &str| path[room.len()..].starts_with(|c: char| !c.is_alphanumeric() && c != '_');
        named.extend(ROOMS.iter().map(|row| row.0).find(|room| path.starts_with(room) && end(room)));
    }
    named
}

#[test]
fn rooms_use_only_the_rooms_before_them() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(room) = room_of(&path) else { continue };
        let allowed = reachable(room);
        for (number, line) in code_lines(&text) {
            for used in rooms_named(line).into_iter().filter(|used| !allowed.contains(used)) {
                wrong.push(format!("src/{path}:{number}: `{room}` may not use `{used}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_belongs_to_one_room_stays_there() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (number, line) in code_lines(&text) {
            for (what, places) in ONLY_HERE {
                let here = places.iter().any(|place| path.starts_with(place));
                let named = line.match_indices(what).any(|(position, _)| {
                    !line[..position].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                });
                if named && !here {
                    wrong.push(format!("src/{path}:{number}: `{what}` belongs in {}", places.join(", ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_lives_in_it() {
    let silent: Vec<String> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "no //! at the top of {silent:?}");
}
