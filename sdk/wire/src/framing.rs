//! Length-prefixed frames on a byte stream.
//!
//! In: bytes in whatever portions a socket gives them. Out: whole frames (header and body), and the
//! prefix for one that is to be sent.
//!
//! Invariant: memory grows with the bytes that came, not with the length a peer claims, but for the room of one
//! ordinary frame; frames are slices of the read buffer.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

/// Largest frame a broker takes unless configured otherwise (`socket.request.max.bytes`).
pub const DEFAULT_REQUEST_LIMIT_BYTES: usize = 104_857_600;

/// Largest frame a client takes: Kafka sets no limit on answers but the prefix itself.
pub const DEFAULT_RESPONSE_LIMIT_BYTES: usize = i32::MAX as usize;

/// Room that [`FrameSplitter::read_buffer`] leaves for one read.
const READ_BYTES: usize = 16 * 1024;

/// The same on a stream that has filled it: one read takes several frames then.
const BUSY_READ_BYTES: usize = 64 * 1024;

/// How much is believed of the length of a frame once [`READ_BYTES`] of it are there: a batch as large as brokers take by
/// default, with its request. Growing by steps would copy such a frame over and over.
const BELIEVED_BYTES: usize = 1024 * 1024 + READ_BYTES;

/// Buffers of this size and more are used again by a splitter that [recycles](FrameSplitter::recycling).
const RECYCLED_BYTES: usize = 256 * 1024;

/// How many of them it remembers, in use or not.
const SPARES: usize = 4;

/// Why a stream cannot be split any further; it must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// The peer does not speak the protocol.
    #[error("negative frame length {0}")]
    Negative(i32),
    /// The frame would exceed the limit of this stream.
    #[error("frame of {length_bytes} B exceeds the limit of {limit_bytes} B")]
    TooLarge {
        /// Length claimed by the prefix, or of the frame to be sent.
        length_bytes: usize,
        /// Limit in force.
        limit_bytes: usize,
    },
}

/// Splits one direction of a connection into frames.
#[derive(Debug)]
pub struct FrameSplitter {
    buffer: BytesMut,
    limit_bytes: usize,
    read_bytes: usize,
    /// The largest frame so far: a peer that has sent as much before is believed.
    largest: usize,
    /// Size of the buffer as it was allocated.
    allocated: usize,
    recycles: bool,
    /// Former buffers: each can be used again once nobody has a frame of it any more.
    spares: VecDeque<BytesMut>,
}

