//! The rule by which certificates name devices, its refusals above all.

use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::*;

/// Whom a certificate with these SAN URIs and this subject names.
fn named(uris: &[&str], subject: &[(DnType, &str)]) -> Result<(String, String), Unnamed> {
    let mut params = CertificateParams::new(vec!["a-dns-name".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, text) in subject {
        params.distinguished_name.push(kind.clone(), *text);
    }
    params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let read = ClientCertificate::read(&[certificate.der().clone()], 0).unwrap();
    read.names().map(|(shop, device)| (shop.as_str().to_owned(), device.as_str().to_owned()))
}

fn both(shop: &str, device: &str) -> Result<(String, String), Unnamed> {
    Ok((shop.to_owned(), device.to_owned()))
}

const SUBJECT: [(DnType, &str); 2] = [(DnType::OrganizationName, "s2"), (DnType::CommonName, "till-2")];

#[test]
fn a_uri_counts_before_the_subject() {
    assert_eq!(named(&["shoprelay://s1/till-1"], &SUBJECT), both("s1", "till-1"));
    assert_eq!(named(&["ShopRelay://s1/till-1"], &SUBJECT), both("s1", "till-1"));
    assert_eq!(named(&["https://example.org/x", "shoprelay://s1/till-1"], &SUBJECT), both("s1", "till-1"));
    assert_eq!(named(&[], &SUBJECT), both("s2", "till-2"));
    assert_eq!(named(&["https://example.org/x", "urn:x"], &SUBJECT), both("s2", "till-2"));
    let utf8 = [(DnType::OrganizationName, "川香 1号"), (DnType::CommonName, "收银台")];
    assert_eq!(named(&[], &utf8), both("川香 1号", "收银台"));
}

#[test]
fn both_parts_of_a_uri_are_percent_encoded() {
    assert_eq!(named(&["shoprelay://%E5%B7%9D%e9%A6%99/bar%2F1%20%25"], &[]), both("川香", "bar/1 %"));
    for bad in [
        "shoprelay://",
        "shoprelay://s1",
        "shoprelay://s1/a/b",
        "shoprelay://s1/a?x",
        "shoprelay://s1/a#x",
        "shoprelay://s1/a%",
        "shoprelay://s1/a%2",
        "shoprelay://s1/a%zz",
        "shoprelay://s1/%ff",
    ] {
        assert_eq!(named(&[bad], &SUBJECT), Err(Unnamed::Uri), "{bad}");
    }
    for bad in ["shoprelay:///till-1", "shoprelay://s1/", "shoprelay://s1/a%0A", "shoprelay://%7Bs1%7D/a"] {
        assert!(matches!(named(&[bad], &SUBJECT), Err(Unnamed::Name(_))), "{bad}");
    }
}

#[test]
fn who_is_named_twice_or_not_at_all_is_nobody() {
    let two = ["shoprelay://s1/a", "shoprelay://s1/b"];
    assert_eq!(named(&two, &SUBJECT), Err(Unnamed::Several));
    assert_eq!(named(&[], &SUBJECT[..1]), Err(Unnamed::Absent));
    assert_eq!(named(&[], &SUBJECT[1..]), Err(Unnamed::Absent));
    assert_eq!(named(&[], &[]), Err(Unnamed::Absent));
    let long = "x".repeat(65);
    let subject = [(DnType::OrganizationName, long.as_str()), (DnType::CommonName, "till-2")];
    assert!(matches!(named(&[], &subject), Err(Unnamed::Name(IdError::TooLong { .. }))));
}
