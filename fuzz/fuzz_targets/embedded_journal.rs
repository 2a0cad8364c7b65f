#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shoprelay::properties::check("embedded_journal", bytes));
