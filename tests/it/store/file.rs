//! What only an engine on a file goes through: restarts, a directory that is taken, damage, a full
//! disk, and the sharing of syncs.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redb::{Database, ReadableTable as _, TableDefinition};
use shoprelay::attrs::{Attrs, AttrsChange};
use shoprelay::ids::{MessageId, NodeId};
use shoprelay::message::{Audience, MembershipChange, MembershipStep, Role};
use shoprelay::store::embedded::{EmbeddedStore, StartError};
use shoprelay::store::{
    AttrsChanged, Event, EventKind, Evicted, FeedEvent, Forget, Marked, MembershipChanged, PageLimit, Publish,
    Published, Store, StoreError, StoreSettings,
};
use tokio::sync::mpsc;

use super::suite::{connect, device, mark, message, settings, shop, stored, with_key};
use crate::redis_server::eventually;

const SOON: Duration = Duration::from_secs(10);
pub const FILE: &str = "shoprelay.redb";
const JOURNAL: &str = "journal";
const EVERYTHING: PageLimit = PageLimit { entries: 1000, bytes: 1 << 30 };

type Started = Result<(EmbeddedStore, mpsc::Receiver<FeedEvent>), StartError>;

/// Opens a directory that this test has closed. A process that another test is just starting holds
/// for a moment what this one had open, the directory's lock among it.
async fn reopen(dir: &Path, settings: StoreSettings) -> Started {
    let deadline = Instant::now() + SOON;
    loop {
        match EmbeddedStore::start(dir.to_owned(), NodeId::fresh(), settings.clone()).await {
            Err(StartError::InUse { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            started => return started,
        }
    }
}

/// Opens a directory that nobody else has open.
pub async fn open(dir: &Path) -> (EmbeddedStore, mpsc::Receiver<FeedEvent>) {
    reopen(dir, settings()).await.unwrap()
}

/// Why a directory that nobody has open is refused.
async fn refusal(dir: &Path) -> StartError {
    reopen(dir, settings()).await.map(|_| ()).unwrap_err()
}

#[tokio::test]
async fn a_lone_message_is_synced_at_once_and_many_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _feed) = open(dir.path()).await;
    for alone in 1..=20 {
        stored(&store).await;
        assert_eq!(store.commits(), alone);
    }
    let (shop, message) = (shop(), message(Audience::All));
    let outcomes = join_all((0..500).map(|_| store.publish(&shop, &message))).await;
    assert!(outcomes.into_iter().all(|outcome| matches!(outcome, Ok(Published::Stored(_)))));
    let commits = store.commits() - 20;
    assert!(commits <= 100, "500 at once took {commits} syncs");
}

#[tokio::test]
async fn a_restart_keeps_everything_but_who_was_online_and_never_reuses_an_id() {
    let dir = tempfile::tempdir().unwrap();
    let (store, feed) = open(dir.path()).await;
    connect(&store, "till", Role::Main, "c1").await;
    let first = store.publish(&shop(), &with_key(message(Audience::Mains), "k")).await.unwrap();
    let Published::Stored(first) = first else { panic!("{first:?}") };
    store.mark_delivered(&shop(), &[mark("till", first)]).await.unwrap();
    let last = stored(&store).await;
    assert_eq!(store.trim(&shop(), last, 10).await.unwrap(), 2);
    store.close().await;
    assert!(matches!(store.log_len(&shop()).await, Err(StoreError::Unavailable(_))), "it is closed");
    drop((store, feed));

    let (store, _feed) = open(dir.path()).await;
    assert_eq!(store.online(&shop()).await.unwrap(), []);
    assert_eq!(store.head(&shop()).await.unwrap(), last);
    let again = store.publish(&shop(), &with_key(message(Audience::Mains), "k")).await.unwrap();
    assert_eq!(again, Published::Duplicate(first));
    let back = connect(&store, "till", Role::Main, "c2").await;
    assert_eq!((back.cursor, back.head, back.replaced), (first, last, None));
    assert!(stored(&store).await > last);
    assert_eq!(store.log_len(&shop()).await.unwrap(), 1);
    assert_eq!(store.shops().await.unwrap(), [shop()]);
    store.close().await;
}

