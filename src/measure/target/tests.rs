//! Devices' files that are read, and files that are refused.

use std::path::{Path, PathBuf};

use super::*;

/// `name | title | runner`, or the error.
fn check(text: &str) -> String {
    match file::parse(text, "mine", Path::new("boards/mine.toml")) {
        Ok(target) => format!("{} | {} | {}", target.name, target.title, target.runner.kind()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_built_in_file_makes_a_device() {
    for name in names() {
        let target = find(name).expect("built-in files are right");
        assert_eq!(target.name, name);
        assert!(target.instruction_set.iter().all(|set| !set.contains(char::is_whitespace)), "{target:?}");
        // Nobody's board is at hand unless they say so.
        assert_eq!(target.runner.kind(), if name == "host" { "local" } else { "none" });
        assert_eq!(target.is_microcontroller(), name.starts_with("cortex-m"));
        assert_eq!(target.runtime.is_none(), target.is_microcontroller());
        assert_eq!(target.build.is_none(), target.is_microcontroller() || name == "host");
    }
}

#[test]
fn a_file_of_a_few_lines_makes_a_device_out_of_a_built_in_one() {
    assert_eq!(check("arch = 'x86_64'"), "mine | mine | none");
    assert_eq!(check("name = 'n'\ntitle = 't'\narch = 'arm'\nrunner = { kind = 'local' }"), "n | t | local");
    let text = "base = 'raspberry-pi-4'\nn_threads = 4\n[runner]\nkind = 'ssh'\nhost = 'pi.local'\nidentity = 'key'";
    let target = file::parse(text, "mine", Path::new("boards/mine.toml")).expect("a device");
    assert_eq!((target.n_cores, target.n_threads, target.name.as_str()), (Some(4), 4, "mine"));
    let Runner::Ssh(ssh) = target.runner else { panic!("{:?}", target.runner) };
    assert_eq!((ssh.identity, ssh.timeout_s), (Some(PathBuf::from("boards/key")), Timeout::default()));
}

#[test]
fn paths_are_taken_from_the_files_folder() {
    let text = "arch = 'aarch64'\n[runner]\nkind = 'qemu'\nprogram = 'qemu-aarch64-static'\nagent = 'out/aludel-edge'";
    let target = file::parse(text, "mine", Path::new("boards/mine.toml")).expect("a device");
    let Runner::Qemu(qemu) = &target.runner else { panic!("{:?}", target.runner) };
    assert_eq!(qemu.program, Path::new("qemu-aarch64-static"));
    assert_eq!(qemu.agent, Path::new("boards/out/aludel-edge"));
    assert!(target.runner.is_emulated());
    let text = "arch = 'arm'\n[runner]\nkind = 'command'\ncommand = ['./run', 'x/y']";
    let target = file::parse(text, "mine", Path::new("boards/mine.toml")).expect("a device");
    let Runner::Command(commanded) = &target.runner else { panic!("{:?}", target.runner) };
    assert_eq!(commanded.command, ["boards/./run", "x/y"]);
    assert!(!target.runner.is_emulated());
}

#[test]
fn what_makes_no_sense_is_refused_with_file_and_key() {
    let holds = |text: &str, parts: &[&str]| {
        let said = check(text);
        assert!(said.starts_with("boards/mine.toml: "), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    };
    holds("arch = 'arm'\nmemry_bytes = 3", &["line 2", "unknown field `memry_bytes`", "memory_bytes"]);
    holds("title = 't'", &["`arch`", "missing", "base"]);
    holds("base = 'amiga'", &["`base`", "no device `amiga`", "raspberry-pi-4"]);
    holds("arch = 'arm'\nn_cores = 'two'", &["line 2", "n_cores"]);
    holds("arch = 'arm'\nn_cores = 2\nn_threads = 3", &["`n_threads`", "at most the 2 cores"]);
    holds("arch = 'arm'\nn_threads = 0", &["`n_threads`"]);
    holds("arch = 'arm'\nflash_bytes = 0", &["`flash_bytes`"]);
    holds("arch = 'arm'\nruntime = 'onnx'", &["onnx", "tract", "ort"]);
    holds("arch = 'arm'\narithmetic = 'abacus'", &["`arithmetic`", "x86-avx2"]);
    holds("arch = 'arm'\nbuild = '--help'", &["`build`", "target-list"]);
    holds("arch = 'arm'\n[budget]\nlatency_p95_ms = -1", &["`budget.latency_p95_ms`"]);
    holds("arch = 'arm'\n[budget]\nlatency = 1", &["unknown field `latency`"]);
    holds("arch = 'arm'\n[runner]\nkind = 'telnet'", &["telnet", "ssh"]);
    holds("arch = 'arm'\n[runner]\nkind = 'ssh'", &["host"]);
    holds("arch = 'arm'\n[runner]\nkind = 'ssh'\nhost = 'h'\nhots = 1", &["unknown field `hots`"]);
    holds("arch = 'arm'\n[runner]\nkind = 'ssh'\nhost = '-oProxyCommand=x'", &["`runner.host`"]);
    holds("arch = 'arm'\n[runner]\nkind = 'ssh'\nhost = 'me@h'", &["`runner.host`", "`user`"]);
    holds("arch = 'arm'\n[runner]\nkind = 'ssh'\nhost = 'h'\nfolder = '$(rm)'", &["`runner.folder`"]);
    holds("arch = 'arm'\n[runner]\nkind = 'ssh'\nhost = 'h'\nagent = 'a'\npush = 'b'", &["`runner.push`"]);
    holds("arch = 'arm'\n[runner]\nkind = 'command'\ncommand = []", &["`runner.command`"]);
    holds("arch = 'arm'\n[runner]\nkind = 'local'\ntimeout_s = 0", &["`runner.timeout_s`"]);
    let said = find("amiga").expect_err("no such device").to_string();
    assert!(said.contains("amiga") && said.contains("cortex-m7"), "{said}");
}
