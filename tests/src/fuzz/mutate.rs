//! Bytes bent by chance.

use fastrand::Rng;

/// One to four changes to a sample; `other` is what may be spliced in.
pub fn mutate(random: &mut Rng, sample: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..random.usize(1..=4) {
        let at = if bytes.is_empty() { 0 } else { random.usize(..bytes.len()) };
        match random.u8(..8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.u8(..8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(..5)],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.u8(..)),
            4 if !bytes.is_empty() => drop(bytes.remove(at)),
            5 if bytes.len() >= 4 => {
                let at = random.usize(..=bytes.len() - 4);
                let number = [i32::MAX, i32::MIN, -1, 0, 1 << 24, 0xffff][random.usize(..6)];
                bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            6 => bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x0f]).for_each(drop),
            7 if !other.is_empty() => {
                let from = random.usize(..other.len());
                let to = random.usize(from..other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..to]);
            }
            _ => {}
        }
    }
    bytes
}
