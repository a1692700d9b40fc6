//! What machine a figure was measured on.

use std::fs; // of the file system only /proc

use serde::{Deserialize, Serialize};

/// The provenance of a measurement: enough to tell whether two may be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "learn", derive(schemars::JsonSchema))]
pub struct Machine {
    /// The processor's name; none where the system does not say.
    pub cpu: Option<String>,
    /// Logical processors that this process may use.
    pub n_cpus: usize,
    /// Instruction sets that decide how quick inference is, of those that this processor has.
    pub features: Vec<String>,
    /// `linux`, `macos`, `windows`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// Memory of the machine in bytes; none where the system does not say.
    pub memory_bytes: Option<u64>,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn this() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Machine {
            cpu: cpu_name(&cpuinfo),
            n_cpus: std::thread::available_parallelism().map_or(1, usize::from),
            features: features(),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            memory_bytes: memory_bytes(&meminfo),
        }
    }
}

/// `model name` on x86; on ARM boards the board's own name is in `Model`, the core only as a part number.
fn cpu_name(cpuinfo: &str) -> Option<String> {
    let value = |wanted: &str| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == wanted && !value.trim().is_empty()).then(|| value.trim().to_owned())
        })
    };
    value("model name").or_else(|| value("Model")).or_else(|| value("Hardware")).or_else(|| {
        let part = value("CPU part")?;
        Some(format!("implementer {} part {part}", value("CPU implementer")?))
    })
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<String> {
    let rows = [
        ("sse4.1", std::is_x86_feature_detected!("sse4.1")),
        ("avx", std::is_x86_feature_detected!("avx")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("f16c", std::is_x86_feature_detected!("f16c")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("avx_vnni", std::is_x86_feature_detected!("avxvnni")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512bw", std::is_x86_feature_detected!("avx512bw")),
        ("avx512_vnni", std::is_x86_feature_detected!("avx512vnni")),
        ("avx512_bf16", std::is_x86_feature_detected!("avx512bf16")),
        ("avx512_fp16", std::is_x86_feature_detected!("avx512fp16")),
    ];
    rows.iter().filter(|row| row.1).map(|row| row.0.to_owned()).collect()
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<String> {
    let rows = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("neon-fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        ("neon-dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
        ("sve", std::arch::is_aarch64_feature_detected!("sve")),
    ];
    rows.iter().filter(|row| row.1).map(|row| row.0.to_owned()).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_named_as_their_systems_name_them() {
        let check = |cpuinfo: &str| cpu_name(cpuinfo).unwrap_or_default();
        assert_eq!(check("processor\t: 0\nmodel name\t: Xeon 8480\n"), "Xeon 8480");
        let board = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n";
        assert_eq!(check(&format!("{board}Model\t\t: Raspberry Pi 4 Model B\n")), "Raspberry Pi 4 Model B");
        assert_eq!(check(board), "implementer 0x41 part 0xd08");
        assert_eq!(check(""), "");
        assert_eq!(memory_bytes("MemTotal:       24000 kB\n"), Some(24_576_000));
    }

    #[test]
    fn this_machine_has_a_processor() {
        assert!(Machine::this().n_cpus >= 1);
    }
}
