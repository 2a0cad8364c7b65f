//! Connections of an address, and the true address behind a balancer.

use serde_json::json;

use super::answer;
use crate::harness::tls::TlsFiles;
use crate::harness::{Encoding, Login, NodeProcess, RawSocket, SOON, TlsClient, World, eventually, unique};

const TWO: (&str, &str) = ("LIMITS_ADDRESS_CONNECTIONS", "2");

/// A header of version 2 of the PROXY protocol: TCP over IPv4, from this address.
fn from(address: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(address);
    header.extend([127, 0, 0, 1, 0x30, 0x39, 0x1f, 0x90]);
    header
}

/// The answer to a handshake on a connection that begins with this.
async fn handshake_after(url: &str, preamble: &[u8]) -> Result<(u16, RawSocket), String> {
    let mut socket = RawSocket::connect(url).await;
    socket.write(preamble).await;
    socket.ask(url, &[]).await.map(|(head, socket)| (answer(&head).0, socket))
}

async fn refused(node: &NodeProcess, reason: &str) -> f64 {
    node.metrics().await.labelled("shoprelay_connections_refused_total", &[("reason", reason)])
}

#[tokio::test]
async fn an_address_with_as_many_connections_as_it_may_is_answered_503() {
    let world = World::with(1, &[TWO]).await;
    let url = world.url(0);
    let shop = unique("shop");
    let first = Login::main(&shop, "a").on(&url).await;
    // One that says nothing counts as well.
    let silent = RawSocket::connect(&url).await;
    eventually(SOON, "both to be counted", async || world.nodes[0].metrics().await.get("shoprelay_connections") == 2.0)
        .await;
    let (head, _) = RawSocket::connect(&url).await.ask(&url, &[]).await.unwrap();
    let (status, retry) = answer(&head);
    assert_eq!(status, 503, "{head}");
    assert!(retry.is_some_and(|seconds| seconds >= 1), "{head}");
    assert_eq!(refused(&world.nodes[0], "address").await, 1.0);
    let (head, _other) = RawSocket::connect_from("127.0.0.2", &url).await.ask(&url, &[]).await.unwrap();
    assert_eq!(answer(&head).0, 101, "another address has its own");
    drop(silent);
    eventually(SOON, "room for one more", async || RawSocket::handshake(&url, &[]).await.0 == 101).await;
    first.close().await;
}

#[tokio::test]
async fn a_proxy_header_says_whose_a_connection_is() {
    let world = World::with(1, &[TWO, ("PROXY_PROTOCOL", "true")]).await;
    let url = world.url(0);
    let mut held = Vec::new();
    for preamble in [from([192, 0, 2, 1]), b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n".to_vec()] {
        let (status, socket) = handshake_after(&url, &preamble).await.unwrap();
        assert_eq!(status, 101);
        held.push(socket);
    }
    assert_eq!(handshake_after(&url, &from([192, 0, 2, 1])).await.unwrap().0, 503);
    let (status, mut other) = handshake_after(&url, &from([192, 0, 2, 2])).await.unwrap();
    assert_eq!(status, 101);
    other.send_op(&Login::main(&unique("shop"), "till").op()).await;
    other.expect("welcome").await;
    // The balancer itself, which wants to know whether the node lives.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    assert_eq!(handshake_after(&url, local).await.unwrap().0, 101);
}

#[tokio::test]
async fn a_connection_without_a_proxy_header_is_dropped_where_there_must_be_one() {
    let world = World::with(1, &[("PROXY_PROTOCOL", "true"), ("TIMEOUTS_HEADER", "1s")]).await;
    let url = world.url(0);
    let half = &from([192, 0, 2, 1])[..20];
    for nonsense in [b"".as_slice(), b"PROXY TCP4 192.0.2.1\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"] {
        assert!(handshake_after(&url, nonsense).await.is_err(), "{nonsense:02x?}");
    }
    // One that never comes, or never ends, is not waited for.
    for begun in [b"".as_slice(), half] {
        let mut socket = RawSocket::connect(&url).await;
        socket.write(begun).await;
        socket.wait_end().await;
    }
    assert_eq!(refused(&world.nodes[0], "proxy_header").await, 5.0);
    assert_eq!(world.nodes[0].metrics().await.get("shoprelay_connections"), 0.0);
}

