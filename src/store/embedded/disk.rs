//! The directory of the engine: its lock, its database file, and the room it keeps back.
//!
//! Owns how the file is made, opened, checked and closed. A file that is damaged, foreign or of a
//! later version is refused and left as it is; only where there is none a new one is made, under
//! another name until it is whole. Never looks into a shop's rows. Called by [`super`] and
//! [`super::writer`].

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, StorageError, TableError,
    WriteTransaction,
};

use crate::store::embedded::tables::{FORMAT, FORMAT_ROW, Failure, META, Tables};

/// Pages of the file that are kept in memory; redb would take a gigabyte.
const CACHE_BYTES: usize = 64 << 20;
/// Kept back for what empties a full disk.
const RESERVE_BYTES: usize = 4 << 20;
/// Between two attempts to get the reserve back, or to open a file that failed.
const RETRY: Duration = Duration::from_secs(1);

const FILE: &str = "shoprelay.redb";
const LOCK: &str = "lock";
const RESERVE: &str = "reserve";

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the directory {} cannot be used: {cause}; see that it can be written to, or name another one", dir.display())]
    Directory { dir: PathBuf, cause: io::Error },
    #[error("the directory {} is in use by another process{holder}; stop that one, or name another directory", dir.display())]
    InUse { dir: PathBuf, holder: String },
    #[error("{} is damaged and was left as it is: {cause}; put a copy of it back, or move it away to begin with an empty store", path.display())]
    Damaged { path: PathBuf, cause: String },
    #[error("{} is no store of shoprelay; name another directory", path.display())]
    Foreign { path: PathBuf },
    #[error("{} has format {seen} and this version knows {FORMAT}; start the version that wrote it, or a newer one", path.display())]
    Format { path: PathBuf, seen: u64 },
    #[error("{} cannot be opened: {cause}", path.display())]
    Unusable { path: PathBuf, cause: String },
}

/// The open database, shared by who writes and who reads; nothing while it is closed.
#[derive(Debug, Default)]
pub struct Slot(RwLock<Option<Database>>);

impl Slot {
    /// A view of what is committed now.
    ///
    /// # Errors
    /// [`Failure`]
    pub fn begin_read(&self) -> Result<ReadTransaction, Failure> {
        Ok(self.0.read().as_ref().ok_or(Failure::Closed)?.begin_read()?)
    }

    /// The transaction that changes something; there is one at a time.
    ///
    /// # Errors
    /// [`Failure`]
    pub fn begin_write(&self) -> Result<WriteTransaction, Failure> {
        let mut transaction = self.0.read().as_ref().ok_or(Failure::Closed)?.begin_write()?;
        // What redb does by default; everything that was answered rests on it.
        transaction.set_durability(Durability::Immediate)?;
        Ok(transaction)
    }

    /// Whether it can be read and written.
    pub fn is_open(&self) -> bool {
        self.0.read().is_some()
    }

    fn close(&self) {
        // Out of the lock first: closing writes.
        let database = self.0.write().take();
        if let Some(Err(error)) = database.map(Database::close) {
            tracing::debug!(%error, "the database was not closed cleanly; it is checked at the next start");
        }
    }
}

/// The directory, for as long as this process works in it.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    slot: Arc<Slot>,
    reserve: Reserve,
    failed_at: Option<Instant>,
    /// Held, never read: it is freed with the process, however that ends.
    _lock: File,
}

impl Disk {
    /// Takes the directory, and opens what is in it or begins a new store. Reads the whole file
    /// once, to see that it is sound.
    ///
    /// # Errors
    /// [`StartError`]
    pub fn open(dir: &Path) -> Result<Disk, StartError> {
        let unusable = |cause| StartError::Directory { dir: dir.to_owned(), cause };
        std::fs::create_dir_all(dir).map_err(unusable)?;
        let lock = lock(dir)?;
        let path = dir.join(FILE);
        if !path.try_exists().map_err(unusable)? {
            create(dir, &path)?;
        }
        let mut reserve = Reserve::take(dir.join(RESERVE));
        let mut opened = open_checked(&path);
        if matches!(&opened, Err(error) if is_full(error)) {
            // The check writes a little; on a full disk that is what the reserve is for.
            reserve.spend();
            opened = open_checked(&path);
        }
        let database = opened.map_err(|error| start_error(&path, error))?;
        check_format(&path, &database)?;
        let slot = Arc::new(Slot(RwLock::new(Some(database))));
        Ok(Disk { path, slot, reserve, failed_at: None, _lock: lock })
    }

    /// What is shared with who reads.
    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// What is kept back.
    pub fn reserve(&mut self) -> &mut Reserve {
        &mut self.reserve
    }

    /// Closes the file and opens it again: after an error redb refuses everything else until then.
    /// What was committed is found again. Where it fails it is tried again, but not at once.
    pub fn reopen(&mut self) {
        if self.failed_at.is_some_and(|failed_at| failed_at.elapsed() < RETRY) {
            return;
        }
        self.slot.close();
        match Builder::new().set_cache_size(CACHE_BYTES).open(&self.path) {
            Ok(database) => {
                *self.slot.0.write() = Some(database);
                self.failed_at = None;
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the store's file cannot be opened again yet");
                self.failed_at = Some(Instant::now());
            }
        }
    }