#[tokio::test]
async fn a_restart_keeps_what_devices_are_members_of_and_their_attributes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, feed) = open(dir.path()).await;
    connect(&store, "till", Role::Main, "c1").await;
    let change = MembershipChange { device: None, step: MembershipStep::Join("g".parse().unwrap()) };
    let MembershipChanged::Changed(id) = store.change_membership(&shop(), &change).await.unwrap() else { panic!() };
    let attrs = Attrs::parse(r#"{"a":1}"#).unwrap();
    store.change_attrs(&shop(), &device("till"), &AttrsChange::Set(attrs.clone())).await.unwrap();
    store.close().await;
    drop((store, feed));

    let (store, _feed) = open(dir.path()).await;
    assert_eq!(all(&store).await, [id]);
    let evicted = store.evict(&shop(), &device("till"), None, None).await.unwrap();
    assert_eq!(evicted, Evicted::Away, "its connection went with the process");
    assert_eq!(store.attrs(&shop(), &device("till")).await.unwrap(), Some(attrs));
    let back = connect(&store, "till", Role::Main, "c2").await;
    assert_eq!((back.head, back.membership.groups), (id, vec!["g".parse().unwrap()]));
    store.close().await;
}

/// Reading attributes failed on such a file until the first change, for there was no table.
#[tokio::test]
async fn a_file_of_a_version_without_attributes_has_none_and_takes_them() {
    let attrs_table: TableDefinition<'_, (&str, &str), &str> = TableDefinition::new("attrs");
    let dir = tempfile::tempdir().unwrap();
    let (store, feed) = open(dir.path()).await;
    connect(&store, "till", Role::Main, "c1").await;
    store.close().await;
    drop((store, feed));
    let database = Database::open(dir.path().join(FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    assert!(transaction.delete_table(attrs_table).unwrap(), "it was there");
    transaction.commit().unwrap();
    drop(database);

    let (store, _feed) = open(dir.path()).await;
    let till = device("till");
    assert_eq!(store.attrs(&shop(), &till).await.unwrap(), Some(Attrs::none()));
    let attrs = Attrs::parse(r#"{"a":1}"#).unwrap();
    let change = AttrsChange::Patch(attrs.clone());
    assert_eq!(store.change_attrs(&shop(), &till, &change).await.unwrap(), AttrsChanged::Now(attrs));
    store.close().await;
}

/// What is on the disk if the process dies now: everything up to the last sync of each file.
fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in [JOURNAL, FILE] {
        std::fs::copy(dir.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

#[tokio::test]
async fn what_only_the_journal_has_is_there_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _feed) = open(dir.path()).await;
    connect(&store, "till", Role::Main, "c1").await;
    connect(&store, "gone", Role::Main, "c2").await;
    assert!(store.forget(&shop(), &device("gone"), Forget::ByOperator).await.unwrap());
    let first = store.publish(&shop(), &with_key(message(Audience::Mains), "k")).await.unwrap();
    let Published::Stored(first) = first else { panic!("{first:?}") };
    let second = stored(&store).await;
    store.mark_delivered(&shop(), &[mark("till", first)]).await.unwrap();
    assert_eq!(store.trim(&shop(), first, 10).await.unwrap(), 1);
    let attrs = Attrs::parse(r#"{"a":1}"#).unwrap();
    store.change_attrs(&shop(), &device("till"), &AttrsChange::Set(attrs.clone())).await.unwrap();
    let numbers = store.numbers(&shop(), &[second]).await.unwrap();
    store.bar(&shop(), &device("thief"), &"pos".parse().unwrap(), None).await.unwrap();
    let copy = copy_of(dir.path());
    store.close().await;

    // Twice: the first of them dies as well.
    let (store, _feed) = open(copy.path()).await;
    let third = stored(&store).await;
    let copy = copy_of(copy.path());
    store.close().await;
    let (store, _feed) = open(copy.path()).await;
    assert_eq!(all(&store).await, [second, third]);
    assert_eq!(store.log_len(&shop()).await.unwrap(), 2);
    let again = store.publish(&shop(), &with_key(message(Audience::Mains), "k")).await.unwrap();
    assert_eq!(again, Published::Duplicate(first));
    let known = store.devices(&shop()).await.unwrap();
    assert_eq!(known.iter().map(|known| (known.device.as_str(), known.cursor)).collect::<Vec<_>>(), [("till", first)]);
    assert_eq!(store.attrs(&shop(), &device("till")).await.unwrap(), Some(attrs));
    assert_eq!(store.numbers(&shop(), &[second]).await.unwrap(), numbers);
    assert_eq!(store.barred(&shop()).await.unwrap().len(), 1);
    store.close().await;
}

/// More than a journal takes before the database is synced, by those who must not see what is not synced.
#[tokio::test]
async fn a_copy_made_at_any_moment_has_all_that_was_answered_before_and_a_journal_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _feed) = EmbeddedStore::start(dir.path().to_owned(), NodeId::fresh(), roomy()).await.unwrap();
    let mut large = message(Audience::All);
    large.message.content.data = Some(shoprelay::message::Value::MsgPack(vec![0xc0; 20_000].into()));
    let (shop, mut answered) = (shop(), Vec::new());
    for turn in 0..60 {
        for outcome in join_all((0..20).map(|_| store.publish(&shop, &large))).await {
            let Ok(Published::Stored(id)) = outcome else { panic!("{outcome:?}") };
            answered.push(id);
        }
        if turn % 15 == 14 {
            answered.sort();
            // The journal first: the database may have more by then, and has its number with it.
            let copy = copy_of(dir.path());
            let (copied, _feed) = open(copy.path()).await;
            assert_eq!(all(&copied).await, answered);
            copied.close().await;
        }
    }
    let journal = std::fs::metadata(dir.path().join(JOURNAL)).unwrap().len();
    assert!(journal < 12 << 20, "24 MB went through it, and it has {journal} bytes");
    store.close().await;
}

/// While there is always more to do, what was answered is in the journal and not in the tables, until somebody reads.
#[tokio::test]
async fn who_reads_sees_what_was_answered_however_busy_the_store_is() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _feed) = EmbeddedStore::start(dir.path().to_owned(), NodeId::fresh(), roomy()).await.unwrap();
    let (other, message) = ("other".parse().unwrap(), message(Audience::All));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let busy = join_all((0..64).map(async |_| {
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            assert!(matches!(store.publish(&other, &message).await, Ok(Published::Stored(_))));
        }
    }));
    let reader = async {
        for count in 1..=200 {
            let id = stored(&store).await;
            assert_eq!((store.head(&shop()).await.unwrap(), store.log_len(&shop()).await.unwrap()), (id, count));
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(busy, reader);
    store.close().await;
}

#[tokio::test]
async fn a_journal_that_is_damaged_missing_or_of_another_store_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _feed) = open(dir.path()).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(stored(&store).await);
    }
    let copy = copy_of(dir.path());
    store.close().await;
    let path = copy.path().join(JOURNAL);
    let sound = std::fs::read(&path).unwrap();
    let at = sound.windows(4).position(|bytes| bytes == b"hand").unwrap();
    let mut flipped = sound.clone();
    flipped[at] ^= 0xff;
    for (bytes, why) in
        [(flipped, "cannot be read, and record"), (b"no journal".to_vec(), "does not begin as a journal")]
    {
        std::fs::write(&path, &bytes).unwrap();
        let error = refusal(copy.path()).await;
        assert!(matches!(&error, StartError::Journal { cause, .. } if cause.contains(why)), "{error}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{why}: it was changed");
    }
    std::fs::remove_file(&path).unwrap();
    let error = refusal(copy.path()).await;
    assert!(matches!(&error, StartError::Journal { cause, .. } if cause == "it is missing"), "{error}");
    // A journal without its database is not written over either.
    std::fs::write(&path, &sound).unwrap();
    let database = std::fs::read(copy.path().join(FILE)).unwrap();
    std::fs::remove_file(copy.path().join(FILE)).unwrap();
    let error = refusal(copy.path()).await;
    assert!(matches!(&error, StartError::Journal { cause, .. } if cause.contains("for another database")), "{error}");
    assert!(!copy.path().join(FILE).exists() && std::fs::read(&path).unwrap() == sound);

    std::fs::write(copy.path().join(FILE), database).unwrap();
    let (store, _feed) = open(copy.path()).await;
    assert_eq!(all(&store).await, ids, "together they are as they were");
    store.close().await;
}

