//! How the files of the engine are made, locked, checked and opened.
//!
//! Owns what is refused: a file that is damaged, foreign or of a later version is left as it is. Only where
//! there is none a new one is made, under another name until it is whole. What the journal has and the
//! database does not is done again here. Never looks into a shop's rows. Called by [`super::disk`].

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError, Durability, ReadableDatabase, StorageError, TableError};

use crate::store::embedded::journal::{self, Journal, JournalError};
use crate::store::embedded::reserve::Reserve;
use crate::store::embedded::tables::{
    Changes, FORMAT, FORMAT_OLDEST, FORMAT_ROW, Failure, JOURNAL_ROW, META, Tables, is_no_room,
};

/// Pages of the file that are kept in memory; redb would take a gigabyte.
const CACHE_BYTES: usize = 64 << 20;

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

/// What was opened.
pub struct Opened {
    pub database: Database,
    pub journal: Journal,
    pub reserve: Reserve,
}

/// Opens what is in the directory, or begins a new store. Reads the whole database once, to see that it is sound.
///
/// # Errors
/// [`StartError`]
pub fn open(dir: &Path) -> Result<Opened, StartError> {
    let (path, journal) = (dir.join(FILE), dir.join(JOURNAL));
    let is_there = path.try_exists().map_err(|cause| StartError::Directory { dir: dir.to_owned(), cause })?;
    if !is_there {
        create_journal(&journal)?;
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
    check_format(&path, &journal, &database)?;
    let journal = replay(&journal, &database)?;
    Ok(Opened { database, journal, reserve })
}

/// Opens what this process had open before, and found sound.
///
/// # Errors
/// [`StartError`]
pub fn open_again(dir: &Path) -> Result<(Database, Journal), StartError> {
    let path = dir.join(FILE);
    let opened = Builder::new().set_cache_size(CACHE_BYTES).open(&path);
    let database = opened.map_err(|error| start_error(&path, error))?;
    let journal = replay(&dir.join(JOURNAL), &database)?;
    Ok((database, journal))
}

/// Takes the directory, which is made where it is missing.
///
/// # Errors
/// [`StartError`]
pub fn lock(dir: &Path) -> Result<File, StartError> {
    let unusable = |cause| StartError::Directory { dir: dir.to_owned(), cause };
    std::fs::create_dir_all(dir).map_err(unusable)?;
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

/// Makes a new database. It gets its name when it is whole, so that one that is not can only be damage.
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
        drop(Tables::open(&transaction, &Changes::default())?);
        transaction.commit()?;
        Ok(database.close()?)
    };
    fill().map_err(|failure| StartError::Unusable { path: half.clone(), cause: failure.to_string() })?;
    std::fs::rename(&half, path).and_then(|()| File::open(dir)?.sync_all()).map_err(unusable)
}

/// Makes the journal of a database that has none yet.
fn create_journal(path: &Path) -> Result<(), StartError> {
    let make = || match Journal::open(path) {
        Err(JournalError::Io(error)) if error.kind() == io::ErrorKind::NotFound => journal::create(path),
        Err(error) => Err(error),
        Ok((_, bytes)) if journal::read(&bytes, 0)?.records.is_empty() => journal::create(path),
        Ok(_) => {
            Err(JournalError::Damaged("it holds what was accepted for another database, which is not here".to_owned()))
        }
    };
    make().map_err(|error| journal_error(path, error))
}

/// Does again what is in the journal and was not synced in the database.
fn replay(path: &Path, database: &Database) -> Result<Journal, StartError> {
    let broken = |error: JournalError| journal_error(path, error);
    let failed = |failure: Failure| StartError::Unusable { path: path.to_owned(), cause: failure.to_string() };
    let applied = applied(database).map_err(failed)?;
    let (mut journal, bytes) = Journal::open(path).map_err(broken)?;
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
    Ok(meta.get(JOURNAL_ROW)?.map_or(0, |row| row.value()))
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
    matches!(error, DatabaseError::Storage(StorageError::Io(cause)) if is_no_room(cause))
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
    let row = meta.get(FORMAT_ROW).map_err(Failure::from).map_err(unusable)?;
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
