//! `buffer.memory`: who may open a batch, in the order of asking, and the memory that batches live in.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use klamm_wire::BatchBuilder;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::SendError;

/// Bytes that all batches together may take, from being opened until nobody needs them any more.
#[derive(Debug)]
pub(super) struct Memory {
    /// One permit for each free byte; tokio's semaphore serves waiters first come, first served.
    free: Semaphore,
    total: usize,
    batch_size: usize,
    waiting: AtomicUsize,
    pool: Mutex<Vec<BytesMut>>,
}

/// Counts one waiter until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room for one batch, given back on drop unless it is [kept](Self::keep).
#[derive(Debug)]
pub(super) struct Room<'a>(SemaphorePermit<'a>);

impl Room<'_> {
    /// Takes the room for good; [`Memory::give_back`] ends that.
    pub(super) fn keep(self) -> usize {
        let bytes = self.0.num_permits();
        self.0.forget();
        bytes
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.num_permits()
    }
}

impl Memory {
    pub(super) fn new(total: usize, batch_size: usize) -> Self {
        let total = total.min(Semaphore::MAX_PERMITS);
        let (free, waiting) = (Semaphore::new(total), AtomicUsize::new(0));
        Self { free, total, batch_size, waiting, pool: Mutex::new(Vec::new()) }
    }

    /// Bytes to take for a batch that begins with a record of `need` bytes, header included.
    pub(super) fn price(&self, need: usize) -> usize {
        need.max(self.batch_size.min(self.total))
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Bytes that nobody has taken.
    pub(super) fn available(&self) -> usize {
        self.free.available_permits()
    }

    pub(super) fn try_take(&self, bytes: usize) -> Option<Room<'_>> {
        let bytes = u32::try_from(bytes).ok()?;
        self.free.try_acquire_many(bytes).ok().map(Room)
    }

    /// Waits for room behind everyone who asked before.
    pub(super) async fn take(&self, bytes: usize) -> Result<Room<'_>, SendError> {
        let too_large = |_| SendError::TooLarge { size_bytes: bytes, limit_bytes: self.total };
        let permits = u32::try_from(bytes).map_err(too_large)?;
        let closed = |_| SendError::Closed { maybe_written: false };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        self.free.acquire_many(permits).await.map(Room).map_err(closed)
    }

    /// Someone waits for room, so that no batch is to linger.
    pub(super) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Callers that wait for room.
    pub(super) fn waiters(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.free.add_permits(bytes);
    }

    /// Everyone who waits gets [`SendError::Closed`].
    pub(super) fn close(&self) {
        self.free.close();
    }

    /// Memory for a batch of at most `bytes`.
    pub(super) fn buffer(&self, bytes: usize) -> BytesMut {
        let pooled = if bytes <= self.batch_size { self.pool.lock().pop() } else { None };
        pooled.unwrap_or_else(|| BytesMut::with_capacity(bytes + BatchBuilder::SLACK_BYTES))
    }

    /// Keeps the memory of a batch for the next one, if it has the usual size.
    pub(super) fn recycle(&self, buffer: BytesMut) {
        let usual = self.batch_size.min(self.total)..=2 * self.batch_size + BatchBuilder::SLACK_BYTES;
        let mut pool = self.pool.lock();
        if usual.contains(&buffer.capacity()) && pool.len() < self.total / self.batch_size.max(1) {
            pool.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn room_goes_to_waiters_in_order_and_a_large_one_is_not_overtaken() {
        let memory = Memory::new(100, 10);
        let all = memory.try_take(100).unwrap().keep();
        let mut large = Box::pin(memory.take(60));
        let mut small = Box::pin(memory.take(5));
        assert!((&mut large).now_or_never().is_none() && (&mut small).now_or_never().is_none());
        memory.give_back(50);
        assert!((&mut small).now_or_never().is_none(), "the large one was first");
        assert!(memory.try_take(1).is_none(), "and nobody else slips in");
        memory.give_back(all - 50);
        let large = large.now_or_never().unwrap().unwrap();
        let small = small.now_or_never().unwrap().unwrap();
        assert_eq!((large.bytes(), small.bytes(), memory.available()), (60, 5, 35));
        drop((large, small));
        assert_eq!(memory.available(), 100, "room that was not kept comes back");
    }

    #[test]
    fn a_waiter_that_goes_away_keeps_no_room() {
        let memory = Memory::new(100, 10);
        let all = memory.try_take(100).unwrap().keep();
        let mut gone = Box::pin(memory.take(100));
        assert!((&mut gone).now_or_never().is_none());
        memory.give_back(all);
        drop(gone);
        assert_eq!(memory.available(), 100);
    }

    #[test]
    fn closing_wakes_waiters() {
        let memory = Memory::new(10, 10);
        let _all = memory.try_take(10).unwrap();
        let mut waiter = Box::pin(memory.take(1));
        assert!((&mut waiter).now_or_never().is_none());
        memory.close();
        assert!(matches!(waiter.now_or_never(), Some(Err(SendError::Closed { maybe_written: false }))));
    }

    #[test]
    fn memory_of_batches_is_used_again() {
        let memory = Memory::new(1000, 100);
        let buffer = memory.buffer(100);
        let place = buffer.as_ptr();
        memory.recycle(buffer);
        assert_eq!(memory.buffer(100).as_ptr(), place);
        memory.recycle(BytesMut::with_capacity(5000));
        assert!(memory.pool.lock().is_empty(), "an unusually large one is not kept");
    }
}
