//! What the product is built from: licences, sources and crates that are not wanted, as `deny.toml` says.
//! cargo-deny checks more where it is installed; this needs cargo alone.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn rules() -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    std::fs::read_to_string(path).expect("deny.toml").parse().expect("deny.toml is TOML")
}

/// Every package that some build of the product, its tests or benches takes.
fn packages() -> Vec<Value> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo can be started");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("metadata is JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn texts<'a>(values: &'a toml::Value, of: impl Fn(&'a toml::Value) -> &'a toml::Value) -> BTreeSet<&'a str> {
    let values = values.as_array().expect("a list").iter();
    values.map(|value| of(value).as_str().expect("a text")).collect()
}

/// Whether an SPDX expression can be satisfied with these licences. It is read from left to right, parts in
/// parentheses first; `AND` binds closer than `OR`.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    // The old form of OR, and parentheses as words of their own.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
    while let Some(close) = words.iter().position(|word| word == ")") {
        let open = words[..close].iter().rposition(|word| word == "(").expect("an opening parenthesis");
        let inner = is_allowed(&words[open + 1..close].join(" "), allowed);
        words.splice(open..=close, [if inner { "yes" } else { "no" }.to_owned()]);
    }
    let text = words.join(" ");
    text.split(" OR ").any(|all| all.split(" AND ").all(|one| one == "yes" || allowed.contains(one)))
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed_and_comes_from_crates_io() {
    let rules = rules();
    let allowed = texts(&rules["licenses"]["allow"], |licence| licence);
    let unwanted = texts(&rules["bans"]["deny"], |entry| &entry["crate"]);
    assert!(allowed.len() > 3 && unwanted.contains("openssl-sys"));
    let (mut wrong, packages) = (Vec::new(), packages());
    for package in packages.iter().filter(|package| package["name"] != "shoprelay") {
        let name = package["name"].as_str().expect("a name");
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_allowed(licence, &allowed) {
            wrong.push(format!("{name} has the licence {licence}"));
        }
        if package["source"] != CRATES_IO {
            wrong.push(format!("{name} comes from {}", package["source"]));
        }
        if unwanted.contains(name) {
            wrong.push(format!("{name} is not wanted; see deny.toml"));
        }
    }
    assert!(packages.len() > 100 && wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn licences_are_read_as_spdx_says() {
    let allowed = BTreeSet::from(["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]);
    for good in
        ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "MIT AND ISC", "(MIT OR GPL-3.0) AND ISC", "GPL-3.0 OR (MIT AND ISC)"]
    {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-3.0", &allowed));
    for bad in ["none", "GPL-3.0", "MIT AND GPL-3.0", "(MIT AND GPL-3.0) OR GPL-2.0", "Apache-2.0"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

#[test]
fn there_is_no_unsafe_code_and_there_can_be_none() {
    let manifest =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("Cargo.toml");
    let manifest: toml::Table = manifest.parse().expect("Cargo.toml is TOML");
    assert_eq!(manifest["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"), "the compiler sees to the rest");
}
