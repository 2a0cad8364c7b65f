//! The architecture page against the code: imports go down, and every outside library has one owner.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The row of each module in the table of `src/lib.rs`, 0 at the top.
fn rows() -> BTreeMap<String, usize> {
    let page = std::fs::read_to_string(source().join("lib.rs")).unwrap();
    let table =
        page.split("```text\n").nth(1).and_then(|rest| rest.split("//! ```").next()).expect("the table of layers");
    let mut rows = BTreeMap::new();
    for (row, line) in table.lines().enumerate() {
        let names = line.trim_start_matches("//! ").split("   ").next().unwrap_or_default();
        rows.extend(names.split_whitespace().map(|name| (name.to_owned(), row)));
    }
    rows
}

/// The module of the crate that a file belongs to.
fn module_of(file: &Path) -> String {
    let relative = file.strip_prefix(source()).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn every_import_goes_down_the_layers() {
    let rows = rows();
    let mut wrong = Vec::new();
    for file in source_files(&source()) {
        let module = module_of(&file);
        if module == "lib" || module == "main" {
            continue;
        }
        let row = *rows.get(&module).unwrap_or_else(|| panic!("{module} stands in no row of the table in src/lib.rs"));
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for used in line.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
                if used != module && rows.get(used).is_none_or(|below| *below <= row) {
                    wrong.push(format!("{}:{}: {module} uses {used}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_outside_library_has_one_owner() {
    let owners = [
        ("fred::", &["store/redis"][..]),
        ("redb::", &["store/embedded"]),
        ("fastwebsockets::", &["socket"]),
        ("hyper::", &["http"]),
        ("jsonwebtoken::", &["auth"]),
        (" ring::", &["auth"]),
        ("tokio_rustls::", &["auth", "bench/link.rs", "client/dial.rs", "http/tls.rs", "store/redis", "trust.rs"]),
        ("x509_parser::", &["auth"]),
        ("subtle::", &["auth"]),
        ("rmp_serde::", &["protocol", "store", "client", "properties"]),
        ("tokio_tungstenite::", &["client"]),
        ("metrics_exporter_prometheus::", &["metrics.rs", "node.rs"]),
        ("clap::", &["main.rs"]),
    ];
    let mut wrong = Vec::new();
    for file in source_files(&source()) {
        let relative = file.strip_prefix(source()).unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        for (library, allowed) in owners {
            let uses = text.lines().any(|line| line.contains(library) && !line.trim_start().starts_with("//"));
            if uses && !allowed.iter().any(|owner| relative.starts_with(owner)) {
                wrong.push(format!("{relative} uses {library}"));
            }
        }
        let has_macro = ["counter!(", "gauge!(", "histogram!("].iter().any(|name| text.contains(name));
        if has_macro && relative != "metrics.rs" {
            wrong.push(format!("{relative} makes metrics of its own"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_decides_never_awaits_logs_or_reads_a_clock() {
    let mut wrong = Vec::new();
    for file in
        source_files(&source()).iter().filter(|file| ["session", "protocol"].contains(&module_of(file).as_str()))
    {
        let text = std::fs::read_to_string(file).unwrap();
        let library = text.split("#[cfg(test)]").next().unwrap_or_default();
        if file.ends_with("tests.rs") {
            continue;
        }
        for word in [".await", "async fn", "tracing::", "Instant::now", "SystemTime", "unix_ms"] {
            if library.contains(word) {
                wrong.push(format!("{} has {word}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
