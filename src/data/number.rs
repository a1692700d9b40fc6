//! Conversions between numbers, each with what becomes of values that do not fit.

/// The nearest `f32`; infinite where it is too large for one.
pub(super) fn narrow(number: f64) -> f32 {
    #[allow(clippy::as_conversions)] // there is no other way to round to f32
    let narrowed = number as f32;
    narrowed
}

/// A count as a number; counts beyond 2^32, which no data held in memory has, are taken for 2^32.
pub(super) fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(4_294_967_296.0, f64::from)
}

/// A count as a seed's part.
pub(super) fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
