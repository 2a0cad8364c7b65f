//! The file of what was accepted and is not in the tables for good yet.
//!
//! Owns how the changes of a transaction reach the disk before anybody is told of them: as one record,
//! appended and synced. Once the tables are synced themselves, the next record begins at the start of
//! the file again; so it stays small, and a record is mostly written where the file has its blocks
//! already, which makes for a short sync. What lies behind the newest record is older; a record there that
//! is newer means that one before it was damaged, and the file is refused. Never knows what the
//! bytes of a record mean. Called by [`super::disk`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

/// Records begin at multiples of it: no two share what a disk writes as one. Whoever loses power while it writes
/// is trusted to leave all other blocks as they were, as SQLite trusts it ("powersafe overwrite").
const BLOCK: usize = 512;
/// By which the file grows.
const GROWTH: usize = 1 << 20;
/// From what size on the tables are to be synced, so that the file begins anew: the first time, and within what bounds.
const DUE_FIRST: u64 = 1 << 20;
const DUE_MIN: u64 = 256 << 10;
const DUE_MAX: u64 = 8 << 20;
/// Everybody waits while the tables are synced. Where that takes less than the one, the next may be of twice as
/// much; where it takes more than the other, as on a slow card, of half. Well below any deadline of a call.
const SYNC_SHORT: Duration = Duration::from_millis(50);
const SYNC_LONG: Duration = Duration::from_millis(200);
/// How the file begins; the salt follows.
const TITLE: &[u8] = b"shoprelay journal 1\n";
const SALT_BYTES: usize = 16;
/// Salt, number, length and checksum.
const HEADER_BYTES: usize = SALT_BYTES + 8 + 4 + 4;

/// Different for each file, and known to nobody else: what a device sends cannot look like a record.
type Salt = [u8; SALT_BYTES];

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not hold what it has to.
    #[error("{0}")]
    Damaged(String),
}

/// The journal, open to be written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    salt: Salt,
    /// Where the next record begins.
    at: u64,
    /// The number of the next record.
    next: u64,
    /// How much of the file is there to be written over.
    len: u64,
    /// How large it may become.
    due: u64,
    buffer: Vec<u8>,
}

/// What was read from a journal.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'b> {
    /// The records after the one that the tables end with, in order.
    pub records: Vec<&'b [u8]>,
    at: usize,
    next: u64,
}

/// Makes an empty journal. It gets its name when it is whole.
///
/// # Errors
/// [`JournalError::Io`]
pub fn create(path: &Path) -> Result<(), JournalError> {
    let mut salt = Salt::default();
    // It gives this few bytes whole.
    getrandom(&mut salt, GetRandomFlags::empty()).map_err(io::Error::from)?;
    let half = path.with_extension("new");
    let mut file = File::create(&half)?;
    file.write_all(&first_block(&salt))?;
    file.sync_all()?;
    fs::rename(&half, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn first_block(salt: &Salt) -> Vec<u8> {
    let mut block = [TITLE, salt].concat();
    block.resize(BLOCK, 0);
    block
}

/// What a journal's bytes hold beyond the record of this number, which the tables end with.
///
/// # Errors
/// [`JournalError::Damaged`]
pub fn read(bytes: &[u8], applied: u64) -> Result<Found<'_>, JournalError> {
    let damaged = |why: String| Err(JournalError::Damaged(why));
    let salt = bytes.get(..BLOCK).and_then(|block| block.strip_prefix(TITLE)?.first_chunk::<SALT_BYTES>());
    let Some(salt) = salt else { return damaged("it does not begin as a journal does".to_owned()) };
    let (mut records, mut at, mut newest) = (Vec::new(), BLOCK, None);
    while let Some(record) = record_at(bytes, at, salt) {
        match newest {
            None if record.number > applied.saturating_add(1) => {
                let number = record.number;
                return damaged(format!("it begins with record {number}, and the database ends with {applied}"));
            }
            Some(newest) if record.number != newest + 1 => break,
            _ => {}
        }
        newest = Some(record.number);
        at = record.end;
        if record.number > applied {
            records.push(record.changes);
        }
    }
    let newest = newest.unwrap_or(applied).max(applied);
    let rest = (at..bytes.len()).step_by(BLOCK).filter_map(|at| record_at(bytes, at, salt));
    if let Some(later) = rest.map(|record| record.number).find(|number| *number > newest) {
        let lost = newest + 1;
        return damaged(format!("record {lost} cannot be read, and record {later} is there"));
    }
    if records.is_empty() {
        at = BLOCK;
    }
    Ok(Found { records, at, next: newest.saturating_add(1) })
}

struct Record<'b> {
    number: u64,
    changes: &'b [u8],
    /// Where the next one begins.
    end: usize,
}

