//! Records, and what is left of them.

use super::*;

/// A journal in a directory of its own, with what goes before its first record.
struct Bench {
    dir: tempfile::TempDir,
    journal: Journal,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        create(&dir.path().join("journal")).unwrap();
        let journal = open(dir.path(), 0);
        Bench { dir, journal }
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("journal")).unwrap()
    }
}

fn open(dir: &Path, applied: u64) -> Journal {
    let (mut journal, bytes) = Journal::open(&dir.join("journal")).unwrap();
    journal.go_on(&read(&bytes, applied).unwrap());
    journal
}

fn damage(bytes: &[u8], applied: u64) -> String {
    read(bytes, applied).unwrap_err().to_string()
}

#[test]
fn what_was_appended_is_found_from_where_the_tables_end() {
    let mut bench = Bench::new();
    let long = vec![7; 3 * BLOCK];
    for changes in [&b"one"[..], &long, b"", b"four"] {
        bench.journal.append(changes).unwrap();
    }
    let bytes = bench.bytes();
    assert_eq!(read(&bytes, 0).unwrap().records, [&b"one"[..], &long, b"", b"four"]);
    assert_eq!(read(&bytes, 2).unwrap().records, [&b""[..], b"four"]);
    assert_eq!(read(&bytes, 4).unwrap().records, [&b""[..]; 0]);
    let mut again = open(bench.dir.path(), 3);
    again.append(b"five").unwrap();
    assert_eq!(read(&bench.bytes(), 3).unwrap().records, [b"four", b"five"]);
}

#[test]
fn it_begins_anew_and_what_is_left_behind_counts_for_nothing() {
    let mut bench = Bench::new();
    for number in 1..=9u8 {
        bench.journal.append(&vec![number; 100 * number as usize]).unwrap();
    }
    bench.journal.restart(SYNC_SHORT);
    let size = bench.bytes().len();
    assert_eq!(read(&bench.bytes(), 9).unwrap().records.len(), 0, "the tables have all of it");
    bench.journal.append(b"ten").unwrap();
    assert_eq!(read(&bench.bytes(), 9).unwrap().records, [b"ten"]);
    let mut again = open(bench.dir.path(), 9);
    again.append(&[11; 1000]).unwrap();
    let bytes = bench.bytes();
    assert_eq!(read(&bytes, 9).unwrap().records, [&b"ten"[..], &[11; 1000]]);
    assert_eq!(bytes.len(), size, "it was written over");
}

#[test]
fn a_record_that_was_not_written_to_its_end_is_none_and_is_written_over() {
    let mut bench = Bench::new();
    bench.journal.append(b"one").unwrap();
    bench.journal.append(&[2; 2000]).unwrap();
    let whole = bench.bytes();
    let last = 2 * BLOCK;
    for torn_at in [last, last + 1, last + SALT_BYTES, last + HEADER_BYTES, last + HEADER_BYTES + 1999] {
        let mut torn = whole.clone();
        torn[torn_at..].fill(0);
        assert_eq!(read(&torn, 0).unwrap().records, [b"one"], "{torn_at}");
        assert_eq!(read(&torn[..torn_at], 0).unwrap().records, [b"one"], "{torn_at}");
        fs::write(bench.dir.path().join("journal"), &torn).unwrap();
        open(bench.dir.path(), 0).append(b"two").unwrap();
        assert_eq!(read(&bench.bytes(), 0).unwrap().records, [b"one", b"two"], "{torn_at}");
    }
}

#[test]
fn a_damaged_record_is_told_by_those_after_it() {
    let mut bench = Bench::new();
    for number in 1..=3u8 {
        bench.journal.append(&[number; 600]).unwrap();
    }
    let whole = bench.bytes();
    for at in [BLOCK, BLOCK + SALT_BYTES, BLOCK + HEADER_BYTES + 599, 3 * BLOCK + 100] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        assert!(
            damage(&bytes, 0).ends_with("and record 2 is there")
                || damage(&bytes, 0).ends_with("and record 3 is there")
        );
    }
    assert_eq!(damage(&whole[BLOCK..], 0), "it does not begin as a journal does");
    assert_eq!(read(&whole, 1).unwrap().records.len(), 2);
    bench.journal.restart(SYNC_SHORT);
    bench.journal.append(b"four").unwrap();
    assert_eq!(damage(&bench.bytes(), 2), "it begins with record 4, and the database ends with 2");
}

#[test]
fn an_empty_file_is_an_empty_journal_and_goes_on_with_the_next_number() {
    let mut bench = Bench::new();
    bench.journal.append(b"one").unwrap();
    let salt = bench.journal.salt;
    fs::write(bench.dir.path().join("journal"), b"").unwrap();
    let mut again = open(bench.dir.path(), 7);
    assert_eq!((again.last(), again.salt == salt), (7, false));
    again.append(b"eight").unwrap();
    assert_eq!(read(&bench.bytes(), 7).unwrap().records, [b"eight"]);
}

#[test]
fn what_a_device_sends_is_no_record() {
    let mut bench = Bench::new();
    let mut other = Bench::new();
    other.journal.append(b"forged").unwrap();
    bench.journal.append(&[vec![0; BLOCK - HEADER_BYTES], other.bytes()].concat()).unwrap();
    bench.journal.restart(SYNC_SHORT);
    bench.journal.append(b"two").unwrap();
    assert_eq!(read(&bench.bytes(), 1).unwrap().records, [b"two"]);
}

#[test]
fn it_is_due_when_it_has_grown_and_grows_as_far_as_syncing_is_quick() {
    let mut bench = Bench::new();
    bench.journal.append(b"one").unwrap();
    assert!(!bench.journal.is_due());
    bench.journal.append(&vec![2; DUE_FIRST as usize]).unwrap();
    assert!(bench.journal.is_due());
    bench.journal.restart(Duration::ZERO);
    assert!(!bench.journal.is_due());
    bench.journal.append(&vec![3; DUE_FIRST as usize]).unwrap();
    assert!(!bench.journal.is_due(), "it was quick, so twice as much is taken");
    assert_eq!([1, 2, 8].map(|mib| next_due(mib << 20, SYNC_SHORT / 2) >> 20), [2, 4, 8]);
    assert_eq!([1 << 20, DUE_MIN].map(|due| next_due(due, SYNC_SHORT)), [1 << 20, DUE_MIN]);
    assert_eq!([1 << 20, DUE_MIN].map(|due| next_due(due, SYNC_LONG * 2)), [1 << 19, DUE_MIN]);
}

#[test]
fn it_has_its_blocks_before_somebody_waits_for_them() {
    let mut bench = Bench::new();
    bench.journal.append(b"one").unwrap();
    bench.journal.restart(SYNC_SHORT);
    let size = bench.bytes().len() as u64;
    assert!(size >= DUE_FIRST + GROWTH as u64);
    while !bench.journal.is_due() {
        bench.journal.append(&[1; 100_000]).unwrap();
    }
    assert_eq!(bench.bytes().len() as u64, size);
}