#[tokio::test]
async fn a_proxy_header_of_somebody_who_is_not_trusted_is_not_believed() {
    let settings = [("PROXY_PROTOCOL", "true"), ("TRUSTED_PROXIES", "127.0.0.2, 10.0.0.0/8")];
    let world = World::with(1, &settings).await;
    let url = world.url(0);
    assert!(handshake_after(&url, &from([192, 0, 2, 1])).await.is_err());
    assert_eq!(refused(&world.nodes[0], "proxy_header").await, 1.0);
    let mut trusted = RawSocket::connect_from("127.0.0.2", &url).await;
    trusted.write(&from([192, 0, 2, 1])).await;
    let (head, _socket) = trusted.ask(&url, &[]).await.unwrap();
    assert_eq!(answer(&head).0, 101);
}

#[tokio::test]
async fn a_trusted_proxy_says_whose_a_request_is_and_a_client_cannot_make_it_anothers() {
    let world = World::with(1, &[TWO, ("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let url = world.url(0);
    let forwarded = |value: &'static str| [("X-Forwarded-For", value)];
    let mut held = Vec::new();
    for value in ["192.0.2.1", "203.0.113.5, 192.0.2.1:4711"] {
        let (status, socket) = RawSocket::handshake(&url, &forwarded(value)).await;
        assert_eq!(status, 101, "{value}");
        held.push(socket);
    }
    // What the client wrote itself stands left of what the proxy saw.
    for value in ["192.0.2.1", "203.0.113.77, 192.0.2.1", "127.0.0.1, 192.0.2.1"] {
        assert_eq!(RawSocket::handshake(&url, &forwarded(value)).await.0, 503, "{value}");
    }
    assert_eq!(RawSocket::handshake(&url, &forwarded("192.0.2.2")).await.0, 101);
    // Who comes past the proxy is counted as who it is, whatever it says.
    for n in 0..3 {
        let value = format!("192.0.2.{}", 100 + n);
        let past = RawSocket::connect_from("127.0.0.2", &url).await;
        let (head, socket) = past.ask(&url, &[("X-Forwarded-For", &value)]).await.unwrap();
        assert_eq!(answer(&head).0, if n < 2 { 101 } else { 503 }, "{head}");
        held.push(socket);
    }
}

#[tokio::test]
async fn a_proxy_header_comes_before_tls_and_counts_there_too() {
    let files = TlsFiles::new();
    let given = files.settings();
    let mut settings: Vec<(&str, &str)> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
    settings.extend([TWO, ("PROXY_PROTOCOL", "true")]);
    let world = World::embedded(&settings).await;
    let client = TlsClient::new(world.nodes[0].tls_listen(), &files.authority.pem(), None);
    assert!(client.device(Encoding::Json).await.is_err(), "it came without a header");
    let client = client.after(from([192, 0, 2, 1]));
    let mut device = client.device(Encoding::Json).await.unwrap();
    assert_eq!(device.request(Login::main(&unique("shop"), "till").op()).await["op"], "welcome");
    let _second = client.device(Encoding::Json).await.unwrap();
    let refused = client.device(Encoding::Json).await.map(drop).unwrap_err();
    assert!(refused.contains("503"), "{refused}");
    assert!(client.after(from([192, 0, 2, 2])).device(Encoding::Json).await.is_ok());
}

/// The old server's routes need no key on a loopback address; that they came through a proxy there makes
/// nobody local.
#[tokio::test]
async fn who_comes_through_a_local_proxy_is_not_local() {
    let world = World::with(1, &[("LEGACY", "true"), ("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let path = "/api.php/index/index/check_online_main/shop_id/1";
    let (_, body) = world.nodes[0].get_public(path).await;
    assert!(body.contains(r#""code":0"#), "{body}");
    let answer = get_forwarded(world.nodes[0].listen(), path, "192.0.2.1").await;
    assert!(answer.contains("unauthorized"), "{answer}");
    let answer = get_forwarded(world.nodes[0].listen(), path, "127.0.0.1").await;
    assert!(answer.contains(r#""code":0"#), "{answer}");
}

async fn get_forwarded(address: &str, path: &str, client: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nX-Forwarded-For: {client}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn the_limit_holds_for_a_device_and_not_for_the_balancer_before_it() {
    let world = World::with(1, &[TWO, ("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let url = world.url(0);
    let shop = unique("shop");
    let mut devices = Vec::new();
    for n in 0..5 {
        let client = format!("192.0.2.{n}");
        let (status, mut socket) = RawSocket::handshake(&url, &[("X-Forwarded-For", &client)]).await;
        assert_eq!(status, 101);
        socket.send_op(&Login::sub(&shop, &client).op()).await;
        socket.expect("welcome").await;
        devices.push(socket);
    }
    devices[0].send_op(&json!({"op": "ping"})).await;
    devices[0].expect("pong").await;
}
