//! How callers reach the sender: one message for each batch, none for each record.

use std::sync::Arc;

use klamm_core::producer::BatchId;
use klamm_wire::SealedBatch;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::attached::Attachments;
use super::delivery::Fate;
use super::slot::Slot;

/// What callers tell the sender.
#[derive(Debug)]
pub(super) enum Note {
    /// Partitions to know from now on, numbered on.
    Slots(Vec<Arc<Slot>>),
    /// Partitions of a topic that was deleted and created again.
    Recreated(Vec<Arc<Slot>>),
    /// A batch was opened.
    Opened {
        batch: BatchId,
        slot: Arc<Slot>,
        fate: Arc<Fate>,
        /// Bytes of `buffer.memory` it holds.
        held: usize,
    },
    /// A batch is final; nothing if it could not be compressed.
    Sealed {
        batch: BatchId,
        sealed: Option<SealedBatch>,
        /// What is to be told of its records, if anything.
        attached: Option<Box<Attachments>>,
    },
    NoRoom,
    Flush(oneshot::Sender<()>),
    /// Give up what is left and end.
    End {
        dropped: bool,
    },
}

/// Notes in the order they were left. Its length is bounded by the batches that `buffer.memory` has room for.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    notes: Vec<Note>,
    next_batch: u64,
    /// No more batches.
    closing: bool,
    ended: bool,
}

impl Inbox {
    /// Leaves a note; `false` if the sender has ended.
    pub(super) fn leave(&self, note: Note) -> bool {
        self.leave_numbered(|_| note).is_some()
    }

    /// No batch is opened from now on, so that a flush that is asked for next is the last one.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
    }

    /// Leaves a note about a new batch and returns the batch's number; they grow in the order of the notes. `None` if no
    /// batch may be opened any more.
    pub(super) fn leave_numbered(&self, note: impl FnOnce(BatchId) -> Note) -> Option<BatchId> {
        let mut state = self.state.lock();
        if state.ended {
            return None;
        }
        let batch = BatchId::new(state.next_batch);
        let newest = state.notes.last();
        let note = note(batch);
        if state.closing && matches!(note, Note::Opened { .. }) {
            return None;
        }
        // Said by every attempt of whoever does not wait; once is enough.
        if matches!((newest, &note), (Some(Note::NoRoom), Note::NoRoom)) {
            return Some(batch);
        }
        state.next_batch += u64::from(matches!(note, Note::Opened { .. }));
        state.notes.push(note);
        let first = state.notes.len() == 1;
        drop(state);
        if first {
            self.arrived.notify_one();
        }
        Some(batch)
    }

    /// Waits until there may be notes.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Takes all notes, in exchange for an empty list.
    pub(super) fn take(&self, into: &mut Vec<Note>) {
        into.clear();
        std::mem::swap(&mut self.state.lock().notes, into);
    }

    /// No more notes; returns those that were left.
    pub(super) fn end(&self) -> Vec<Note> {
        let mut state = self.state.lock();
        state.ended = true;
        std::mem::take(&mut state.notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saying_again_that_there_is_no_room_takes_no_room() {
        let inbox = Inbox::default();
        for _ in 0..1000 {
            assert!(inbox.leave(Note::NoRoom));
        }
        let mut notes = Vec::new();
        inbox.take(&mut notes);
        assert!(matches!(notes[..], [Note::NoRoom]), "{}", notes.len());
    }
}
