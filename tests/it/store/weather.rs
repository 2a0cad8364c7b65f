//! What only an engine on a server goes through: a full, hung, dead or restarted Redis, lost replies,
//! cut and deaf connections.

use std::path::Path;
use std::time::{Duration, Instant};

use shoprelay::ids::{MessageId, NodeId, ShopId};
use shoprelay::message::{Audience, Role};
use shoprelay::store::redis::{AddressError, RedisStore, StartError};
use shoprelay::store::{FeedEvent, Forget, GapCause, Marked, NodeReport, Published, Store, StoreError};

use super::suite::{Bench, connect, device, login, mark, message, settings, shop, stored, with_key};
use crate::redis_server::{Proxy, RedisServer, eventually};

const SOON: Duration = Duration::from_secs(10);
/// The deadline of the engine, and what a busy machine adds.
const DEADLINE: Duration = Duration::from_secs(3);

async fn next_gap(bench: &mut Bench) -> GapCause {
    match bench.next().await {
        FeedEvent::Gap(cause) => cause,
        other => panic!("{other:?}"),
    }
}

async fn assert_heard(bench: &mut Bench) {
    let id = stored(&*bench.store).await;
    let FeedEvent::Entry { stored, .. } = bench.next().await else { panic!() };
    assert_eq!(stored.id, id);
}

#[tokio::test]
async fn a_full_redis_refuses_publishes_and_takes_everything_that_empties_it() {
    let redis = RedisServer::start().await;
    let bench = Bench::on_redis(&redis.url()).await;
    let store = &*bench.store;
    connect(store, "till", Role::Main, "c1").await;
    let (first, last) = (stored(store).await, stored(store).await);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = store.publish(&shop(), &with_key(message(Audience::All), "k")).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    store.subscribe(&shop()).await.unwrap();
    assert_eq!(connect(store, "till", Role::Main, "c2").await.head, last);
    let marks = store.mark_delivered(&shop(), &[mark("till", last)]).await.unwrap();
    assert_eq!(marks, [Marked::Advanced { from: MessageId::ZERO }]);
    assert!(store.claim("trim", &bench.node, SOON).await.unwrap());
    assert_eq!(store.beat(&bench.node, &NodeReport::default()).await.unwrap().len(), 1);
    assert_eq!(store.trim(&shop(), first, 10).await.unwrap(), 1);
    assert!(store.disconnect(&shop(), &device("till"), &"c2".parse().unwrap(), None).await.unwrap());
    assert!(store.forget(&shop(), &device("till"), Forget::UnseenSince(u64::MAX >> 12)).await.unwrap());
    assert_eq!(store.log_len(&shop()).await.unwrap(), 1);
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let retried = store.publish(&shop(), &with_key(message(Audience::All), "k")).await.unwrap();
    assert!(matches!(retried, Published::Stored(_)), "the refusal left nothing: {retried:?}");
}

