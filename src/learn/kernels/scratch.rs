//! Buffers that kernels need for a while: kept by each thread from call to call.

use std::cell::RefCell;

thread_local! {
    static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` on `n_elements` of this thread's memory. What is in them is left over from before.
///
/// Calls may be nested, directly or by a task that is stolen while `work` waits: each gets memory of its own.
pub(crate) fn with<T>(n_elements: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
    let mut buffer = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < n_elements {
        buffer.resize(n_elements, 0.0);
    }
    let result = work(&mut buffer[..n_elements]);
    KEPT.with_borrow_mut(|kept| kept.push(buffer));
    result
}
