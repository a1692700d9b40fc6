//! How long a piece of work takes, on a machine that others use too.

use std::fs;
use std::time::{Duration, Instant};

/// The result of `work`, and the time that this thread was running meanwhile; by the clock where the system does not say.
pub(crate) fn taken<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let (running, clock) = (running(), Instant::now());
    let result = work();
    let by_clock = clock.elapsed();
    let taken = running.and_then(|before| self::running()?.checked_sub(before));
    (result, taken.unwrap_or(by_clock))
}

/// Linux: the first number of `schedstat` is the time on a processor.
fn running() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}