fn record_at<'b>(bytes: &'b [u8], at: usize, salt: &Salt) -> Option<Record<'b>> {
    let (number, rest) = bytes.get(at..)?.strip_prefix(salt)?.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let changes = rest.get(..u32::from_le_bytes(*len) as usize)?;
    let number = u64::from_le_bytes(*number);
    // Nobody counts that far: what follows is counted from it.
    if checksum(number, changes) != u32::from_le_bytes(*sum) || number == u64::MAX {
        return None;
    }
    Some(Record { number, changes, end: end_of(at, changes.len()) })
}

fn end_of(at: usize, len: usize) -> usize {
    (at + HEADER_BYTES + len).next_multiple_of(BLOCK)
}

fn checksum(number: u64, changes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(changes);
    hasher.finalize()
}

impl Journal {
    /// Opens a journal that is there, with its bytes, which [`read`] takes. An empty file is an empty journal.
    ///
    /// # Errors
    /// [`JournalError::Io`]
    pub fn open(path: &Path) -> Result<(Journal, Vec<u8>), JournalError> {
        let mut bytes = fs::read(path)?;
        if bytes.is_empty() {
            create(path)?;
            bytes = fs::read(path)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let salt = bytes.get(TITLE.len()..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        let (len, due, buffer) = (bytes.len() as u64, DUE_FIRST, Vec::new());
        Ok((Journal { file, salt, at: 0, next: 0, len, due, buffer }, bytes))
    }

    /// Goes on after what was found.
    pub fn go_on(&mut self, found: &Found<'_>) {
        (self.at, self.next) = (found.at as u64, found.next);
    }

    /// The number of the newest record; 0 before the first.
    pub fn last(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Writes a record and syncs it. Where that fails nothing was written, or all of it, or what is no record.
    ///
    /// # Errors
    /// That of the disk.
    pub fn append(&mut self, changes: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a transaction of more than 4 GiB");
        let len = u32::try_from(changes.len()).map_err(too_long)?;
        let end = end_of(self.at as usize, changes.len()) as u64;
        self.grow(end)?;
        self.buffer.clear();
        self.buffer.extend_from_slice(&self.salt);
        self.buffer.extend_from_slice(&self.next.to_le_bytes());
        self.buffer.extend_from_slice(&len.to_le_bytes());
        self.buffer.extend_from_slice(&checksum(self.next, changes).to_le_bytes());
        self.buffer.extend_from_slice(changes);
        self.file.write_all_at(&self.buffer, self.at)?;
        self.file.sync_data()?;
        (self.at, self.next) = (end, self.next + 1);
        Ok(())
    }

    /// Sees that the file has its blocks up to there.
    fn grow(&mut self, end: u64) -> io::Result<()> {
        if end <= self.len {
            return Ok(());
        }
        let zeros = vec![0; GROWTH];
        let mut len = self.len;
        while len < end {
            if let Err(error) = self.file.write_all_at(&zeros, len) {
                // What was gained of the room is of no use, and somebody else may have it.
                let _ = self.file.set_len(self.len);
                return Err(error);
            }
            len += zeros.len() as u64;
        }
        self.len = len;
        Ok(())
    }

    /// Whether it is time to sync the tables.
    pub fn is_due(&self) -> bool {
        self.at >= self.due
    }

    /// Begins anew: the tables are synced with everything that is in it, and that took so long.
    pub fn restart(&mut self, took: Duration) {
        self.at = BLOCK as u64;
        self.due = next_due(self.due, took);
        // Better now than for a record that somebody waits for; where there is no room, the record will tell.
        let _ = self.grow(self.due + GROWTH as u64);
    }
}

fn next_due(due: u64, took: Duration) -> u64 {
    match took {
        short if short < SYNC_SHORT => (due * 2).min(DUE_MAX),
        long if long > SYNC_LONG => (due / 2).max(DUE_MIN),
        _ => due,
    }
}

#[cfg(test)]
mod tests;
