//! The directory of the engine: its lock, its database file, its journal, and the room it keeps back.
//!
//! Owns how the files are made, opened, checked and closed, and what happens to changes when: they are
//! synced in the journal before anybody is told of them, shown in the database once somebody reads, and
//! synced there from time to time. What was not when the process died is done again from the journal. A
//! file that is damaged, foreign or of a later version is refused and left as it is; only where there is
//! none a new one is made, under another name until it is whole. Never looks into a shop's rows. Called
//! by [`super`] and [`super::writer`].

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, StorageError, TableError,
    WriteTransaction,
};

use crate::store::embedded::journal::{self, Journal, JournalError};
use crate::store::embedded::tables::{Changes, FORMAT, FORMAT_OLDEST, FORMAT_ROW, Failure, JOURNAL_ROW, META, Tables};

/// Pages of the file that are kept in memory; redb would take a gigabyte.
const CACHE_BYTES: usize = 64 << 20;
/// Kept back for what empties a full disk, and for what the changes in a journal take in the database.
const RESERVE_BYTES: usize = 16 << 20;
/// Between two attempts to get the reserve back, to open a file that failed, or to sync one.
const RETRY: Duration = Duration::from_secs(1);

const FILE: &str = "shoprelay.redb";
const JOURNAL: &str = "journal";
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
    #[error("the journal {} does not go with the database beside it and was left as it is: {cause}; put a copy of both back, or an empty file in its place to go on without what was accepted last", path.display())]
    Journal { path: PathBuf, cause: String },
    #[error("{} is no store of shoprelay; name another directory", path.display())]
    Foreign { path: PathBuf },
    #[error("{} has format {seen} and this version knows {FORMAT}; start the version that wrote it, or a newer one", path.display())]
    Format { path: PathBuf, seen: u64 },
    #[error("{} cannot be opened: {cause}", path.display())]
    Unusable { path: PathBuf, cause: String },
}

/// The open database, shared by who writes and who reads; nothing while it is closed.
#[derive(Debug)]
pub struct Slot {
    database: RwLock<Option<Database>>,
    /// Whether there is something that was synced and is not shown.
    is_behind: AtomicBool,
}

impl Slot {
    fn new(database: Database) -> Slot {
        Slot { database: RwLock::new(Some(database)), is_behind: AtomicBool::new(false) }
    }

    /// A view of what is shown now. It is everything that was answered, unless [`Slot::is_behind`].
    ///
    /// # Errors
    /// [`Failure`]
    pub fn begin_read(&self) -> Result<ReadTransaction, Failure> {
        Ok(self.database.read().as_ref().ok_or(Failure::Closed)?.begin_read()?)
    }

    /// Whether something was answered that is not shown yet.
    pub fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::SeqCst)
    }

    fn begin_write(&self) -> Result<WriteTransaction, Failure> {
        Ok(self.database.read().as_ref().ok_or(Failure::Closed)?.begin_write()?)
    }

    /// Whether it can be read and written.
    pub fn is_open(&self) -> bool {
        self.database.read().is_some()
    }

    fn open(&self, database: Database) {
        *self.database.write() = Some(database);
        self.is_behind.store(false, Ordering::SeqCst);
    }

    fn close(&self) {
        // Out of the lock first: closing writes.
        let database = self.database.write().take();
        if let Some(Err(error)) = database.map(Database::close) {
            tracing::debug!(%error, "the database was not closed cleanly; it is checked at the next start");
        }
    }
}