#[tokio::test]
async fn an_empty_file_in_place_of_the_journal_gives_up_what_only_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let (store, feed) = open(dir.path()).await;
    let first = stored(&store).await;
    store.close().await;
    drop((store, feed));
    let (store, _feed) = open(dir.path()).await;
    stored(&store).await;
    let copy = copy_of(dir.path());
    store.close().await;
    std::fs::write(copy.path().join(JOURNAL), b"").unwrap();
    let (store, feed) = open(copy.path()).await;
    assert_eq!(all(&store).await, [first]);
    let third = stored(&store).await;
    let second_copy = copy_of(copy.path());
    store.close().await;
    drop((store, feed));
    let (store, _feed) = open(second_copy.path()).await;
    assert_eq!(all(&store).await, [first, third]);
    store.close().await;
}

#[tokio::test]
async fn a_store_of_the_version_before_the_journal_is_taken_over() {
    let meta: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    let dir = tempfile::tempdir().unwrap();
    let (store, feed) = open(dir.path()).await;
    let first = stored(&store).await;
    store.close().await;
    drop((store, feed));
    std::fs::remove_file(dir.path().join(JOURNAL)).unwrap();
    let format = |to: Option<u64>| {
        let database = Database::open(dir.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        let seen = {
            let mut table = transaction.open_table(meta).unwrap();
            if let Some(to) = to {
                table.insert("format", to).unwrap();
                table.remove("journal").unwrap();
            }
            table.get("format").unwrap().unwrap().value()
        };
        transaction.commit().unwrap();
        seen
    };
    format(Some(1));
    let (store, feed) = open(dir.path()).await;
    let second = stored(&store).await;
    let copy = copy_of(dir.path());
    store.close().await;
    drop((store, feed));
    assert_eq!(format(None), 2, "an older version would not look into the journal");
    let (store, _feed) = open(copy.path()).await;
    assert_eq!(all(&store).await, [first, second]);
    store.close().await;
}

#[tokio::test]
async fn there_is_no_stream_for_events() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _feed) = open(dir.path()).await;
    let (kind, node) = (EventKind::Connect, "n".parse().unwrap());
    let event = Event { kind, at_ms: 1, node, conn: None, shop: None, device: None, role: None, user: None };
    let refused = store.add_events(&[event]).await;
    assert!(matches!(refused, Err(StoreError::Nonsense { .. })), "{refused:?}");
    store.close().await;
}

