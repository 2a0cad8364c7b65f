//! The script that the TLS page tells operators to run, run as it says.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::tls::{Issued, text};
use crate::harness::{Login, TlsClient, World};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs the script in this directory, and gives what it prints.
fn make(dir: &Path, args: &[&str]) -> String {
    let script = root().join("examples/make-certificates.sh");
    let output = Command::new(&script).arg(dir).args(args).output().expect("the script can be run");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The certificate at this path, with the key beside it.
fn issued(path: &str) -> Issued {
    let path = PathBuf::from(path);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    Issued::of(read(&path), read(&path.with_extension("key")))
}

#[tokio::test]
async fn what_the_script_makes_works_and_what_it_revokes_does_not() {
    let dir = TempDir::with_prefix("shoprelay-script-").unwrap();
    let dir = dir.path();
    make(dir, &["ca"]);
    make(dir, &["server", "localhost", "127.0.0.1"]);
    let till = issued(&make(dir, &["device", "川香 1", "till/1"]));
    let lost = make(dir, &["device", "s1", "hand", "30"]);
    let file = |name: &str| text(&dir.join(name));
    let settings = [
        ("AUTH", "mtls".to_owned()),
        ("LISTEN", "none".to_owned()),
        ("TLS_LISTEN", "127.0.0.1:0".to_owned()),
        ("TLS_CERT", file("server.pem")),
        ("TLS_KEY", file("server.key")),
        ("TLS_CLIENT_CA", file("client-ca.pem")),
        ("TLS_CLIENT_CRL", file("client-crl.pem")),
        ("HEARTBEAT", "1s".to_owned()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let world = World::embedded(&settings).await;
    let authorities = std::fs::read_to_string(dir.join("server-ca.pem")).unwrap();
    let by = |own: &Issued| TlsClient::new(world.nodes[0].tls_listen(), &authorities, Some(own));
    let mut device = Login::main("川香 1", "till/1").by(&by(&till)).await;
    let mut hand = Login::sub("s1", "hand").by(&by(&issued(&lost))).await;
    make(dir, &["revoke", &lost]);
    assert_eq!(hand.close_code().await.0, 4001);
    assert!(Login::sub("s1", "hand").try_by(&by(&issued(&lost))).await.is_err());
    make(dir, &["server", "localhost"]);
    device.expect_nothing().await;
    make(dir, &["crl"]);
    Login::main("川香 1", "till/1").by(&by(&till)).await.expect_nothing().await;
}

#[test]
fn the_page_shows_the_commands_that_the_script_has() {
    let page = std::fs::read_to_string(root().join("docs/tls.md")).unwrap();
    for command in ["ca", "server", "device", "revoke", "crl"] {
        assert!(page.contains(&format!("make-certificates.sh pki {command}")), "docs/tls.md lacks {command}");
    }
}