/// The directory, for as long as this process works in it.
pub struct Disk {
    path: PathBuf,
    slot: Arc<Slot>,
    journal: Journal,
    /// What is in the journal and not shown yet.
    unshown: Option<WriteTransaction>,
    reserve: Reserve,
    failed_at: Option<Instant>,
    /// When the database could not be synced last, if it was not since.
    unsynced_at: Option<Instant>,
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
        let journal_path = dir.join(JOURNAL);
        let mut reserve = Reserve::take(dir.join(RESERVE));
        let mut opened = open_checked(&path);
        if matches!(&opened, Err(error) if is_full(error)) {
            // The check writes a little; on a full disk that is what the reserve is for.
            reserve.spend();
            opened = open_checked(&path);
        }
        let database = opened.map_err(|error| start_error(&path, error))?;
        check_format(&path, &journal_path, &database)?;
        let journal = replay(&journal_path, &database)?;
        let slot = Arc::new(Slot::new(database));
        Ok(Disk { path, slot, journal, unshown: None, reserve, failed_at: None, unsynced_at: None, _lock: lock })
    }

    /// What is shared with who reads.
    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// What is kept back.
    pub fn reserve(&mut self) -> &mut Reserve {
        &mut self.reserve
    }

    /// The transaction for more changes, to be given to [`Disk::keep`]. Where it is dropped, what is not
    /// shown yet has to be taken from the journal: by [`Disk::reopen`].
    ///
    /// # Errors
    /// [`Failure`]
    pub fn begin(&mut self) -> Result<WriteTransaction, Failure> {
        self.unshown.take().map_or_else(|| self.slot.begin_write(), Ok)
    }

    /// Syncs changes of this transaction. Says whether there was anything to sync.
    ///
    /// # Errors
    /// [`Failure`]; the changes may be on disk all the same.
    pub fn keep(&mut self, transaction: WriteTransaction, changes: &[u8]) -> Result<bool, Failure> {
        if !changes.is_empty() {
            self.journal.append(changes)?;
            self.slot.is_behind.store(true, Ordering::SeqCst);
        }
        self.unshown = Some(transaction);
        Ok(!changes.is_empty())
    }

    /// Shows everything to who reads.
    ///
    /// # Errors
    /// [`Failure`]
    pub fn show(&mut self) -> Result<(), Failure> {
        if self.slot.is_behind() { self.commit(Durability::None) } else { Ok(()) }
    }

    /// Syncs the database where the journal has grown large. Where there is no room for that, there is with what was
    /// kept back; and whatever happens, the journal has everything.
    pub fn sync_when_due(&mut self) {
        let has_failed = self.unsynced_at.is_some_and(|failed_at| failed_at.elapsed() < RETRY);
        if !self.journal.is_due() || has_failed || !self.slot.is_open() {
            return;
        }
        let Err(failure) = guarded(|| self.sync()) else { return };
        tracing::warn!(%failure, "the store's database cannot be synced; it is opened again");
        self.reopen();
        if failure.is_full() {
            self.reserve.spend();
            if guarded(|| self.sync()).is_ok() {
                return;
            }
            self.reopen();
        }
        self.unsynced_at = Some(Instant::now());
    }

    fn sync(&mut self) -> Result<(), Failure> {
        self.commit(Durability::Immediate)?;
        self.journal.restart();
        self.unsynced_at = None;
        Ok(())
    }

    fn commit(&mut self, durability: Durability) -> Result<(), Failure> {
        let mut transaction = self.begin()?;
        transaction.set_durability(durability)?;
        transaction.open_table(META)?.insert(JOURNAL_ROW, self.journal.last())?;
        transaction.commit()?;
        self.slot.is_behind.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Closes the database and opens it again: after an error redb refuses everything else until then.
    /// What was committed is found again. Where it fails it is tried again, but not at once.
    pub fn reopen(&mut self) {
        if self.failed_at.is_some_and(|failed_at| failed_at.elapsed() < RETRY) {
            return;
        }
        self.unshown = None;
        self.slot.close();
        match self.open_again() {
            Ok(database) => {
                self.slot.open(database);
                self.failed_at = None;
            }
            Err(error) => {
                tracing::warn!(%error, "the store cannot be opened again yet");
                self.failed_at = Some(Instant::now());
            }
        }
    }

    fn open_again(&mut self) -> Result<Database, StartError> {
        let opened = Builder::new().set_cache_size(CACHE_BYTES).open(&self.path);
        let database = opened.map_err(|error| start_error(&self.path, error))?;
        self.journal = replay(&self.path.with_file_name(JOURNAL), &database)?;
        Ok(database)
    }

    /// Closes the database, with everything in it.
    pub fn close(&mut self) {
        if self.slot.is_open()
            && let Err(failure) = guarded(|| self.sync())
        {
            tracing::warn!(%failure, "the store's database cannot be synced; the next start takes the rest from the journal");
        }
        self.unshown = None;
        self.slot.close();
    }
}