impl FrameSplitter {
    /// A splitter that takes frames of up to `limit_bytes`, prefix not counted.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            limit_bytes,
            read_bytes: READ_BYTES,
            largest: 0,
            allocated: 0,
            recycles: false,
            spares: VecDeque::new(),
        }
    }

    /// Uses large buffers again once their frames are dropped: memory that a process has touched before costs a fraction of what
    /// fresh pages do. Up to four are kept until a small frame shows that the stream is idle.
    #[must_use]
    pub fn recycling(mut self) -> Self {
        self.recycles = true;
        self
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer to read into, with spare room; bytes may only be appended.
    pub fn read_buffer(&mut self) -> &mut BytesMut {
        let (len, room) = (self.buffer.len(), self.buffer.capacity() - self.buffer.len());
        let missing = self.missing_bytes();
        if len > 0 && room == 0 {
            self.read_bytes = BUSY_READ_BYTES;
        }
        let grown = if len < READ_BYTES { READ_BYTES } else { BELIEVED_BYTES.max(2 * len).max(self.largest) };
        if room < missing && missing > self.read_bytes && room < grown.min(missing) {
            self.make_room(grown.min(missing));
        } else if room < READ_BYTES / 4 {
            self.make_room(self.read_bytes);
        }
        &mut self.buffer
    }

    fn make_room(&mut self, bytes: usize) {
        let size = self.buffer.len() + bytes;
        if !self.recycles || size < RECYCLED_BYTES && self.allocated < RECYCLED_BYTES {
            return self.buffer.reserve(bytes);
        }
        if self.buffer.try_reclaim(bytes) {
            return;
        }
        let spare = match size < RECYCLED_BYTES {
            true => None,
            false => self.spares.iter_mut().position(|spare| spare.try_reclaim(size)),
        };
        let mut next = match spare.and_then(|at| self.spares.remove(at)) {
            Some(spare) => spare,
            None => BytesMut::with_capacity(size),
        };
        next.extend_from_slice(&self.buffer);
        let allocated = std::mem::replace(&mut self.allocated, next.capacity());
        let mut former = std::mem::replace(&mut self.buffer, next);
        if allocated >= RECYCLED_BYTES {
            former.clear();
            self.spares.push_back(former);
            if self.spares.len() > SPARES {
                self.spares.pop_front();
            }
        }
    }

    /// Bytes of the first frame that have not come, as far as its prefix can be believed.
    fn missing_bytes(&self) -> usize {
        let claimed = self.buffer.first_chunk::<PREFIX_BYTES>().map(|prefix| i32::from_be_bytes(*prefix));
        let length = claimed.and_then(|claimed| usize::try_from(claimed).ok()).unwrap_or(0);
        length.min(self.limit_bytes).saturating_add(PREFIX_BYTES).saturating_sub(self.buffer.len())
    }

    /// Takes the next whole frame without its prefix; `None` until more bytes come.
    ///
    /// # Errors
    ///
    /// Returns [`FramingError`] as soon as a prefix is negative or above the limit, without waiting for the rest.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FramingError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let claimed = i32::from_be_bytes(*prefix);
        let length = usize::try_from(claimed).map_err(|_| FramingError::Negative(claimed))?;
        if length > self.limit_bytes {
            return Err(FramingError::TooLarge { length_bytes: length, limit_bytes: self.limit_bytes });
        }
        if self.buffer.len() - PREFIX_BYTES < length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        self.largest = self.largest.max(length);
        if length < READ_BYTES {
            self.spares.clear();
        }
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Bytes received that belong to no frame handed out yet; above 0 at the end of a stream means it was cut.
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len()
    }
}

