//! How many fetched bytes are alive, wherever they are: queued, being read, or in records of the application.
//!
//! Invariant: every byte counted is uncounted exactly when the last slice of its buffer is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

/// The count, and whom to tell when it falls.
#[derive(Debug, Default)]
pub(super) struct Budget {
    held: AtomicUsize,
    pub(super) work: Notify,
}

impl Budget {
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Counts `bytes` until the charge and all its clones are dropped.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize) -> Arc<Charge> {
        self.held.fetch_add(bytes, Ordering::AcqRel);
        Arc::new(Charge { budget: self.clone(), bytes })
    }
}

/// A part of the budget in use.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// The same bytes, which keep the charge alive as long as any slice of them.
    pub(super) fn attach(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Charged { bytes, _charge: self.clone() })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.work.notify_one();
    }
}

struct Charged {
    bytes: Bytes,
    _charge: Arc<Charge>,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_the_last_slice_is_gone_and_are_not_copied() {
        let budget = Arc::new(Budget::default());
        let data = Bytes::from(vec![7; 100]);
        let charge = budget.charge(100);
        let charged = charge.attach(data.clone());
        drop(charge);
        assert_eq!(charged.as_ptr(), data.as_ptr());
        let slice = charged.slice(10..20);
        drop(charged);
        assert_eq!(budget.held(), 100);
        drop(slice);
        assert_eq!(budget.held(), 0);
    }
}
