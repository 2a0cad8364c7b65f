//! Slow handshakes: they hold nobody up, and end.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::tls::TlsFiles;
use crate::harness::{Login, SOON, eventually, unique};

use super::{handshakes, world_with};

/// A ClientHello that begins a handshake of TLS 1.2, which its client will not finish.
const HELLO_OF_TLS_1_2: &[u8] = &[
    0x16, 0x03, 0x01, 0x00, 0x47, // a record of a handshake
    0x01, 0x00, 0x00, 0x43, 0x03, 0x03, // ClientHello, version 1.2
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    16,   // random
    0x00, // no session
    0x00, 0x04, 0xc0, 0x2b, 0xc0, 0x2f, // ciphers
    0x01, 0x00, // no compression
    0x00, 0x16, // extensions
    0x00, 0x0d, 0x00, 0x06, 0x00, 0x04, 0x04, 0x03, 0x04, 0x01, // signature algorithms
    0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17, // groups: P-256
    0x00, 0x17, 0x00, 0x00, // extended master secret
];

/// A handshake that goes half way: the node has answered the first message and waits for the next.
async fn stuck(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(HELLO_OF_TLS_1_2).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 0x16, "the node shakes hands");
    stream
}

#[tokio::test]
async fn who_connects_and_says_nothing_takes_no_place_and_is_gone_after_the_time_out() {
    let files = TlsFiles::new();
    let mut settings = files.settings();
    settings.extend([("LIMITS_TLS_HANDSHAKES", "1".into()), ("TIMEOUTS_LOGIN", "5s".into())]);
    let (world, client) = world_with(&files, &settings).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(&client.address).await.unwrap());
    }
    for n in 0..3 {
        Login::main(&unique("shop"), "till").by(&client).await.expect_nothing().await;
        assert_eq!(handshakes(&world, "ok").await, f64::from(n + 1));
    }
    for stream in &mut silent {
        assert_eq!(tokio::time::timeout(2 * SOON, stream.read(&mut [0])).await.expect("it ends").unwrap_or(0), 0);
    }
    eventually(SOON, "they are counted", async || handshakes(&world, "timed_out").await == 200.0).await;
    // The time-out counts from the TCP connection: what the handshake took is not given again.
    let stream = client.stream().await.unwrap();
    let began = Instant::now();
    let (mut read, _write) = tokio::io::split(stream);
    let _ = read.read(&mut [0]).await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn handshakes_that_are_stuck_give_up_their_places_when_others_wait() {
    let files = TlsFiles::new();
    let mut settings = files.settings();
    settings.extend([("LIMITS_TLS_HANDSHAKES", "4".into()), ("TIMEOUTS_LOGIN", "20s".into())]);
    let (world, client) = world_with(&files, &settings).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(stuck(&client.address).await);
    }
    // A quarter of the time-out is 5 s.
    let began = Instant::now();
    let stream = client.stream().await.expect("a place");
    assert!(began.elapsed() > Duration::from_secs(1), "the stuck ones had no time: {:?}", began.elapsed());
    eventually(SOON, "one is counted", async || handshakes(&world, "crowded_out").await >= 1.0).await;
    drop(stream);
    Login::main(&unique("shop"), "till").by(&client).await.expect_nothing().await;
}

#[tokio::test]
async fn a_slow_handshake_alone_has_the_whole_time_out() {
    let files = TlsFiles::new();
    let mut settings = files.settings();
    settings.extend([("LIMITS_TLS_HANDSHAKES", "2".into()), ("TIMEOUTS_LOGIN", "4s".into())]);
    let (world, client) = world_with(&files, &settings).await;
    let mut slow = stuck(&client.address).await;
    let began = Instant::now();
    for _ in 0..5 {
        Login::main(&unique("shop"), "till").by(&client).await.expect_nothing().await;
    }
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest).await;
    assert!(began.elapsed() > Duration::from_secs(2), "it had a quarter of its time: {:?}", began.elapsed());
    eventually(SOON, "it is counted", async || handshakes(&world, "timed_out").await == 1.0).await;
    assert_eq!(handshakes(&world, "crowded_out").await, 0.0);
}
