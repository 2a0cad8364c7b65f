//! Devices that connect by TLS: they are served as by a plain connection, and nobody gets in who does not
//! belong there.

mod handshakes;
mod mutual;
mod reload;
mod script;

use std::path::Path;
use std::process::Command;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::client::{Resumption, Tls12Resumption};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{HandshakeKind, ProtocolVersion};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::legacy::assert_answer;
use crate::harness::tls::TlsFiles;
use crate::harness::{Encoding, LegacyDevice, Login, SOON, TlsClient, World, eventually, unique};

/// A node with these settings, and a client that trusts it and shows no certificate.
async fn world_with(files: &TlsFiles, settings: &[(&str, String)]) -> (World, TlsClient) {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let world = World::embedded(&settings).await;
    let client = TlsClient::new(world.nodes[0].tls_listen(), &files.authority.pem(), None);
    (world, client)
}

/// What became of handshakes so far.
async fn handshakes(world: &World, result: &str) -> f64 {
    world.nodes[0].metrics().await.labelled("shoprelay_tls_handshakes_total", &[("result", result)])
}

#[tokio::test]
async fn a_device_by_tls_of_either_version_is_served_as_a_plain_one_in_both_encodings() {
    let files = TlsFiles::new();
    let (world, any) = world_with(&files, &files.settings()).await;
    let shop = unique("shop");
    let mut plain = Login::main(&shop, "till").on(&world.url(0)).await;
    for version in [&TLS12, &TLS13] {
        let client = TlsClient::of(&any.address, &files.authority.pem(), None, &[version]);
        for encoding in [Encoding::Json, Encoding::MsgPack] {
            let mut hand = Login::sub(&shop, "hand").encoding(encoding).by(&client).await;
            let id = hand.notify(json!({"type": "add", "data": {"dish": 7}, "receipt": true})).await;
            let message = plain.expect("message").await;
            assert_eq!((&message["id"], &message["data"]), (&json!(id), &json!({"dish": 7})));
            plain.ack(&id).await;
            assert_eq!(hand.expect("receipt").await["message"], id.as_str());
            let long = "x".repeat(60_000);
            plain.notify(json!({"type": "show", "data": long})).await;
            assert_eq!(hand.expect("signal").await["data"], long.as_str());
        }
    }
    assert!(handshakes(&world, "ok").await >= 4.0);
}

#[tokio::test]
async fn a_page_of_the_log_that_is_larger_than_every_buffer_comes_whole() {
    let files = TlsFiles::new();
    let (world, client) = world_with(&files, &files.settings()).await;
    let shop = unique("shop");
    drop(Login::main(&shop, "till").by(&client).await);
    let mut hand = Login::sub(&shop, "hand").by(&client).await;
    let data = "x".repeat(50_000);
    for _ in 0..40 {
        hand.notify(json!({"type": "add", "data": data})).await;
    }
    let mut till = Login::main(&shop, "till").by(&client).await;
    till.take(40).await;
    assert!(world.nodes[0].is_ready().await);
}

/// What TLS has encrypted and the network does not take is still on its way to the device.
#[tokio::test]
async fn a_device_by_tls_that_reads_nothing_is_closed_and_holds_nobody_up() {
    let files = TlsFiles::new();
    let mut settings = files.settings();
    settings.push(("TIMEOUTS_ACK", "2s".into()));
    let (world, client) = world_with(&files, &settings).await;
    let shop = unique("shop");
    let mut reading = Login::sub(&shop, "reading").by(&client).await;
    let url = format!("wss://{}/ws", client.address);
    let (mut deaf, _) = tokio_tungstenite::client_async(url, client.stream().await.unwrap()).await.unwrap();
    deaf.send(Message::text(Login::sub(&shop, "deaf").op().to_string())).await.unwrap();
    assert!(deaf.next().await.unwrap().unwrap().to_text().unwrap().contains("welcome"));
    let mut till = Login::main(&shop, "till").by(&client).await;
    let data = "x".repeat(60_000);
    eventually(6 * SOON, "the deaf one is closed", async || {
        // Signals ask for no proof, so it is not closed for that.
        till.notify(json!({"type": "show", "data": data})).await;
        assert_eq!(reading.expect("signal").await["data"], data.as_str());
        world.nodes[0].metrics().await.labelled("shoprelay_closes_total", &[("code", "4003")]) == 1.0
    })
    .await;
    reading.expect_nothing().await;
}

#[tokio::test]
async fn legacy_devices_and_their_http_come_by_tls_too() {
    let files = TlsFiles::new();
    let mut settings = files.settings();
    settings.extend([("LEGACY", "true".into()), ("LISTEN", "none".into())]);
    let (world, client) = world_with(&files, &settings).await;
    assert_eq!(world.nodes[0].listen(), "none");
    let shop = unique("shop");
    let mut till = LegacyDevice::over(Box::new(client.stream().await.unwrap()), &client.address).await;
    till.send(json!({"op": "login", "shop_id": shop, "client_id": 1, "type": "主"})).await;
    till.expect_nothing().await;
    let path = format!("/api.php/index/index/check_online_main/shop_id/{shop}");
    let answer = client.get(&path).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    let answer: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_answer(&answer);
    assert_eq!(answer["data"], json!(["1"]));
    let mut hand = Login::sub(&shop, "hand").by(&client).await;
    hand.notify(json!({"type": "加菜", "table": "3"})).await;
    assert_eq!(till.json().await["title"], "桌id:3 加菜");
}