/// The prefix of a frame of `length_bytes`.
///
/// # Errors
///
/// Returns [`FramingError::TooLarge`] if the length does not fit the prefix.
pub fn length_prefix(length_bytes: usize) -> Result<[u8; PREFIX_BYTES], FramingError> {
    i32::try_from(length_bytes)
        .map(i32::to_be_bytes)
        .map_err(|_| FramingError::TooLarge { length_bytes, limit_bytes: DEFAULT_RESPONSE_LIMIT_BYTES })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_prefix_that_cannot_be_is_refused_before_its_frame_comes() {
        let mut splitter = FrameSplitter::new(100);
        splitter.push(&(-1i32).to_be_bytes());
        assert_eq!(splitter.next_frame(), Err(FramingError::Negative(-1)));

        let mut splitter = FrameSplitter::new(100);
        splitter.push(&i32::MAX.to_be_bytes());
        let too_large = FramingError::TooLarge { length_bytes: i32::MAX as usize, limit_bytes: 100 };
        assert_eq!(splitter.next_frame(), Err(too_large));
    }

    /// Goal: the claim of 2 GB alone reserves nothing.
    #[test]
    fn memory_follows_the_bytes_that_came() {
        let mut splitter = FrameSplitter::new(usize::MAX);
        splitter.push(&i32::MAX.to_be_bytes());
        splitter.push(b"GET / HTTP/1.1");
        assert_eq!(splitter.next_frame(), Ok(None));
        assert_eq!(splitter.pending_bytes(), 18);
        assert!(splitter.read_buffer().capacity() < 2 * READ_BYTES);
        splitter.push(&[0; 100_000]);
        assert!(splitter.read_buffer().capacity() < 100_018 + BELIEVED_BYTES + 4096, "an ordinary frame");
        splitter.push(&vec![0; 3 << 20]);
        assert!(splitter.read_buffer().capacity() < 4 * (3 << 20), "a small multiple of what came");
    }

    /// Goal: a batch of a megabyte is not copied from buffer to buffer while it comes.
    #[test]
    fn a_frame_of_an_ordinary_size_is_read_into_one_buffer() {
        let length = 1_000_000;
        let mut splitter = FrameSplitter::new(usize::MAX);
        let mut stream = length_prefix(length).unwrap().to_vec();
        stream.resize(length + PREFIX_BYTES, 7);
        let (mut rest, mut buffers) = (&stream[..], std::collections::BTreeSet::new());
        while !rest.is_empty() {
            let buffer = splitter.read_buffer();
            let room = buffer.capacity() - buffer.len();
            let (now, later) = rest.split_at(room.min(rest.len()).min(50_000));
            buffer.extend_from_slice(now);
            buffers.insert(buffer.capacity());
            rest = later;
        }
        assert_eq!(splitter.next_frame().unwrap().map(|frame| frame.len()), Some(length));
        assert!(buffers.len() <= 2, "{buffers:?}: one that shows the length, one for the frame");
    }

    /// Goal: a stream of large frames touches fresh memory only until its buffers are there.
    #[test]
    fn large_buffers_are_used_again_once_their_frames_are_dropped_and_given_back_when_idle() {
        let mut splitter = FrameSplitter::new(usize::MAX).recycling();
        let mut seen = std::collections::BTreeSet::new();
        let mut frames = VecDeque::new();
        for number in 0..40u8 {
            let mut stream = length_prefix(3_000_000).unwrap().to_vec();
            stream.resize(3_000_000 + PREFIX_BYTES, number);
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let buffer = splitter.read_buffer();
                let room = buffer.capacity() - buffer.len();
                let (now, later) = rest.split_at(room.min(rest.len()).min(100_000));
                buffer.extend_from_slice(now);
                rest = later;
            }
            let frame = splitter.next_frame().unwrap().unwrap();
            if number > 4 {
                seen.insert(frame.as_ptr());
            }
            frames.push_back(frame);
            if frames.len() > 2 {
                let oldest = frames.pop_front().unwrap();
                assert!(
                    oldest.iter().all(|byte| *byte == oldest[0]),
                    "nobody wrote into a frame that is held"
                );
            }
        }
        assert!(seen.len() <= 5, "{} buffers for three frames that are held", seen.len());
        assert!(!splitter.spares.is_empty());
        splitter.push(&[0, 0, 0, 1, 7]);
        assert_eq!(splitter.next_frame().unwrap().as_deref(), Some(&[7][..]));
        assert!(splitter.spares.is_empty());
    }

    #[test]
    fn a_length_over_the_prefix_is_refused() {
        assert_eq!(length_prefix(5), Ok([0, 0, 0, 5]));
        assert!(length_prefix(1 << 31).is_err());
    }

    proptest! {
        /// However a stream is torn, the frames come out as they went in.
        #[test]
        fn frames_survive_any_tearing(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            sizes in prop::collection::vec(1usize..30, 1..8),
            in_place in any::<bool>(),
            recycling in any::<bool>(),
        ) {
            let mut stream = Vec::new();
            for frame in &frames {
                stream.extend(length_prefix(frame.len()).unwrap());
                stream.extend(frame);
            }
            let (mut splitter, mut out, mut rest) = (FrameSplitter::new(40), Vec::new(), &stream[..]);
            if recycling {
                splitter = splitter.recycling();
            }
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*size).min(rest.len()));
                rest = later;
                if in_place {
                    splitter.read_buffer().extend_from_slice(now);
                } else {
                    splitter.push(now);
                }
                while let Some(frame) = splitter.next_frame().unwrap() {
                    out.push(frame.to_vec());
                }
            }
            prop_assert_eq!(out, frames);
            prop_assert_eq!(splitter.pending_bytes(), 0);
        }
    }
}