    /// Closes the file.
    pub fn close(&self) {
        self.slot.close();
    }
}

fn lock(dir: &Path) -> Result<File, StartError> {
    let unusable = |cause| StartError::Directory { dir: dir.to_owned(), cause };
    let path = dir.join(LOCK);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {
            // For the message of who comes second; on a full disk it does without.
            let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let process = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
            let holder = process.map(|process| format!(" (process {process})")).unwrap_or_default();
            Err(StartError::InUse { dir: dir.to_owned(), holder })
        }
        Err(TryLockError::Error(cause)) => Err(unusable(cause)),
    }
}

/// Makes a new file. It gets its name when it is whole, so that one that is not can only be damage.
fn create(dir: &Path, path: &Path) -> Result<(), StartError> {
    let half = path.with_extension("new");
    let unusable = |cause| StartError::Directory { dir: dir.to_owned(), cause };
    match std::fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
        _ => {}
    }
    let fill = || -> Result<(), Failure> {
        let database = Builder::new().create(&half)?;
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert(FORMAT_ROW, FORMAT)?;
        drop(Tables::open(&transaction)?);
        transaction.commit()?;
        Ok(database.close()?)
    };
    fill().map_err(|failure| StartError::Unusable { path: half.clone(), cause: failure.to_string() })?;
    std::fs::rename(&half, path).and_then(|()| File::open(dir)?.sync_all()).map_err(unusable)
}

fn open_checked(path: &Path) -> Result<Database, DatabaseError> {
    Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).open(path)
}

fn is_full(error: &DatabaseError) -> bool {
    matches!(error, DatabaseError::Storage(StorageError::Io(cause)) if crate::store::embedded::tables::is_no_room(cause))
}

fn start_error(path: &Path, error: DatabaseError) -> StartError {
    let (path, cause) = (path.to_owned(), error.to_string());
    match error {
        DatabaseError::Storage(StorageError::Io(io))
            if !matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            StartError::Unusable { path, cause }
        }
        DatabaseError::Storage(_) => StartError::Damaged { path, cause },
        _ => StartError::Unusable { path, cause },
    }
}

fn check_format(path: &Path, database: &Database) -> Result<(), StartError> {
    let path = || path.to_owned();
    let unusable = |failure: Failure| StartError::Unusable { path: path(), cause: failure.to_string() };
    let transaction = database.begin_read().map_err(Failure::from).map_err(unusable)?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::Storage(error)) => return Err(unusable(error.into())),
        Err(_) => return Err(StartError::Foreign { path: path() }),
    };
    let row = redb::ReadableTable::get(&meta, FORMAT_ROW).map_err(Failure::from).map_err(unusable)?;
    match row.map(|row| row.value()) {
        Some(FORMAT) => Ok(()),
        Some(seen) => Err(StartError::Format { path: path(), seen }),
        None => Err(StartError::Foreign { path: path() }),
    }
}

/// Room on the disk that is kept back: a file that holds nothing. Without it a full disk could not
/// even be told that everything on it has been delivered, for redb writes before it frees.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    is_spent: bool,
    tried_at: Instant,
}

impl Reserve {
    fn take(path: PathBuf) -> Reserve {
        let mut reserve = Reserve { path, is_spent: false, tried_at: Instant::now() };
        let is_there = std::fs::metadata(&reserve.path).is_ok_and(|file| file.len() == RESERVE_BYTES as u64);
        if !is_there && let Err(error) = reserve.fill() {
            tracing::warn!(%error, "there is hardly any room on the store's disk; messages are refused until there is");
            reserve.is_spent = true;
        }
        reserve
    }

    fn fill(&self) -> io::Result<()> {
        let zeros = vec![0; 1 << 16];
        let filled = File::create(&self.path).and_then(|mut file| {
            for _ in 0..RESERVE_BYTES / zeros.len() {
                file.write_all(&zeros)?;
            }
            file.sync_data()
        });
        if filled.is_err() {
            // Half of it would be taken for all of it at no time, but would keep others from the room.
            let _ = std::fs::remove_file(&self.path);
        }
        filled
    }

    /// Gives the room free: there is none left elsewhere.
    pub fn spend(&mut self) {
        if !self.is_spent {
            tracing::warn!("the store's disk is full; messages are refused until there is room");
        }
        // What is not there has been given free already.
        let _ = std::fs::remove_file(&self.path);
        self.is_spent = true;
        self.tried_at = Instant::now();
    }

    /// Whether there is room, as far as is known; tries to get it back from time to time.
    pub fn is_there(&mut self) -> bool {
        if self.is_spent && self.tried_at.elapsed() >= RETRY {
            self.tried_at = Instant::now();
            self.is_spent = self.fill().is_err();
            if !self.is_spent {
                tracing::info!("there is room on the store's disk again");
            }
        }
        !self.is_spent
    }
}
