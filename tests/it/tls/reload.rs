//! Certificates, authorities and lists that change while devices are connected.

use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::harness::api::Api;
use crate::harness::tls::{Authority, Issued, TlsFiles, text};
use crate::harness::{Device, Event, Login, SOON, TlsClient, World, eventually, unique};

use super::world_with;

/// Devices that go through the rotation.
const DEVICES: usize = 1_000;

/// Whether a whole handshake shows this certificate.
async fn is_shown(client: &TlsClient, issued: &Issued) -> bool {
    let wanted = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
    let stream = client.clone().without_resumption().stream().await.expect("a handshake");
    stream.get_ref().1.peer_certificates().and_then(<[_]>::first) == Some(&wanted)
}

/// How often the files were read anew, with this result.
async fn reloads(world: &World, result: &str) -> f64 {
    world.nodes[0].metrics().await.labelled("shoprelay_tls_reloads_total", &[("result", result)])
}

async fn logs(world: &World, part: &str) {
    eventually(2 * SOON, part, async || world.nodes[0].log_text().contains(part)).await;
}

#[tokio::test]
async fn new_files_are_taken_by_themselves_and_the_two_of_a_pair_may_come_one_after_the_other() {
    let files = TlsFiles::new();
    let (world, client) = world_with(&files, &files.settings()).await;
    let mut device = Login::main(&unique("shop"), "till").by(&client).await;
    let next = files.authority.server();
    files.write("cert.pem", &next.pem);
    logs(&world, "is not that of the first certificate").await;
    assert!(!is_shown(&client, &next).await);
    files.write("key.pem", &next.key);
    eventually(2 * SOON, "the new certificate is shown", async || is_shown(&client, &next).await).await;
    device.expect_nothing().await;
    assert_eq!((reloads(&world, "failed").await, reloads(&world, "ok").await), (1.0, 1.0));
    // Written in place, without another file in between.
    let after = files.authority.server();
    std::fs::write(files.path("cert.pem"), &after.pem).unwrap();
    std::fs::write(files.path("key.pem"), &after.key).unwrap();
    eventually(2 * SOON, "the last certificate is shown", async || is_shown(&client, &after).await).await;
    device.expect_nothing().await;
}

#[tokio::test]
async fn a_hangup_reads_the_files_at_once_and_bad_ones_are_refused_and_named() {
    let files = TlsFiles::new();
    let server = files.authority.server();
    files.write_server(&server);
    let authority = Authority::new();
    files.write("revoked.pem", &authority.list(&[]));
    let mut settings = files.mutual_settings(&authority.pem());
    settings.push(("TLS_CLIENT_CRL", files.text("revoked.pem")));
    let (world, client) = world_with(&files, &settings).await;
    let till = authority.device("shoprelay://s1/till");
    let client = TlsClient::new(&client.address, &files.authority.pem(), Some(&till));
    let mut device = Login::main("s1", "till").by(&client).await;
    let expired = files.authority.issue(|params| {
        params.not_after = (std::time::SystemTime::now() - Duration::from_secs(60)).into();
    });
    let bad = [
        ("cert.pem", expired.pem.as_str(), "is not that of the first certificate"),
        ("cert.pem", "", "cert.pem holds no certificate"),
        ("key.pem", "-----BEGIN hunter2", "key.pem holds no private key"),
        ("clients.pem", "nonsense", "clients.pem holds no certificate"),
        ("revoked.pem", &server.pem, "revoked.pem holds no revocation list"),
    ];
    for (name, content, wanted) in bad {
        let good = std::fs::read_to_string(files.path(name)).unwrap();
        files.write(name, content);
        world.nodes[0].sighup();
        logs(&world, wanted).await;
        files.write(name, &good);
    }
    files.write_server(&expired);
    world.nodes[0].sighup();
    logs(&world, "has expired already").await;
    assert!(is_shown(&client, &server).await && !world.nodes[0].log_text().contains("hunter2"));
    files.write_server(&server);
    let before = reloads(&world, "ok").await;
    world.nodes[0].sighup();
    eventually(SOON, "the good ones are taken", async || reloads(&world, "ok").await > before).await;
    device.expect_nothing().await;
}

