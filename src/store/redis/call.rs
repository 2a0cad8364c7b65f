//! A call of a script: its keys and its arguments, in one piece of memory.
//!
//! Owns how words lie in memory. fred keeps a value for each word and clones it once or twice; parts of one piece
//! are cloned for next to nothing, where words by themselves would be an allocation each, twice. Never talks to
//! Redis. Made by [`super::scripts`], sent by [`super::batches`] and [`super::commits`].

use bytes::Bytes;
use fred::types::Value;

use crate::store::redis::slots::slot_of;

/// What most calls have room in.
const BYTES: usize = 768;
const WORDS: usize = 24;
/// A count of keys or arguments.
const NUMBER_BYTES: usize = 8;

/// A call of a script, all keys of which are in one slot.
#[derive(Debug)]
pub struct Call {
    slot: u16,
    keys: usize,
    words: Words,
}

impl Call {
    /// One with these keys.
    pub fn new<const N: usize>(keys: [String; N]) -> Call {
        let slot = keys.first().map_or(0, |key| slot_of(key));
        let mut words = Words::with_room(WORDS, BYTES);
        keys.iter().for_each(|key| words.push(key));
        Call { slot, keys: N, words }
    }

    /// One more key, before any argument.
    pub fn key(mut self, key: &str) -> Call {
        self.words.push(key);
        self.keys += 1;
        self
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<[u8]>) -> Call {
        self.words.push(arg);
        self
    }

    /// One more argument, a number.
    pub fn number(mut self, arg: impl itoa::Integer) -> Call {
        self.words.push_number(arg);
        self
    }

    /// More arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Call {
        args.into_iter().for_each(|arg| self.words.push(arg));
        self
    }

    /// The slot of its keys.
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// How many keys and arguments it has.
    pub fn len(&self) -> usize {
        self.words.ends.len()
    }

    /// What is sent for it; `script` is the digest or the text of the script.
    pub fn words(&self, script: &str) -> Vec<Value> {
        let mut words = Words::with_room(self.len() + 2, self.words.bytes.len() + script.len() + NUMBER_BYTES);
        words.push(script);
        words.push_number(self.keys);
        words.extend(&self.words, 0, self.len());
        words.into_values()
    }

    /// What is sent for several calls; `script` is that of `lua/many.lua` around the script.
    pub fn words_of_many(script: &str, all: &[impl AsRef<Call>]) -> Vec<Value> {
        let calls = || all.iter().map(AsRef::as_ref);
        let bytes: usize = calls().map(|call| call.words.bytes.len() + 2 * NUMBER_BYTES).sum();
        let count: usize = calls().map(|call| call.len() + 2).sum();
        let mut words = Words::with_room(count + 3, bytes + script.len() + 2 * NUMBER_BYTES);
        words.push(script);
        words.push_number(calls().map(|call| call.keys).sum::<usize>());
        calls().for_each(|call| words.extend(&call.words, 0, call.keys));
        words.push_number(all.len());
        for call in calls() {
            words.push_number(call.keys);
            words.push_number(call.len() - call.keys);
        }
        calls().for_each(|call| words.extend(&call.words, call.keys, call.len()));
        words.into_values()
    }
}

/// Words, one after the other.
#[derive(Debug)]
struct Words {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Words {
    fn with_room(words: usize, bytes: usize) -> Words {
        Words { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(words) }
    }

    fn push(&mut self, word: impl AsRef<[u8]>) {
        self.bytes.extend_from_slice(word.as_ref());
        self.ends.push(self.bytes.len());
    }

    fn push_number(&mut self, word: impl itoa::Integer) {
        self.push(itoa::Buffer::new().format(word));
    }

    /// Those of `other` from one place to another.
    fn extend(&mut self, other: &Words, from: usize, to: usize) {
        let end_of = |count: usize| count.checked_sub(1).and_then(|last| other.ends.get(last)).copied().unwrap_or(0);
        let (start, shift) = (end_of(from), self.bytes.len());
        self.bytes.extend_from_slice(other.bytes.get(start..end_of(to)).unwrap_or_default());
        self.ends.extend(other.ends.get(from..to).unwrap_or_default().iter().map(|end| end - start + shift));
    }

    fn into_values(self) -> Vec<Value> {
        let bytes = Bytes::from(self.bytes);
        let mut start = 0;
        let part = |end| Value::Bytes(bytes.slice(std::mem::replace(&mut start, end)..end));
        self.ends.into_iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::redis::reply;

    fn texts(values: &[Value]) -> String {
        values.iter().filter_map(reply::text).collect::<Vec<_>>().join(" ")
    }

    fn keys<const N: usize>(keys: [&str; N]) -> Call {
        Call::new(keys.map(str::to_owned))
    }

    #[test]
    fn a_call_is_its_keys_and_its_arguments() {
        let call = keys(["a", "b"]).key("c").arg("1").number(2).args(["3", ""]);
        assert_eq!((call.len(), call.slot()), (7, slot_of("a")));
        assert_eq!(texts(&call.words("digest")), "digest 3 a b c 1 2 3 ");
    }

    #[test]
    fn calls_are_joined_keys_first_and_each_is_told_by_its_sizes() {
        let calls = [keys(["a", "b"]).arg("1"), keys(["c"]), keys([]).arg("2").arg("3")].map(Arc::new);
        assert_eq!(texts(&Call::words_of_many("digest", &calls)), "digest 3 a b c 3 2 1 1 0 0 2 1 2 3");
    }
}
