//! Running code of the application's that may panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs code of the application's; `None` if it panicked, which is reported. `what` and `whose` say which code it is.
pub(crate) fn guarded<T>(what: &'static str, whose: &str, call: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(panic) => {
            tracing::error!(
                what,
                whose,
                panic = message(panic.as_ref()),
                "code of the application's panicked"
            );
            None
        }
    }
}

/// The text of a panic.
pub(super) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("not a text")
}
