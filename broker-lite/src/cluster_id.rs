//! The id of the cluster, as far as a node knows it: a node that was not told learns it from the metadata log.

use std::fmt;
use std::sync::{Arc, OnceLock};

use klamm_wire::StrBytes;
use tokio::sync::Notify;

/// Shared by what one node is made of. Once known it stays.
#[derive(Clone, Default)]
pub(crate) struct ClusterId(Arc<Inner>);

#[derive(Default)]
struct Inner {
    known: OnceLock<Arc<str>>,
    learnt: Notify,
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get().unwrap_or("unknown"))
    }
}

impl ClusterId {
    /// Known from the start, if `id` says so.
    pub(crate) fn new(id: Option<&str>) -> Self {
        let new = Self::default();
        if let Some(id) = id {
            new.learn(id);
        }
        new
    }

    /// The id, if it is known.
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.known.get().map(|id| &**id)
    }

    /// The id as a field of a message.
    pub(crate) fn field(&self) -> Option<StrBytes> {
        self.get().map(|id| StrBytes::from_string(id.to_owned()))
    }

    /// Whether what a peer says is no other cluster's id. Who does not know cannot tell.
    pub(crate) fn fits(&self, told: Option<&str>) -> bool {
        self.get().zip(told).is_none_or(|(own, told)| own == told)
    }

    /// Takes the id, if none is known.
    pub(crate) fn learn(&self, id: &str) {
        self.0.known.get_or_init(|| Arc::from(id));
        self.0.learnt.notify_waiters();
    }

    /// Waits until it is known.
    pub(crate) async fn until_known(&self) {
        loop {
            let learnt = self.0.learnt.notified();
            tokio::pin!(learnt);
            learnt.as_mut().enable();
            if self.get().is_some() {
                return;
            }
            learnt.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_learnt_once_and_until_then_fits_whatever_is_told() {
        let id = ClusterId::new(None);
        assert!(id.fits(Some("a")) && id.fits(None));
        id.learn("a");
        id.learn("b");
        assert_eq!(id.get(), Some("a"));
        assert!(id.fits(Some("a")) && id.fits(None) && !id.fits(Some("b")));
    }
}
