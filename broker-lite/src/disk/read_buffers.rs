//! Memory that reads of a disk take turns with: fresh memory would be cleared and faulted in, page by page, for every
//! answer, which costs more than the read.
//!
//! Invariant: at most [`IDLE_BYTES`] are set aside; memory comes back when the last slice of it is gone.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

/// Smaller reads take memory as it comes.
const FROM_BYTES: usize = 16 << 10;
/// Most that is set aside.
const IDLE_BYTES: usize = 4 << 20;

/// What nobody reads into at the moment.
#[derive(Debug, Default)]
pub(super) struct ReadBuffers(Mutex<Vec<Vec<u8>>>);

/// A buffer on loan.
#[derive(Debug)]
struct Lent {
    bytes: Vec<u8>,
    len: usize,
    home: Weak<ReadBuffers>,
}

impl ReadBuffers {
    /// So many bytes as `fill` leaves them, which finds there what an earlier read left.
    pub(super) fn filled<E>(
        self: &Arc<Self>,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        if len < FROM_BYTES {
            let mut bytes = vec![0; len];
            return fill(&mut bytes).map(|()| Bytes::from(bytes));
        }
        let mut lent = Lent { bytes: self.take(len), len, home: Arc::downgrade(self) };
        fill(&mut lent.bytes[..len])?;
        Ok(Bytes::from_owner(lent))
    }

    /// The smallest that is large enough, or a new one.
    fn take(&self, len: usize) -> Vec<u8> {
        let mut idle = self.0.lock();
        let fitting = idle.iter().enumerate().filter(|(_, buffer)| buffer.len() >= len);
        match fitting.min_by_key(|(_, buffer)| buffer.len()).map(|(at, _)| at) {
            Some(at) => idle.swap_remove(at),
            None => {
                drop(idle);
                vec![0; len]
            }
        }
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut idle = self.0.lock();
        let held: usize = idle.iter().map(Vec::len).sum();
        if held + buffer.len() <= IDLE_BYTES {
            idle.push(buffer);
        }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffers: &Arc<ReadBuffers>, len: usize, byte: u8) -> Bytes {
        let filled = buffers.filled(len, |buffer| {
            buffer.fill(byte);
            Ok::<_, ()>(())
        });
        filled.unwrap()
    }

    #[test]
    fn memory_is_read_into_again_once_the_last_slice_is_gone() {
        let buffers = Arc::new(ReadBuffers::default());
        let first = read(&buffers, 100_000, 1);
        let at = first.as_ptr();
        let slice = first.slice(10..20);
        drop(first);
        let second = read(&buffers, 100_000, 2);
        assert_ne!(second.as_ptr(), at, "somebody still holds a slice");
        assert_eq!(slice, [1; 10][..]);
        drop(slice);
        let third = read(&buffers, 50_000, 3);
        assert_eq!((third.as_ptr(), third.len()), (at, 50_000));
        assert_eq!(second, vec![2; 100_000]);
    }

    #[test]
    fn not_more_than_some_megabytes_are_set_aside() {
        let buffers = Arc::new(ReadBuffers::default());
        let held: Vec<_> = (0..20).map(|byte| read(&buffers, 1 << 20, byte)).collect();
        drop(held);
        assert_eq!(buffers.0.lock().len(), 4);
    }

    #[test]
    fn a_read_that_fails_gives_its_memory_back() {
        let buffers = Arc::new(ReadBuffers::default());
        assert_eq!(buffers.filled(100_000, |_| Err(7)), Err(7));
        assert_eq!(buffers.0.lock().len(), 1);
    }
}
