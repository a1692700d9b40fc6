//! Numbers as a person reads them.

/// `22.7 M`: three digits and a decimal prefix; small counts as they are.
pub(super) fn count(n: u64) -> String {
    scaled(n, 1000.0, &["", " k", " M", " G", " T", " P"], 10_000)
}

/// `43.1 MiB`.
pub(super) fn bytes(n: u64) -> String {
    scaled(n, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB"], 1024)
}

fn scaled(n: u64, base: f64, prefixes: &[&str], exact_below: u64) -> String {
    if n < exact_below {
        return format!("{n}{}", prefixes[0]);
    }
    let mut value = n as f64;
    let mut steps = 0;
    while value >= base * 0.9995 && steps + 1 < prefixes.len() {
        value /= base;
        steps += 1;
    }
    format!("{}{}", three_digits(value), prefixes[steps])
}

/// Microseconds with the unit that suits them: `87.4 µs`, `12.3 ms`, `1.45 s`.
pub(super) fn duration_us(us: f64) -> String {
    if us < 999.5 {
        format!("{} µs", three_digits(us))
    } else if us < 999_500.0 {
        format!("{} ms", three_digits(us / 1e3))
    } else {
        format!("{} s", three_digits(us / 1e6))
    }
}

/// `0.123`, `1.23`, `12.3`, `123`, `1234`.
pub(super) fn three_digits(value: f64) -> String {
    let magnitude = value.abs();
    let decimals = match magnitude {
        m if m >= 99.95 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// `12.3 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A share in percent, to a hundredth.
pub(super) fn exact_percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// `1.2e-7`, or `0` where it is nothing at all.
pub(super) fn scientific(value: f64) -> String {
    if value == 0.0 { "0".to_string() } else { format!("{value:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        for (n, text) in [(0, "0"), (9_999, "9999"), (10_000, "10.0 k"), (22_713_216, "22.7 M"), (999_960, "1.00 M")] {
            assert_eq!(count(n), text);
        }
        for (n, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (45_210_675, "43.1 MiB")] {
            assert_eq!(bytes(n), text);
        }
        for (us, text) in
            [(0.5, "0.500 µs"), (87.42, "87.4 µs"), (999.7, "1.00 ms"), (12_345.0, "12.3 ms"), (2e6, "2.00 s")]
        {
            assert_eq!(duration_us(us), text);
        }
    }
}