#[tokio::test]
async fn a_key_is_forgotten_after_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let brief = StoreSettings { key_retention: Duration::from_millis(50), ..settings() };
    let (store, _feed) = EmbeddedStore::start(dir.path().to_owned(), NodeId::fresh(), brief).await.unwrap();
    let keyed = with_key(message(Audience::All), "k");
    let first = store.publish(&shop(), &keyed).await.unwrap();
    eventually(SOON, "the key ends", async || {
        let again = store.publish(&shop(), &keyed).await.unwrap();
        again != first && matches!(again, Published::Stored(_))
    })
    .await;
    store.close().await;
}

#[tokio::test]
async fn a_second_store_on_a_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _feed) = open(dir.path()).await;
    let taken = EmbeddedStore::start(dir.path().to_owned(), NodeId::fresh(), settings()).await;
    let error = taken.map(|_| ()).unwrap_err();
    assert!(matches!(error, StartError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
    stored(&store).await;
    store.close().await;
    let (store, _feed) = open(dir.path()).await;
    assert_eq!(store.log_len(&shop()).await.unwrap(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _feed) = open(dir.path()).await;
    let shop = shop();
    let message = message(Audience::All);
    join_all((0..1000).map(|_| store.publish(&shop, &message))).await;
    store.close().await;
    let path = dir.path().join(FILE);
    let sound = std::fs::read(&path).unwrap();
    let refused = async |bytes: &[u8], how: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = refusal(dir.path()).await;
        assert!(matches!(error, StartError::Damaged { .. }), "{how}: {error:?}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{how}: it was changed");
    };
    refused(b"", "emptied").await;
    refused(b"no database", "something else").await;
    refused(&sound[..sound.len() / 2], "cut off").await;
    // What is within a record, whichever page it lies on, is under a checksum.
    let flipped = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 0xff;
        bytes
    };
    let records: Vec<usize> = (0..sound.len() - 4).filter(|&at| sound[at..].starts_with(b"hand")).collect();
    assert!(records.len() >= 1000);
    let last = *records.last().unwrap();
    refused(&flipped(last), "a record changed").await;
    // Wherever else: it is noticed, or it is where nothing was.
    let mut noticed = 0;
    for at in (0..sound.len()).step_by(sound.len() / 60) {
        std::fs::write(&path, flipped(at)).unwrap();
        match reopen(dir.path(), settings()).await {
            Ok((store, _feed)) => {
                assert_eq!(all(&store).await.len(), 1000, "byte {at}");
                store.close().await;
            }
            Err(StartError::Damaged { .. }) => noticed += 1,
            Err(other) => panic!("byte {at}: {other:?}"),
        }
    }
    assert!(noticed > 5, "{noticed} of 60");
    std::fs::write(&path, &sound).unwrap();
    let (store, _feed) = open(dir.path()).await;
    assert_eq!(all(&store).await.len(), 1000, "the copy is good again");
    store.close().await;
}

