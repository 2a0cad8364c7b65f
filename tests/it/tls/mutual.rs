//! Devices that are who their certificate says.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType};
use serde_json::json;
use tokio_rustls::rustls::ProtocolVersion;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::harness::tls::{Authority, Issued, TlsFiles};
use crate::harness::{Device, Encoding, LegacyDevice, Login, SOON, TlsClient, World, eventually, unique};

use super::{handshakes, world_with};

/// A node that takes devices by the certificates of one authority.
struct Mutual {
    files: TlsFiles,
    authority: Authority,
    world: World,
    address: String,
}

impl Mutual {
    async fn start(more: &[(&'static str, &str)]) -> Mutual {
        let (files, authority) = (TlsFiles::new(), Authority::new());
        let mut settings = files.mutual_settings(&authority.pem());
        settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let (world, client) = world_with(&files, &settings).await;
        Mutual { files, authority, world, address: client.address }
    }

    /// A client that shows this certificate.
    fn client(&self, own: Option<&Issued>) -> TlsClient {
        TlsClient::new(&self.address, &self.files.authority.pem(), own)
    }

    /// What somebody meets who shows this certificate and would log in as the till of s1.
    async fn try_till(&self, own: Option<&Issued>) -> Result<Device, String> {
        Login::main("s1", "till").try_by(&self.client(own)).await
    }
}

/// Checks that a device is told `unauthorized` and closed with 4001.
async fn assert_refused(login: &Login, client: &TlsClient, wanted: &str) {
    let mut device = client.device(Encoding::Json).await.unwrap();
    let refused = device.request(login.op()).await;
    assert_eq!((&refused["op"], &refused["code"]), (&json!("error"), &json!("unauthorized")), "{refused}");
    assert!(refused["message"].as_str().unwrap().contains(wanted), "{wanted}: {refused}");
    assert_eq!(device.close_code().await.0, 4001);
}

#[tokio::test]
async fn a_device_logs_in_as_whom_its_certificate_names_and_as_nobody_else() {
    let mutual = Mutual::start(&[]).await;
    let till = mutual.client(Some(&mutual.authority.device("shoprelay://s1/till")));
    // The role is the login's.
    Login::sub("s1", "till").by(&till).await.expect_nothing().await;
    Login::main("s1", "till").by(&till).await.expect_nothing().await;
    assert_refused(&Login::main("s2", "till"), &till, "another shop").await;
    assert_refused(&Login::main("s1", "till-2"), &till, "another device").await;
    let named = mutual.client(Some(&mutual.authority.device("shoprelay://%E5%B7%9D%E9%A6%99/bar%2F1")));
    Login::main("川香", "bar/1").by(&named).await.expect_nothing().await;
    assert_refused(&Login::main("s1", "till"), &named, "another shop").await;
    let subject = |params: &mut CertificateParams| {
        params.distinguished_name.push(DnType::OrganizationName, "s1");
        params.distinguished_name.push(DnType::CommonName, "hand");
    };
    let by_subject = mutual.client(Some(&mutual.authority.issue(subject)));
    Login::sub("s1", "hand").by(&by_subject).await.expect_nothing().await;
    let both = mutual.client(Some(&mutual.authority.device_with("shoprelay://s1/till", subject)));
    Login::main("s1", "till").by(&both).await.expect_nothing().await;
    assert_refused(&Login::sub("s1", "hand"), &both, "another device").await;
    let nobody = mutual.client(Some(&mutual.authority.issue(|_| {})));
    assert_refused(&Login::main("s1", "till"), &nobody, "names no device").await;
    let unclear = mutual.client(Some(&mutual.authority.device("shoprelay://s1")));
    assert_refused(&Login::main("s1", "till"), &unclear, "SAN URI").await;
    // A plain connection has no certificate.
    let mut plain = Device::connect(&mutual.world.url(0), Encoding::Json).await;
    plain.refused("login", Login::main("s1", "till").op(), "unauthorized").await;
    assert_eq!(plain.close_code().await.0, 4001);
}

#[tokio::test]
async fn a_certificate_that_is_none_to_trust_ends_the_handshake() {
    let (files, authority) = (TlsFiles::new(), Authority::new());
    let revoked = authority.device("shoprelay://s1/till");
    files.write("revoked.pem", &authority.list(&[&revoked]));
    let mut settings = files.mutual_settings(&authority.pem());
    settings.push(("TLS_CLIENT_CRL", files.text("revoked.pem")));
    let (world, client) = world_with(&files, &settings).await;
    let hour = Duration::from_secs(3600);
    let uri = "shoprelay://s1/till";
    let past = |params: &mut CertificateParams| params.not_after = (SystemTime::now() - hour).into();
    let future = |params: &mut CertificateParams| params.not_before = (SystemTime::now() + hour).into();
    let for_servers = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    };
    let cases = [
        ("none", None, "CertificateRequired"),
        ("of another authority", Some(Authority::new().device(uri)), "UnknownCA"),
        ("expired", Some(authority.device_with(uri, past)), "CertificateExpired"),
        ("not yet valid", Some(authority.device_with(uri, future)), "alert"),
        ("revoked", Some(revoked), "CertificateRevoked"),
        ("for servers", Some(authority.device_with(uri, for_servers)), "alert"),
    ];
    for (what, own, alert) in &cases {
        for version in [&TLS12, &TLS13] {
            let client = TlsClient::of(&client.address, &files.authority.pem(), own.as_ref(), &[version]);
            let refused = Login::main("s1", "till").try_by(&client).await.map(|_| ()).expect_err(what);
            // TLS 1.2 has no word for a certificate that is missing.
            let wanted = if *what == "none" && version.version == ProtocolVersion::TLSv1_2 { "alert" } else { alert };
            assert!(refused.contains(wanted), "{what}, {version:?}: {refused}");
        }
    }
    eventually(SOON, "all are counted", async || handshakes(&world, "failed").await == 12.0).await;
    let good = authority.device(uri);
    let client = TlsClient::new(&client.address, &files.authority.pem(), Some(&good));
    Login::main("s1", "till").by(&client).await.expect_nothing().await;
}

#[tokio::test]
async fn a_chain_leads_to_the_authority_and_every_one_above_needs_a_list_where_there_are_lists() {
    let (files, root) = (TlsFiles::new(), Authority::new());
    let between = root.below();
    let mut till = between.device("shoprelay://s1/till");
    let alone = till.clone();
    till.pem.push_str(&between.pem());
    let other = Authority::new();
    let settings = files.mutual_settings(&format!("{}{}", other.pem(), root.pem()));
    let (_world, client) = world_with(&files, &settings).await;
    let by = |own: &Issued, address: &str| TlsClient::new(address, &files.authority.pem(), Some(own));
    Login::main("s1", "till").by(&by(&till, &client.address)).await.expect_nothing().await;
    let refused = Login::main("s1", "till").try_by(&by(&alone, &client.address)).await.map(|_| ()).unwrap_err();
    assert!(refused.contains("UnknownCA"), "{refused}");
    let stranger = other.device("shoprelay://s1/hand");
    Login::sub("s1", "hand").by(&by(&stranger, &client.address)).await.expect_nothing().await;

    let mut settings = files.mutual_settings(&format!("{}{}", other.pem(), root.pem()));
    settings.push(("TLS_CLIENT_CRL", files.text("revoked.pem")));
    files.write("revoked.pem", &format!("{}{}", root.list(&[]), between.list(&[])));
    let (world, client) = world_with(&files, &settings).await;
    Login::main("s1", "till").by(&by(&till, &client.address)).await.expect_nothing().await;
    let refused = Login::sub("s1", "hand").try_by(&by(&stranger, &client.address)).await.map(|_| ()).unwrap_err();
    assert!(refused.contains("alert"), "{refused}");
    assert!(world.nodes[0].log_text().contains("tls_client_crl has no list of this CA"));
}

#[tokio::test]
async fn a_list_that_is_past_its_update_still_revokes_and_an_operator_is_told() {
    let (files, authority) = (TlsFiles::new(), Authority::new());
    let (revoked, good) = (authority.device("shoprelay://s1/till"), authority.device("shoprelay://s1/hand"));
    let update = SystemTime::now() - Duration::from_secs(3600);
    files.write("revoked.pem", &authority.list_until(&[&revoked], update));
    let mut settings = files.mutual_settings(&authority.pem());
    settings.push(("TLS_CLIENT_CRL", files.text("revoked.pem")));
    let (world, client) = world_with(&files, &settings).await;
    let by = |own: &Issued| TlsClient::new(&client.address, &files.authority.pem(), Some(own));
    Login::sub("s1", "hand").by(&by(&good)).await.expect_nothing().await;
    assert!(Login::main("s1", "till").try_by(&by(&revoked)).await.is_err());
    assert!(world.nodes[0].log_text().contains("past its next update"));
    let expiry = world.nodes[0].metrics().await;
    let at = |file| expiry.labelled("shoprelay_tls_expiry_timestamp_seconds", &[("file", file)]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((at("client_crl") - now + 3600.0).abs() < 60.0, "{}", at("client_crl"));
    assert!((at("cert") - now - 86_400.0).abs() < 60.0 && at("client_ca") > now, "{}", at("cert"));
}

#[tokio::test]
async fn a_session_ends_with_its_certificate() {
    let mutual = Mutual::start(&[]).await;
    let soon = SystemTime::now() + Duration::from_secs(6);
    let till = mutual.authority.device_with("shoprelay://s1/till", |params| params.not_after = soon.into());
    let mut device = mutual.try_till(Some(&till)).await.unwrap();
    let (code, reason) = device.close_code().await;
    assert_eq!(code, 4001);
    assert!(reason.contains("expired"), "{reason}");
    assert!(SystemTime::now() + Duration::from_secs(1) >= soon, "it was closed before its time");
    assert!(mutual.try_till(Some(&till)).await.map(|_| ()).unwrap_err().contains("CertificateExpired"));
}

/// What was agreed in a full handshake is taken from the ticket, and the library looks at the certificate in
/// it no more. A device whose certificate ran out could have come back by its ticket for half a day.
#[tokio::test]
async fn a_resumed_session_is_no_way_round_an_expired_certificate() {
    let mutual = Mutual::start(&[]).await;
    let comes_back = async |shop: &str, version| {
        let soon = SystemTime::now() + Duration::from_secs(6);
        let uri = format!("shoprelay://{shop}/till");
        let till = mutual.authority.device_with(&uri, |params| params.not_after = soon.into());
        let pem = mutual.files.authority.pem();
        let client = TlsClient::of(&mutual.address, &pem, Some(&till), &[version]);
        let mut device = Login::main(shop, "till").by(&client).await;
        assert_eq!(device.close_code().await.0, 4001);
        Login::main(shop, "till").try_by(&client).await.is_ok()
    };
    let came_back = tokio::join!(comes_back("s1", &TLS12), comes_back("s2", &TLS13));
    assert_eq!(came_back, (false, false));
    let good = mutual.client(Some(&mutual.authority.device("shoprelay://s1/till")));
    for _ in 0..2 {
        Login::main("s1", "till").by(&good).await.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_legacy_device_is_whom_its_certificate_names_too() {
    let mutual = Mutual::start(&[("LEGACY", "true")]).await;
    let till = mutual.client(Some(&mutual.authority.device("shoprelay://12/7")));
    let open = async || LegacyDevice::over(Box::new(till.stream().await.unwrap()), &till.address).await;
    let mut device = open().await;
    device.send(json!({"op": "login", "shop_id": 12, "client_id": 7, "type": "主"})).await;
    device.expect_nothing().await;
    for (shop, client) in [(12, 8), (13, 7)] {
        let mut other = open().await;
        other.send(json!({"op": "login", "shop_id": shop, "client_id": client, "type": "主"})).await;
        assert!(other.refusal().await.contains("unauthorized"));
        assert_eq!(other.close_code().await.0, 4001);
    }
    let mut plain = LegacyDevice::connect(mutual.world.nodes[0].listen()).await;
    plain.send(json!({"op": "login", "shop_id": 12, "client_id": 7, "type": "主"})).await;
    plain.refusal().await;
    assert_eq!(plain.close_code().await.0, 4001);
    device.expect_nothing().await;
}

#[tokio::test]
async fn where_only_a_certificate_is_asked_for_any_of_the_authority_will_do() {
    let mutual = Mutual::start(&[("AUTH", "none")]).await;
    assert!(mutual.try_till(None).await.is_err());
    let any = mutual.authority.issue(|_| {});
    mutual.try_till(Some(&any)).await.unwrap().expect_nothing().await;
    // A certificate is asked for by TLS, and a plain listener beside it is as it was.
    Login::main(&unique("shop"), "till").on(&mutual.world.url(0)).await.expect_nothing().await;
}