/// Does what may panic inside redb: that is to cost a transaction and no more.
///
/// # Errors
/// That of the work, or [`Failure::Panic`].
pub fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Failure::Panic))
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
    create_journal(&dir.join(JOURNAL))?;
    match std::fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
        _ => {}
    }
    let fill = || -> Result<(), Failure> {
        let database = Builder::new().create(&half)?;
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert(FORMAT_ROW, FORMAT)?;
        drop(Tables::open(&transaction, &Changes::default())?);
        transaction.commit()?;
        Ok(database.close()?)
    };
    fill().map_err(|failure| StartError::Unusable { path: half.clone(), cause: failure.to_string() })?;
    std::fs::rename(&half, path).and_then(|()| File::open(dir)?.sync_all()).map_err(unusable)
}

/// Makes the journal of a database that has none yet. One that is there is none of it, unless it is empty.
fn create_journal(path: &Path) -> Result<(), StartError> {
    let broken = |error: JournalError| journal_error(path, error);
    if path.try_exists().map_err(JournalError::from).map_err(broken)? {
        let (_, bytes) = Journal::open(path).map_err(JournalError::from).map_err(broken)?;
        if !journal::read(&bytes, 0).map_err(broken)?.records.is_empty() {
            let cause = "it holds what was accepted, and its database is missing".to_owned();
            return Err(StartError::Journal { path: path.to_owned(), cause });
        }
    }
    journal::create(path).map_err(JournalError::from).map_err(broken)
}

/// Does again what is in the journal and was not synced in the database.
fn replay(path: &Path, database: &Database) -> Result<Journal, StartError> {
    let broken = |error: JournalError| journal_error(path, error);
    let failed = |failure: Failure| StartError::Unusable { path: path.to_owned(), cause: failure.to_string() };
    let applied = applied(database).map_err(failed)?;
    let (mut journal, bytes) = Journal::open(path).map_err(JournalError::from).map_err(broken)?;
    let found = journal::read(&bytes, applied).map_err(broken)?;
    journal.go_on(&found);
    if found.records.is_empty() {
        return Ok(journal);
    }
    let redo = || -> Result<(), Failure> {
        let mut transaction = database.begin_write()?;
        // It is in the journal, and there may be no room for more.
        transaction.set_durability(Durability::None)?;
        let ignored = Changes::default();
        let mut tables = Tables::open(&transaction, &ignored)?;
        for changes in &found.records {
            tables.redo(changes)?;
        }
        drop(tables);
        transaction.open_table(META)?.insert(JOURNAL_ROW, journal.last())?;
        Ok(transaction.commit()?)
    };
    redo().map_err(failed)?;
    tracing::info!(transactions = found.records.len(), "what the database had not synced was taken from the journal");
    Ok(journal)
}

/// The number of the record whose changes came last into the database.
fn applied(database: &Database) -> Result<u64, Failure> {
    let meta = database.begin_read()?.open_table(META)?;
    Ok(redb::ReadableTable::get(&meta, JOURNAL_ROW)?.map_or(0, |row| row.value()))
}

fn journal_error(path: &Path, error: JournalError) -> StartError {
    let path = path.to_owned();
    match error {
        JournalError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            StartError::Journal { path, cause: "it is missing".to_owned() }
        }
        JournalError::Io(error) => StartError::Unusable { path, cause: error.to_string() },
        JournalError::Damaged(cause) => StartError::Journal { path, cause },
    }
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

/// Sees that the database is of this format; makes it so where it is of an older one.
fn check_format(path: &Path, journal: &Path, database: &Database) -> Result<(), StartError> {
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
        Some(FORMAT_OLDEST..FORMAT) => {
            create_journal(journal)?;
            raise_format(database).map_err(unusable)
        }
        Some(seen) => Err(StartError::Format { path: path(), seen }),
        None => Err(StartError::Foreign { path: path() }),
    }
}

fn raise_format(database: &Database) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(FORMAT_ROW, FORMAT)?;
    Ok(transaction.commit()?)
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