#[tokio::test]
async fn a_file_of_a_later_format_or_of_another_program_is_refused() {
    let meta: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).await.0.close().await;
    let write = |row: &str| {
        let database = Database::open(dir.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(meta).unwrap().insert(row, 99).unwrap();
        transaction.commit().unwrap();
    };
    write("format");
    let error = refusal(dir.path()).await;
    assert!(matches!(error, StartError::Format { seen: 99, .. }), "{error:?}");

    let other = tempfile::tempdir().unwrap();
    drop(Database::create(other.path().join(FILE)).unwrap());
    let error = refusal(other.path()).await;
    assert!(matches!(error, StartError::Foreign { .. }), "{error:?}");
}

#[tokio::test]
async fn a_broken_row_fails_its_own_change_and_no_other() {
    let devices: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("devices");
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).await.0.close().await;
    let database = Database::open(dir.path().join(FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(devices).unwrap().insert((shop().as_str(), "broken"), &b"\xc1"[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let (store, _feed) = open(dir.path()).await;
    let (shop, message, broken) = (shop(), message(Audience::All), device("broken"));
    let publishes = join_all((0..50).map(|_| store.publish(&shop, &message)));
    let conn = "c".parse().unwrap();
    let (publishes, failed) = tokio::join!(publishes, store.disconnect(&shop, &broken, &conn, None));
    assert!(matches!(failed, Err(StoreError::Nonsense { .. })), "{failed:?}");
    assert!(publishes.into_iter().all(|outcome| matches!(outcome, Ok(Published::Stored(_)))));
    store.close().await;
}

/// Where the disk is full the second time this test binary runs; see below.
const FULL_DIR: &str = "SHOPRELAY_TEST_FULL_DIR";

/// Runs the test of this name once more, as a process that sees a small disk at `dir`.
fn run_again_on_a_small_disk(name: &str, dir: &Path) -> std::process::Output {
    let mount = format!("mount -t tmpfs -o size=64m none '{}' && exec \"$0\" \"$@\"", dir.display());
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &mount]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", name]).env(FULL_DIR, dir);
    command.output().expect("the test needs unshare: apt-get install util-linux")
}

/// Where this process sees a small disk; where it does not, the test of this name has been run so.
fn small_disk(name: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os(FULL_DIR) {
        return Some(dir.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let output = run_again_on_a_small_disk(&format!("store::file::{name}"), dir.path());
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && printed.contains("1 passed"), "on a small disk: {printed}");
    None
}

#[tokio::test]
async fn a_full_disk_refuses_messages_takes_what_empties_it_and_loses_nothing() {
    let name = "a_full_disk_refuses_messages_takes_what_empties_it_and_loses_nothing";
    if let Some(dir) = small_disk(name) {
        on_a_full_disk(&dir).await;
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_synced_for_want_of_room_takes_what_was_kept_back() {
    let name = "a_database_that_cannot_be_synced_for_want_of_room_takes_what_was_kept_back";
    if let Some(dir) = small_disk(name) {
        on_a_disk_without_room_for_the_database(&dir).await;
    }
}

async fn on_a_disk_without_room_for_the_database(dir: &Path) {
    let data = dir.join("data");
    let (store, _feed) = reopen(&data, roomy()).await.unwrap();
    let (shop, large) = (shop(), large());
    let mut accepted = Vec::new();
    // One round of a mebibyte through the journal, and three quarters of the next, which is of one or of two.
    let journal = data.join(JOURNAL);
    while std::fs::metadata(&journal).unwrap().len() <= (1 << 20) + 512 {
        accepted.push(published(&store, &large).await.unwrap());
    }
    for _ in 0..150 {
        accepted.push(published(&store, &large).await.unwrap());
    }
    let mut ballast = std::fs::File::create(dir.join("ballast")).unwrap();
    while ballast.write_all(&[1; 4096]).is_ok() {}
    let reserve = data.join("reserve");
    for _ in 0..100 {
        if !reserve.exists() {
            break;
        }
        accepted.extend(published(&store, &large).await);
    }
    assert!(!reserve.exists(), "the database was not synced, or had room");
    assert_eq!(all(&store).await, accepted);
    assert!(matches!(store.publish(&shop, &large).await, Err(StoreError::Full)));
    assert_eq!(store.trim(&shop, accepted[9], 10).await.unwrap(), 10);
    let copy = copy_of(&data);
    store.close().await;
    let (store, _feed) = reopen(copy.path(), roomy()).await.unwrap();
    assert_eq!(all(&store).await, accepted[10..]);
    store.close().await;
}

/// Publishes it where there is room.
async fn published(store: &EmbeddedStore, message: &Publish) -> Option<MessageId> {
    match store.publish(&shop(), message).await {
        Ok(Published::Stored(id)) => Some(id),
        Err(StoreError::Full) => None,
        other => panic!("{other:?}"),
    }
}

/// A message of ten kilobytes.
fn large() -> Publish {
    let mut large = message(Audience::All);
    large.message.content.data = Some(shoprelay::message::Value::MsgPack(vec![0xc0; 10_000].into()));
    large
}

async fn on_a_full_disk(dir: &Path) {
    let data = dir.join("data");
    let (store, _feed) = reopen(&data, roomy()).await.unwrap();
    connect(&store, "till", Role::Main, "c1").await;
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1; 20 << 20]).unwrap();
    let mut accepted = fill(&store).await;
    let journal = std::fs::metadata(data.join(JOURNAL)).unwrap().len();
    assert!(journal < 12 << 20, "it took the room that the database could not: {journal} bytes");
    // A smaller one may still find room; whatever is said of it holds.
    for _ in 0..4 {
        match store.publish(&shop(), &message(Audience::All)).await {
            Ok(Published::Stored(id)) => accepted.push(id),
            refused => assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // What is there is read, and what empties the disk is taken.
    assert_eq!(all(&store).await, accepted);
    let back = connect(&store, "till", Role::Main, "c2").await;
    assert_eq!((back.cursor, back.head), (MessageId::ZERO, accepted[accepted.len() - 1]));
    let marks = store.mark_delivered(&shop(), &[mark("till", accepted[9])]).await.unwrap();
    assert_eq!(marks, [Marked::Advanced { from: MessageId::ZERO }]);
    assert_eq!(store.trim(&shop(), accepted[9], 10).await.unwrap(), 10);
    accepted.drain(..10);
    store.close().await;
    drop(store);

    let (store, _feed) = reopen(&data, roomy()).await.unwrap();
    assert_eq!(all(&store).await, accepted, "it starts on a full disk too");
    std::fs::remove_file(ballast).unwrap();
    let message = message(Audience::All);
    let is_taken = async || !matches!(store.publish(&shop(), &message).await, Err(StoreError::Full));
    eventually(SOON, "messages are taken again", is_taken).await;
    let last = stored(&store).await;
    let now = all(&store).await;
    assert_eq!((&now[..accepted.len()], now.len(), now[now.len() - 1]), (&accepted[..], accepted.len() + 2, last));
    store.close().await;
}

fn roomy() -> StoreSettings {
    StoreSettings { log_entries_max: 1_000_000, ..settings() }
}

/// Publishes until nothing more is taken.
async fn fill(store: &EmbeddedStore) -> Vec<MessageId> {
    let (mut accepted, large) = (Vec::new(), large());
    while let Some(id) = published(store, &large).await {
        accepted.push(id);
        assert!(accepted.len() < 100_000, "the disk is never full");
    }
    accepted
}

async fn all(store: &EmbeddedStore) -> Vec<MessageId> {
    let mut ids = Vec::new();
    let mut after = MessageId::ZERO;
    loop {
        let page = store.read(&shop(), after, EVERYTHING).await.unwrap();
        ids.extend(page.entries.iter().map(|entry| entry.id));
        after = page.last;
        if page.is_end {
            return ids;
        }
    }
}