#[tokio::test]
async fn http_1_1_is_agreed_on_and_who_speaks_only_something_else_is_refused() {
    let files = TlsFiles::new();
    let (_world, client) = world_with(&files, &files.settings()).await;
    let offering = |offers: &[&str]| {
        let offers = offers.iter().map(|offer| offer.as_bytes().to_vec()).collect();
        client.clone().with(|config| config.alpn_protocols = offers)
    };
    for (offers, agreed) in [(&["h2", "http/1.1"][..], Some("http/1.1")), (&[], None)] {
        let stream = offering(offers).stream().await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes), "{offers:?}");
    }
    let refused = offering(&["h2"]).stream().await.unwrap_err();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    assert!(client.get("/nothing").await.unwrap().starts_with("HTTP/1.0 404"));
}

#[tokio::test]
async fn a_session_is_resumed_in_both_versions_by_ticket_and_by_id() {
    let files = TlsFiles::new();
    let (_world, any) = world_with(&files, &files.settings()).await;
    let by = |how| Resumption::in_memory_sessions(8).tls12_resumption(how);
    let cases = [
        (&TLS13, by(Tls12Resumption::Disabled), HandshakeKind::Resumed),
        (&TLS12, by(Tls12Resumption::SessionIdOrTickets), HandshakeKind::Resumed),
        (&TLS12, by(Tls12Resumption::SessionIdOnly), HandshakeKind::Resumed),
        (&TLS12, Resumption::disabled(), HandshakeKind::Full),
    ];
    for (version, resumption, wanted) in cases {
        let client = TlsClient::of(&any.address, &files.authority.pem(), None, &[version]);
        let client = client.with(|config| config.resumption = resumption);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut stream = client.stream().await.unwrap();
            kinds.push(stream.get_ref().1.handshake_kind().unwrap());
            // With TLS 1.3 the ticket comes after the handshake, at the latest with the first answer.
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        }
        assert_eq!(kinds, [HandshakeKind::Full, wanted], "{version:?}");
    }
}

/// A ClientHello of TLS 1.1, with all that a server of that age wanted.
const HELLO_OF_TLS_1_1: &[u8] = &[
    0x16, 0x03, 0x01, 0x00, 0x3b, // a record of a handshake
    0x01, 0x00, 0x00, 0x37, 0x03, 0x02, // ClientHello, version 1.1
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    16,   // random
    0x00, // no session
    0x00, 0x04, 0xc0, 0x13, 0x00, 0x2f, // ciphers
    0x01, 0x00, // no compression
    0x00, 0x0a, // extensions: signature algorithms
    0x00, 0x0d, 0x00, 0x06, 0x00, 0x04, 0x04, 0x03, 0x04, 0x01,
];

/// What the node says to these bytes before it ends the connection.
async fn answer_to(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    answer
}

#[tokio::test]
async fn what_is_no_tls_or_too_old_is_refused_and_others_are_served() {
    let files = TlsFiles::new();
    let (world, client) = world_with(&files, &files.settings()).await;
    let plain = answer_to(&client.address, b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(!plain.starts_with(b"HTTP"), "{plain:?}");
    let old = answer_to(&client.address, HELLO_OF_TLS_1_1).await;
    // A fatal alert: protocol_version.
    assert_eq!((old.first(), old.get(5..)), (Some(&0x15), Some(&[2, 70][..])), "{old:?}");
    eventually(SOON, "both are counted", async || handshakes(&world, "failed").await == 2.0).await;
    let other = TlsFiles::new();
    let distrusting = TlsClient::new(&client.address, &other.authority.pem(), None);
    let refused = distrusting.stream().await.unwrap_err();
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    Login::main(&unique("shop"), "till").by(&client).await.expect_nothing().await;
    let stream = client.stream().await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

/// Runs openssl in a directory, with these words.
fn openssl(dir: &Path, words: &str) {
    let output = Command::new("openssl").args(words.split(' ')).current_dir(dir).output();
    let output = output.expect("the test needs openssl: apt-get install openssl");
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn keys_of_every_supported_form_are_taken() {
    let files = TlsFiles::new();
    let (dir, key) = (files.path(""), files.path("key.pem"));
    let forms = [
        ("genrsa -traditional -out key.pem 2048", "BEGIN RSA PRIVATE KEY"),
        ("ecparam -name prime256v1 -genkey -noout -out key.pem", "BEGIN EC PRIVATE KEY"),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out key.pem", "BEGIN PRIVATE KEY"),
        ("genpkey -algorithm ed25519 -out key.pem", "BEGIN PRIVATE KEY"),
    ];
    for (words, form) in forms {
        openssl(&dir, words);
        assert!(std::fs::read_to_string(&key).unwrap().contains(form), "{words}");
        let certificate = "req -x509 -key key.pem -out cert.pem -days 2 -subj /CN=node -addext \
            subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE";
        openssl(&dir, certificate);
        let (_world, client) = world_with(&files, &files.settings()).await;
        let certificate = std::fs::read_to_string(files.path("cert.pem")).unwrap();
        let client = TlsClient::new(&client.address, &certificate, None);
        let shown = client.stream().await.unwrap();
        let certificates = shown.get_ref().1.peer_certificates().map(<[_]>::len);
        assert_eq!(certificates, Some(1));
    }
}
