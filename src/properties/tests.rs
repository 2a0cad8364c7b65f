//! Every property, over its seeds and what mutation makes of them. The schedule is fixed, so what fails once
//! fails again.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tikv_jemalloc_ctl::thread;

use super::{ALL, BYTES_IN_ANY_CASE, Property};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Mutated inputs of each property.
const ROUNDS: usize = 6000;
/// Largest input: a frame of the default size.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// No input takes long; a machine that is busy with other things may.
const DEADLINE: Duration = Duration::from_secs(30);
/// Where the seeds are written to, for `fuzz/`, if it is set.
const SEEDS_TO: &str = "SHOPRELAY_SEEDS_TO";

/// What stands at some edge in one of the formats.
const TOKENS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\\ud800",
    b"\\u0000",
    b"1e999",
    b"-0",
    b"18446744073709551616",
    b"null",
    b"\xde\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc1",
    b"\xd4\x01\x02",
    b"\xca\x7f\x80\0\0",
    b"\xed\xa0\x80",
    b"%FF",
    b"%E5%BA",
    b"%2F",
    b"&",
    b"=",
    b"/",
    b"\n",
    b"\r\n",
    b"\0",
    b" ",
    b".",
    b",",
    b"-",
    b"\xff\xff\xff\xff",
    b"\x81\xfe",
    b"\x81\xff",
    b"\x80\x80\0\0\0\0",
];

fn mutated(property: &Property, seeds: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = match rng.random_range(0..20) {
        0 => (0..rng.random_range(0..200)).map(|_| rng.random()).collect(),
        _ => seeds.choose(rng).unwrap_or_else(|| panic!("{} has no seed", property.name)).clone(),
    };
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=bytes.len());
        let end = rng.random_range(at..=bytes.len().min(at + 40));
        match rng.random_range(0..10) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            2 if at < bytes.len() => bytes[at] = rng.random(),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.truncate(at.max(1)),
            5 => {
                let other = seeds.choose(rng).cloned().unwrap_or_default();
                let from = rng.random_range(0..=other.len());
                bytes.splice(at..end, other[from..].iter().copied().take(60));
            }
            6 if rng.random_range(0..8) == 0 => {
                let times = INPUT_BYTES_MAX / (end - at).max(1);
                let repeated = bytes[at..end].repeat(rng.random_range(0..=times));
                bytes.splice(at..end, repeated);
            }
            6 | 7 => bytes.splice(at..end, bytes[at..end].repeat(3)).for_each(drop),
            _ => drop(bytes.splice(at..at, TOKENS.choose(rng).into_iter().flat_map(|token| token.iter().copied()))),
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

/// Holds the property against this input, and the input's memory against its size.
fn hold(property: &Property, input: &[u8]) {
    let allocated = thread::allocatedp::read().expect("jemalloc counts what a thread allocates");
    let before = allocated.get();
    (property.holds)(input);
    let taken = allocated.get() - before;
    let allowed = BYTES_IN_ANY_CASE + property.bytes_per_byte * input.len() as u64;
    assert!(taken <= allowed, "it allocated {taken} bytes for {} of input, {allowed} are allowed", input.len());
}

fn run(property: &'static Property, inputs: impl FnOnce(&mut dyn FnMut(Vec<u8>)) + Send + 'static) {
    let (begins, begun) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        // What is kept from the first input on is not its own.
        (property.holds)(&[]);
        inputs(&mut |input| {
            begins.send(input.clone()).expect("who watches is there");
            hold(property, &input);
        });
    });
    let mut last = Vec::new();
    loop {
        let began = Instant::now();
        match begun.recv_timeout(DEADLINE) {
            Ok(input) => last = input,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                panic!("{} still runs after {:?}: b\"{}\"", property.name, began.elapsed(), last.escape_ascii())
            }
        }
    }
    assert!(worker.join().is_ok(), "{} does not hold for b\"{}\"", property.name, last.escape_ascii());
}

#[test]
fn every_property_holds_for_its_seeds_and_what_mutation_makes_of_them() {
    for property in ALL {
        let began = Instant::now();
        run(property, |each| {
            let seeds = (property.seeds)();
            assert!(!seeds.is_empty(), "{} has no seed", property.name);
            seeds.iter().cloned().for_each(&mut *each);
            let mut rng = StdRng::seed_from_u64(property.name.bytes().map(u64::from).sum());
            (0..ROUNDS).for_each(|_| each(mutated(property, &seeds, &mut rng)));
        });
        println!("{}: {:?}", property.name, began.elapsed());
    }
}

#[test]
fn every_property_is_a_fuzz_target_and_its_seeds_can_be_written_for_it() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("fuzz/Cargo.toml");
    let targets = manifest.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let targets: Vec<&str> = targets.filter(|name| *name != "shoprelay-fuzz").collect();
    let names: Vec<&str> = ALL.iter().map(|property| property.name).collect();
    assert_eq!(targets, names);
    for property in ALL {
        let source =
            std::fs::read_to_string(root.join(format!("fuzz_targets/{}.rs", property.name))).expect("a target");
        assert!(source.contains(&format!("check(\"{}\"", property.name)), "{source}");
        let Ok(folder) = std::env::var(SEEDS_TO) else { continue };
        let folder = std::path::Path::new(&folder).join(property.name);
        std::fs::create_dir_all(&folder).expect("a directory for seeds");
        for (number, seed) in (property.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed).expect("a seed");
        }
    }
}
