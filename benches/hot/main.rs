//! The hot parts of a node, each by itself: how long it takes, and how many instructions.
//!
//! `cargo bench --bench hot` measures time by criterion. Time drifts on a shared machine; instructions do
//! not: `benches/hot-counts.sh` has callgrind count them and compares with `benches/hot-counts.txt`. For
//! that this program is started as `hot --count <case> <times>`, and what is counted is [`counted`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cases;

use cases::{CASES, Case};
use criterion::Criterion;

/// Runs a case so often. Callgrind collects while it is in here.
#[inline(never)]
fn counted(case: &mut dyn FnMut(), times: u64) {
    for _ in 0..times {
        case();
    }
}

fn count(name: &str, times: u64) {
    let Case { prepare, .. } = CASES.iter().find(|case| case.name == name).expect("one of `--list-cases`");
    let mut case = prepare();
    // What is made once, at the first call, is not what a part costs.
    (0..256).for_each(|_| case());
    counted(&mut *case, times);
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--count", name, times, ..] => count(name, times.parse().expect("a number")),
        ["--list-cases", ..] => CASES.iter().for_each(|case| println!("{}", case.name)),
        _ => {
            let mut criterion = Criterion::default().configure_from_args();
            for Case { name, prepare } in CASES {
                let mut case = prepare();
                criterion.bench_function(name, |bencher| bencher.iter(&mut case));
            }
            criterion.final_summary();
        }
    }
}