/// A secret volume of Kubernetes: the files are links through `..data`, which is swapped for another.
#[tokio::test]
async fn the_swap_of_a_mounted_secret_is_seen() {
    let files = TlsFiles::new();
    let secret = |name: &str, server: &Issued| {
        std::fs::create_dir(files.path(name)).unwrap();
        std::fs::write(files.path(name).join("tls.crt"), &server.pem).unwrap();
        std::fs::write(files.path(name).join("tls.key"), &server.key).unwrap();
    };
    let (first, second) = (files.authority.server(), files.authority.server());
    secret("..2026_1", &first);
    symlink("..2026_1", files.path("..data")).unwrap();
    symlink("..data/tls.crt", files.path("tls.crt")).unwrap();
    symlink("..data/tls.key", files.path("tls.key")).unwrap();
    let settings = [
        ("TLS_LISTEN", "127.0.0.1:0".to_owned()),
        ("TLS_CERT", text(&files.path("tls.crt"))),
        ("TLS_KEY", text(&files.path("tls.key"))),
    ];
    let (world, client) = world_with(&files, &settings).await;
    assert!(is_shown(&client, &first).await);
    secret("..2026_2", &second);
    symlink("..2026_2", files.path("..data_tmp")).unwrap();
    std::fs::rename(files.path("..data_tmp"), files.path("..data")).unwrap();
    std::fs::remove_dir_all(files.path("..2026_1")).unwrap();
    eventually(2 * SOON, "the new certificate is shown", async || is_shown(&client, &second).await).await;
    assert_eq!(reloads(&world, "failed").await, 0.0);
}

#[tokio::test]
async fn a_device_that_is_revoked_is_closed_within_a_heartbeat_and_stays_out() {
    let (files, authority) = (TlsFiles::new(), Authority::new());
    let (bad, good) = (authority.device("shoprelay://s1/till"), authority.device("shoprelay://s1/hand"));
    files.write("revoked.pem", &authority.list(&[]));
    let mut settings = files.mutual_settings(&authority.pem());
    settings.extend([("TLS_CLIENT_CRL", files.text("revoked.pem")), ("HEARTBEAT", "1s".into())]);
    let (world, client) = world_with(&files, &settings).await;
    let by = |own: &Issued| TlsClient::new(&client.address, &files.authority.pem(), Some(own));
    let (bad, good) = ((by(&bad), &bad), (by(&good), &good));
    let mut till = Login::main("s1", "till").by(&bad.0).await;
    let mut hand = Login::sub("s1", "hand").by(&good.0).await;
    files.write("revoked.pem", &authority.list(&[bad.1]));
    let (code, reason) = till.close_code().await;
    assert_eq!((code, reason.as_str()), (4001, "the client certificate is no longer good"));
    // Neither by a whole handshake nor by the ticket of the old one.
    for client in [bad.0.clone(), bad.0.without_resumption()] {
        let refused = Login::main("s1", "till").try_by(&client).await.map(|_| ()).unwrap_err();
        assert!(refused.contains("CertificateRevoked"), "{refused}");
    }
    hand.expect_nothing().await;
    // An authority that is no longer trusted takes its devices with it.
    let other = Authority::new();
    files.write("clients.pem", &other.pem());
    files.write("revoked.pem", &other.list(&[]));
    assert_eq!(hand.close_code().await.0, 4001);
    assert_eq!(reloads(&world, "failed").await, 0.0);
}

/// Logs a thousand devices in, some at a time.
async fn fleet(shop: &str, client: &TlsClient) -> Vec<Device> {
    let (mut joining, mut devices) = (JoinSet::new(), Vec::new());
    for n in 0..DEVICES {
        while joining.len() >= 32 {
            devices.push(joining.join_next().await.unwrap().unwrap());
        }
        let (login, client) = (Login::sub(shop, &format!("hand-{n}")), client.clone());
        joining.spawn(async move { login.by(&client).await });
    }
    devices.extend(joining.join_all().await);
    devices
}

#[tokio::test]
async fn a_thousand_sockets_go_through_a_rotation_and_none_drops() {
    let files = TlsFiles::new();
    let mut settings = files.settings();
    // Nobody acknowledges before the end.
    settings.push(("TIMEOUTS_ACK", "10m".into()));
    let (world, client) = world_with(&files, &settings).await;
    let (shop, api) = (unique("shop"), world.api(0));
    let mut devices = fleet(&shop, &client).await;
    let publish = async |api: &Api, n: usize| {
        let body = json!({"to": "subs", "type": "price", "data": n});
        assert_eq!(api.post(&format!("/v1/shops/{shop}/messages"), body).await.status, 201);
    };
    publish(&api, 0).await;
    let next = files.authority.server();
    files.write_server(&next);
    let mut sent = 1;
    while !is_shown(&client, &next).await {
        publish(&api, sent).await;
        sent += 1;
    }
    publish(&api, sent).await;
    for device in &mut devices {
        for n in 0..=sent {
            let message = device.expect("message").await;
            assert_eq!(message["data"], n);
        }
    }
    let dropped = devices.iter_mut().flat_map(Device::take_held).find(|event| !matches!(event, Event::Ping(_)));
    assert_eq!(dropped, None);
    let sessions = world.nodes[0].metrics().await.labelled("shoprelay_sessions", &[("role", "sub")]);
    assert_eq!(sessions, DEVICES as f64);
    let mut late = Login::sub(&shop, "late").by(&client).await;
    let online = late.request(json!({"op": "online"})).await;
    assert_eq!(online["devices"].as_array().map(Vec::len), Some(DEVICES + 1));
}
