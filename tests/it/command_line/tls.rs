//! What stops the start of a node that is to serve TLS, and what `check` finds.

use std::process::Command;

use crate::harness::tls::{Authority, TlsFiles};

use super::{STORE, refusal, shoprelay, stdout};

/// A start with the files of this directory, which are good but for what a test changes.
fn serve(files: &TlsFiles, args: &[&str]) -> Command {
    let mut command = shoprelay(&["serve", "--metrics-listen", "none", "--api-listen", "none"]);
    command.args(args).env("SHOPRELAY_STORE", STORE[1]).env("SHOPRELAY_LISTEN", "none");
    for (name, value) in files.settings() {
        command.env(format!("SHOPRELAY_{name}"), value);
    }
    command
}

#[test]
fn files_that_cannot_be_taken_stop_the_start_and_say_what_to_do() {
    let files = TlsFiles::new();
    let other = TlsFiles::new();
    let authority = Authority::new();
    files.write("empty.pem", "");
    files.write("sealed.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2\n-----END ENCRYPTED PRIVATE KEY-----\n");
    files.write("damaged.pem", "-----BEGIN PRIVATE KEY-----\nhunter2\n");
    files.write("odd.pem", "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n");
    files.write("ca.pem", &authority.pem());
    files.write("crl.pem", &authority.list(&[]));
    files.write("bad-crl.pem", "-----BEGIN X509 CRL-----\naHVudGVyMg==\n-----END X509 CRL-----\n");
    let [empty, sealed, damaged, odd, ca, crl, bad_crl, missing] =
        ["empty.pem", "sealed.pem", "damaged.pem", "odd.pem", "ca.pem", "crl.pem", "bad-crl.pem", "missing.pem"]
            .map(|name| files.text(name));
    let other_key = other.text("key.pem");
    let cases: [(&[&str], &[&str]); 12] = [
        (&["--tls-cert", &missing], &["missing.pem", "cannot be read"]),
        (&["--tls-cert", &empty], &["empty.pem holds no certificate", "-----BEGIN CERTIFICATE-----"]),
        (&["--tls-key", &empty], &["empty.pem holds no private key"]),
        (&["--tls-key", &damaged], &["damaged.pem holds no private key"]),
        (&["--tls-key", &sealed], &["sealed.pem is encrypted", "openssl pkey"]),
        (&["--tls-key", &odd], &["odd.pem is not of a kind that is supported", "Ed25519"]),
        (&["--tls-key", &other_key], &["is not that of the first certificate", "cert.pem"]),
        (&["--tls-client-ca", &crl], &["crl.pem holds no certificate"]),
        (&["--tls-client-ca", &ca, "--tls-client-crl", &ca], &["ca.pem holds no revocation list", "X509 CRL"]),
        (&["--tls-client-ca", &ca, "--tls-client-crl", &bad_crl], &["bad-crl.pem cannot be taken", "version 2"]),
        (&["--tls-client-crl", &crl], &["tls_client_ca is not"]),
        (&["--auth", "mtls"], &["auth is mtls", "--tls-client-ca"]),
    ];
    for (args, parts) in cases {
        let line = refusal(&mut serve(&files, args));
        for part in parts {
            assert!(line.contains(part), "{args:?}: {part} is not in {line}");
        }
        assert!(!line.contains("hunter2") && !line.contains("aHVudGVyMg"), "{line}");
    }
    let line = refusal(&mut serve(&files, &["--tls-listen", "0.0.0.0:0", "--tls-client-ca", &ca]));
    assert!(line.contains("auth is none and 0.0.0.0:0 is no loopback address"), "{line}");
    let line = refusal(shoprelay(&["serve", "--tls-listen", "127.0.0.1:0"]).env("SHOPRELAY_STORE", STORE[1]));
    assert!(line.contains("tls_cert is not") && line.contains("1 more"), "{line}");
}

#[test]
fn check_opens_the_files_of_tls() {
    let files = TlsFiles::new();
    let check = |args: &[&str]| {
        let mut command = shoprelay(&["check"]);
        command.args(args).env("SHOPRELAY_STORE", STORE[1]);
        for (name, value) in files.settings() {
            command.env(format!("SHOPRELAY_{name}"), value);
        }
        let output = command.output().unwrap();
        (output.status.code(), stdout(&output))
    };
    let (status, printed) = check(&[]);
    assert_eq!(status, Some(0), "{printed}");
    files.write("ca.pem", &files.authority.pem());
    let (status, printed) = check(&["--auth", "mtls", "--tls-client-ca", &files.text("ca.pem")]);
    assert_eq!(status, Some(0), "{printed}");
    assert!(printed.contains("warning: auth is mtls, so nobody can log in at listen, 127.0.0.1:8080"), "{printed}");
    let (status, printed) = check(&["--tls-listen", "127.0.0.1:8080"]);
    assert!(status == Some(1) && printed.contains("listen and tls_listen are both 127.0.0.1:8080"), "{printed}");
    files.write_server(&files.authority.server());
    files.write("key.pem", "");
    let (status, printed) = check(&[]);
    assert!(status == Some(1) && printed.contains("wrong: ") && printed.contains("no private key"), "{printed}");
}
