#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shoprelay::properties::check("redis_event", bytes));