/// What many ask at once goes to Redis in few calls; each has its own outcome all the same.
#[tokio::test]
async fn calls_that_went_together_fail_apart() {
    let redis = RedisServer::start().await;
    let bench = Bench::on_redis(&redis.url()).await;
    let store = &*bench.store;
    let shops: Vec<ShopId> = (0..100).map(|number| format!("shop-{number}").parse().unwrap()).collect();
    stored(store).await;
    let log = redis.cli(&["KEYS", "*:log"]);
    redis.cli(&["SET", &log.replace(&format!("{{{}}}", shop()), "{shop-7}"), "no stream"]);
    let publishes = shops.iter().map(async |shop| store.publish(shop, &message(Audience::All)).await);
    let outcomes = futures_util::future::join_all(publishes).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(Published::Stored(_)) => assert_ne!(number, 7),
            Err(StoreError::Nonsense { seen, .. }) => assert!(number == 7 && seen.contains("WRONGTYPE"), "{seen}"),
            other => panic!("shop-{number}: {other:?}"),
        }
    }
    for (number, shop) in shops.iter().enumerate().filter(|(number, _)| *number != 7) {
        assert_eq!(store.log_len(shop).await.unwrap(), 1, "shop-{number}");
    }
    let stats = redis.cli(&["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()).unwrap();
    assert!(calls.parse::<u32>().unwrap() <= 20, "100 publishes took {calls} calls");
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_made_known_again() {
    let redis = RedisServer::start().await;
    let bench = Bench::on_redis(&redis.url()).await;
    stored(&*bench.store).await;
    redis.cli(&["SCRIPT", "FLUSH"]);
    stored(&*bench.store).await;
    assert_eq!(bench.store.log_len(&shop()).await.unwrap(), 2);
}

/// fred sends a command again whose connection broke, three times by default: a publish without a
/// key was stored twice. Fails without `max_command_attempts = 1`.
#[tokio::test]
async fn a_publish_whose_answer_was_lost_is_stored_once_and_a_retry_with_its_key_finds_it() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let bench = Bench::on_redis(&proxy.url()).await;
    let store = &*bench.store;
    stored(store).await;
    proxy.lose_answer_to("EVALSHA");
    let lost = store.publish(&shop(), &message(Audience::All)).await;
    assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
    eventually(SOON, "the connection is back", async || store.log_len(&shop()).await.is_ok()).await;
    assert_eq!(store.log_len(&shop()).await.unwrap(), 2, "stored once");

    let keyed = with_key(message(Audience::All), "k");
    proxy.lose_answer_to("EVALSHA");
    assert!(matches!(store.publish(&shop(), &keyed).await, Err(StoreError::Unavailable(_))));
    eventually(SOON, "the connection is back", async || store.log_len(&shop()).await.is_ok()).await;
    let head = store.head(&shop()).await.unwrap();
    assert_eq!(store.publish(&shop(), &keyed).await.unwrap(), Published::Duplicate(head));
    assert_eq!(store.log_len(&shop()).await.unwrap(), 3);
}

#[tokio::test]
async fn a_hung_redis_is_unavailable_within_the_deadline_and_comes_back_by_itself() {
    let redis = RedisServer::start().await;
    let mut bench = Bench::on_redis(&redis.url()).await;
    bench.store.subscribe(&shop()).await.unwrap();
    connect(&*bench.store, "till", Role::Main, "c1").await;
    redis.pause();
    let began = Instant::now();
    let store = &*bench.store;
    let shops = [shop()];
    let (marked, read, joined) =
        tokio::join!(store.mark_delivered(&shops[0], &[]), store.heads(&shops), store.subscribe(&shops[0]));
    assert!(marked.is_ok(), "nothing to ask");
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(matches!(joined, Err(StoreError::Unavailable(_))), "{joined:?}");
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    eventually(SOON, "it is known that nothing is heard", async || !store.is_hearing()).await;
    // Longer than a silent connection is kept, so that a new one is asked for while it hangs.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(7) {
        let call = Instant::now();
        let refused = store.connect(&shop(), &login("till", Role::Main, "c9")).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert!(call.elapsed() < DEADLINE, "{:?}", call.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    redis.resume();
    eventually(SOON, "the commands are back", async || store.heads(&[shop()]).await.is_ok()).await;
    eventually(SOON, "it hears again", async || store.is_hearing()).await;
    let id = loop {
        // What was asked for while it hung may still be carried out.
        if let Ok(Published::Stored(id)) = store.publish(&shop(), &message(Audience::All)).await {
            break id;
        }
    };
    loop {
        match bench.next().await {
            FeedEvent::Entry { stored, .. } if stored.id == id => break,
            FeedEvent::Gap(_) | FeedEvent::Replaced { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_dead_redis_is_unavailable_at_once_and_its_restart_on_the_same_port_is_found() {
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let mut bench = Bench::on_redis(&redis.url()).await;
    bench.store.subscribe(&shop()).await.unwrap();
    assert_heard(&mut bench).await;
    redis.kill();
    let store = &*bench.store;
    for _ in 0..20 {
        let began = Instant::now();
        let refused = store.publish(&shop(), &message(Audience::All)).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    }
    eventually(Duration::from_secs(3), "it is known that nothing is heard", async || !store.is_hearing()).await;
    redis.restart();
    eventually(SOON, "the commands are back", async || store.log_len(&shop()).await.is_ok()).await;
    assert_eq!(store.log_len(&shop()).await.unwrap(), 1, "a refused publish is not sent later");
    assert_eq!(next_gap(&mut bench).await, GapCause::Reconnected);
    assert_heard(&mut bench).await;
    eventually(SOON, "it hears again", async || bench.store.is_hearing()).await;
}

#[tokio::test]
async fn a_cut_subscription_is_made_anew_and_only_then_is_the_gap_told() {
    let redis = RedisServer::start().await;
    let mut bench = Bench::on_redis(&redis.url()).await;
    for n in 0..600 {
        bench.store.subscribe(&format!("s{n}").parse().unwrap()).await.unwrap();
    }
    bench.store.subscribe(&shop()).await.unwrap();
    for _ in 0..3 {
        redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert_eq!(next_gap(&mut bench).await, GapCause::Reconnected);
        // Whatever is stored after the gap was told is heard.
        assert_heard(&mut bench).await;
    }
    let channels = redis.cli(&["PUBSUB", "SHARDCHANNELS"]);
    assert_eq!(channels.lines().count(), 603, "the shops, the probe and what is for every shop");
    eventually(SOON, "it hears again", async || bench.store.is_hearing()).await;
}

#[tokio::test]
async fn a_subscription_that_is_up_and_silent_is_found_deaf_and_made_anew() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let mut bench = Bench::on_redis(&proxy.url()).await;
    bench.store.subscribe(&shop()).await.unwrap();
    assert_heard(&mut bench).await;
    proxy.deafen_subscribers();
    let began = Instant::now();
    stored(&*bench.store).await;
    assert_eq!(next_gap(&mut bench).await, GapCause::Deaf);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_heard(&mut bench).await;
    eventually(SOON, "it hears again", async || bench.store.is_hearing()).await;
}

#[tokio::test]
async fn a_feed_that_nobody_takes_is_no_deafness_and_what_overflows_is_told_as_a_gap() {
    let redis = RedisServer::start().await;
    let mut bench = Bench::on_redis(&redis.url()).await;
    bench.store.subscribe(&shop()).await.unwrap();
    let channel = redis.cli(&["PUBSUB", "SHARDCHANNELS", "*shop 1}"]);
    // More than the feed and fred's channel hold together.
    let script = "for i = 1, 80000 do redis.call('SPUBLISH', KEYS[1], 'Cc' .. i .. '\\nd') end";
    redis.cli(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"]);
    redis.cli(&["EVAL", script, "1", &channel]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(bench.store.is_hearing(), "it is not deaf");
    let (mut events, mut lagged) = (0, 0);
    while events == 0 || lagged == 0 {
        match bench.next().await {
            FeedEvent::Replaced { .. } => events += 1,
            FeedEvent::Gap(GapCause::Lagged) => lagged += 1,
            other => panic!("{other:?}"),
        }
    }
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(500), bench.feed.recv()).await {
        assert!(!matches!(event, FeedEvent::Gap(GapCause::Deaf | GapCause::Reconnected)));
    }
    assert_heard(&mut bench).await;
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_passed_by() {
    let redis = RedisServer::start().await;
    let bench = Bench::on_redis(&redis.url()).await;
    let first = stored(&*bench.store).await;
    let log = redis.cli(&["KEYS", "*:log"]);
    redis.cli(&["XADD", &log, "*", "e", "no record"]);
    let broken: MessageId = redis.cli(&["XADD", &log, "*", "other", "x"]).parse().unwrap();
    let limit = shoprelay::store::PageLimit { entries: 10, bytes: 1000 };
    let page = bench.store.read(&shop(), MessageId::ZERO, limit).await.unwrap();
    assert_eq!((page.entries.len(), page.entries[0].id, page.last, page.is_end), (1, first, broken, true));
}

#[tokio::test]
async fn the_first_connection_fails_clearly_and_soon() {
    let start = async |url: &str| {
        let began = Instant::now();
        let outcome = RedisStore::start(url, None, NodeId::fresh(), settings()).await;
        assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
        outcome.map(|_| ()).unwrap_err()
    };
    assert!(matches!(start("redis://127.0.0.1:1").await, StartError::Unreachable(_)));
    assert!(matches!(start("redis+unix:///no/such/socket").await, StartError::Unreachable(_)));
    assert!(matches!(start("http://127.0.0.1").await, StartError::Address(AddressError::Scheme)));
    let redis = RedisServer::start().await;
    redis.cli(&["CONFIG", "SET", "requirepass", "secret"]);
    let refused = start(&redis.url()).await;
    assert!(matches!(refused, StartError::Unreachable(_)), "{refused:?}");
    redis.pause();
    let hung = start(&redis.url()).await;
    redis.resume();
    assert!(matches!(hung, StartError::Unreachable(_) | StartError::Silent { .. }), "{hung:?}");
}

#[tokio::test]
async fn a_unix_socket_and_a_password_are_taken_from_the_address() {
    let redis = RedisServer::start().await;
    redis.cli(&["CONFIG", "SET", "requirepass", "p@w"]);
    let url = format!("redis://:p%40w@127.0.0.1:{}/3", redis.port());
    let (store, _feed) = RedisStore::start(&url, None, NodeId::fresh(), settings()).await.unwrap();
    stored(&store).await;
    assert_eq!(store.log_len(&shop()).await.unwrap(), 1);
    store.close().await;
    let open = RedisServer::start().await;
    let bench = Bench::on_redis(&open.unix_url()).await;
    stored(&*bench.store).await;
    let refused = RedisStore::start(&open.url(), Some(Path::new("/ca")), NodeId::fresh(), settings()).await;
    assert!(matches!(refused.map(|_| ()), Err(StartError::Address(AddressError::CaWithoutTls))));
}

/// A certificate authority and a certificate of it for 127.0.0.1, as files in `dir`.
fn make_certificates(dir: &Path) {
    let openssl = |args: &str| {
        let output = std::process::Command::new("openssl").args(args.split(' ')).current_dir(dir).output();
        let output = output.expect("the test needs openssl: apt-get install openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1").unwrap();
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca");
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.pem -days 2 -subj /CN=other");
    openssl("req -newkey rsa:2048 -nodes -keyout redis.key -out redis.csr -subj /CN=redis");
    openssl("x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out redis.pem -days 2 -extfile san");
}

#[tokio::test]
async fn tls_is_spoken_with_whom_the_given_authority_vouches_for_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let redis = RedisServer::start().await;
    redis.cli(&["CONFIG", "SET", "tls-auth-clients", "no"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let files = ["tls-cert-file", &path("redis.pem"), "tls-key-file", &path("redis.key"), "tls-ca-cert-file"];
    let set = redis.cli(&[&["CONFIG", "SET", "tls-port", &port], &files[..], &[&path("ca.pem")]].concat());
    assert_eq!(set, "OK");
    let url = format!("rediss://127.0.0.1:{port}");
    let start = async |ca: Option<&Path>| RedisStore::start(&url, ca, NodeId::fresh(), settings()).await;
    let (store, _feed) = start(Some(&dir.path().join("ca.pem"))).await.unwrap();
    stored(&store).await;
    assert_eq!(store.log_len(&shop()).await.unwrap(), 1);
    store.close().await;
    for ca in [Some(dir.path().join("other.pem")), None] {
        // Without a file the system's authorities decide, where it has any.
        let refused = start(ca.as_deref()).await.map(|_| ()).unwrap_err();
        assert!(
            matches!(refused, StartError::Unreachable(_) | StartError::Address(AddressError::NoRoots)),
            "{refused:?}"
        );
    }
}
