//! The door through which every call into a runtime goes: a panic behind it becomes an error and prints nothing.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::{Doing, RuntimeError};

thread_local! {
    static BEHIND_THE_DOOR: Cell<bool> = const { Cell::new(false) };
    static LAST_WORDS: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does `work`; a panic in it, on this thread, is the error.
///
/// The message is kept from stderr by a panic hook that is installed once a process and hands every panic that is not
/// behind the door to the hook that was there before. A hook that the application sets later makes the message visible
/// again; the error stays the same.
pub(super) fn through<T>(
    runtime: &'static str,
    doing: Doing,
    model: &str,
    work: impl FnOnce() -> Result<T, RuntimeError>,
) -> Result<T, RuntimeError> {
    listen();
    let outer = BEHIND_THE_DOOR.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    BEHIND_THE_DOOR.set(outer);
    result.unwrap_or_else(|payload| {
        let said = LAST_WORDS.take();
        let payload = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        let reason = said.unwrap_or_else(|| payload.unwrap_or("no message").to_owned());
        Err(RuntimeError::Panicked { runtime, doing, model: model.to_owned(), reason })
    })
}

fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !BEHIND_THE_DOOR.get() {
                return before(info);
            }
            let place = info.location().map(|place| format!(" ({place})")).unwrap_or_default();
            let message = info.payload_as_str().unwrap_or("no message").to_owned();
            tracing::debug!(backtrace = %Backtrace::capture(), "a runtime panicked: {message}{place}");
            LAST_WORDS.set(Some(message + &place));
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_message_and_place() {
        let error = through::<()>("tract", Doing::Run, "m.onnx", || panic!("index {} of 3", 7));
        let text = error.expect_err("it panicked").to_string();
        assert!(text.starts_with("tract panicked when it was to run m.onnx: index 7 of 3 ("), "{text}");
        assert!(text.contains("door.rs"), "{text}");
    }

    #[test]
    fn what_does_not_panic_passes() {
        assert_eq!(through("tract", Doing::Load, "m", || Ok(3)), Ok(3));
    }
}
