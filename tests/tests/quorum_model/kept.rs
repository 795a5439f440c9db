//! Values that are kept once, so that a state of the model is small and says by their names what it is made of.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Mutex;

/// Every order of three voters: the new name of each.
pub(crate) const NAMES: [[u8; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// What reads differently when voters are named otherwise.
pub(crate) trait Named {
    fn hash_as<H: Hasher>(&self, name: &dyn Fn(i32) -> i32, state: &mut H);
}

/// One value, with its hash under each of [`NAMES`].
#[derive(Debug)]
pub(crate) struct Kept<T> {
    pub(crate) value: T,
    pub(crate) hashes: [u64; 6],
}

/// For the life of the process: what a model is made of is little beside what can be made of it.
pub(crate) type Ref<T> = &'static Kept<T>;

/// All values of one kind.
#[derive(Debug)]
pub(crate) struct Keep<T: 'static>(Mutex<HashMap<u64, Ref<T>>>);

impl<T> Default for Keep<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Named> Keep<T> {
    pub(crate) fn keep(&self, value: T) -> Ref<T> {
        let hashes = NAMES.map(|names| {
            let mut hasher = std::hash::DefaultHasher::new();
            value.hash_as(&|id| i32::from(names[id as usize]), &mut hasher);
            hasher.finish()
        });
        let mut kept = self.0.lock().unwrap();
        kept.entry(hashes[0]).or_insert_with(|| Box::leak(Box::new(Kept { value, hashes })))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// By identity: each value is kept once.
pub(crate) fn address<T>(of: Ref<T>) -> usize {
    std::ptr::from_ref(of) as usize
}

/// Folds one more number into a hash.
pub(crate) fn mix(hash: u64, with: u64) -> u64 {
    let product = u128::from(hash ^ with).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    (product >> 64) as u64 ^ product as u64
}
