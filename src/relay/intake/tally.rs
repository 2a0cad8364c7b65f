//! How many of a kind each of many has: connections by address, sessions by shop.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// See the module. Who has none takes no memory.
pub struct Tally<K>(Mutex<HashMap<K, usize>>);

/// One of them, given back when dropped.
pub struct Share<K: Hash + Eq> {
    tally: Arc<Tally<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Tally<K> {
    /// Nobody has any.
    pub fn new() -> Arc<Tally<K>> {
        Arc::new(Tally(Mutex::default()))
    }

    /// One more for `key`; None where it has `max` already.
    pub fn take(self: &Arc<Self>, key: &K, max: usize) -> Option<Share<K>> {
        let mut counts = self.0.lock();
        match counts.get_mut(key) {
            Some(count) if *count >= max => return None,
            Some(count) => *count += 1,
            None if max == 0 => return None,
            None => drop(counts.insert(key.clone(), 1)),
        }
        Some(Share { tally: self.clone(), key: key.clone() })
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut counts = self.tally.0.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_share_and_gives_it_back() {
        let tally = Tally::new();
        let first = tally.take(&"a", 2).unwrap();
        let _second = tally.take(&"a", 2).unwrap();
        assert!(tally.take(&"a", 2).is_none());
        assert!(tally.take(&"b", 2).is_some());
        drop(first);
        assert!(tally.take(&"a", 2).is_some());
        assert!(!tally.0.lock().contains_key("b"), "who has none takes no memory");
    }
}
