//! The directory of the engine, for as long as this process works in it.
//!
//! Owns what happens to changes when: they are synced in the journal before anybody is told of them, shown in
//! the database once somebody reads, and synced there from time to time. What was not when the process
//! died, or when a file failed, is done again from the journal. Never looks into a shop's rows. Called by
//! [`super`] and [`super::writer`]; how the files are made and opened is in [`super::opening`].

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::store::embedded::journal::Journal;
use crate::store::embedded::opening::{self, Opened, StartError};
use crate::store::embedded::reserve::Reserve;
use crate::store::embedded::tables::{Failure, JOURNAL_ROW, META};

/// Between two attempts to open a file that failed, or to sync one.
const RETRY: Duration = Duration::from_secs(1);

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
    dir: PathBuf,
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
        let lock = opening::lock(dir)?;
        let Opened { database, journal, reserve } = opening::open(dir)?;
        let (dir, slot) = (dir.to_owned(), Arc::new(Slot::new(database)));
        Ok(Disk { dir, slot, journal, unshown: None, reserve, failed_at: None, unsynced_at: None, _lock: lock })
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

    /// Syncs the database where the journal has grown large.
    pub fn sync_when_due(&mut self) {
        let has_failed = self.unsynced_at.is_some_and(|failed_at| failed_at.elapsed() < RETRY);
        if self.journal.is_due() && !has_failed && self.slot.is_open() {
            self.sync_or_reopen();
        }
    }

    /// Syncs the database. Where there is no room for that, there is with what was kept back; and whatever
    /// happens, the journal has everything.
    pub fn sync_or_reopen(&mut self) {
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
        let began = Instant::now();
        self.commit(Durability::Immediate)?;
        self.journal.restart(began.elapsed());
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
        match opening::open_again(&self.dir) {
            Ok((database, journal)) => {
                self.slot.open(database);
                self.journal = journal;
                self.failed_at = None;
            }
            Err(error) => {
                tracing::warn!(%error, "the store cannot be opened again yet");
                self.failed_at = Some(Instant::now());
            }
        }
    }

    /// Closes the database, with everything in it.
    pub fn close(&mut self) {
        if self.slot.is_open()
            && let Err(failure) = guarded(|| self.commit(Durability::Immediate))
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
