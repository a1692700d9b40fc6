//! How much memory this process holds, as the operating system counts it.

use std::fs; // of the file system only /proc, which is the kernel's clock face

use serde::{Deserialize, Serialize};

/// Resident memory of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resident {
    /// Now, in bytes (`VmRSS`).
    pub current_bytes: u64,
    /// The most since the process began, in bytes (`VmHWM`).
    pub peak_bytes: u64,
}

/// Resident memory of this process.
///
/// # Errors
/// The reason why it is not known: on systems without `/proc/self/status`.
pub fn resident() -> Result<Resident, String> {
    const STATUS: &str = "/proc/self/status";
    let text = fs::read_to_string(STATUS)
        .map_err(|error| format!("resident memory is read from {STATUS}, which is not there: {error}"))?;
    parse(&text).ok_or_else(|| format!("{STATUS} has no VmRSS and VmHWM in kB"))
}

fn parse(status: &str) -> Option<Resident> {
    let bytes = |key: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let kilobytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kilobytes.checked_mul(1024)
    };
    Some(Resident { current_bytes: bytes("VmRSS")?, peak_bytes: bytes("VmHWM")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_listing_is_read() {
        let status = "Name:\taludel\nVmPeak:\t  9 kB\nVmHWM:\t  120 kB\nVmRSS:\t  100 kB\nThreads:\t1\n";
        assert_eq!(parse(status), Some(Resident { current_bytes: 102_400, peak_bytes: 122_880 }));
        assert_eq!(parse("VmRSS:\t  100 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_holds_some_memory() {
        let resident = resident().expect("Linux has /proc");
        assert!(resident.peak_bytes >= resident.current_bytes && resident.current_bytes > 100_000);
    }
}
