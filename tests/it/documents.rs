//! The README and the protocol page against the code: every setting, every metric and every request is
//! there, with what it really is.

use std::path::Path;

use shoprelay::config::{Kind, SETTINGS};

use crate::harness::World;

fn page(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn readme() -> String {
    page("README.md")
}

#[test]
fn the_readme_lists_every_setting_with_its_default() {
    let readme = readme();
    for setting in SETTINGS {
        let name = if setting.kind == Kind::File { setting.key.to_owned() } else { format!("--{}", setting.flag()) };
        let default = if setting.default.is_empty() { "none".to_owned() } else { format!("`{}`", setting.default) };
        let row = format!("| `{name}` | `{}` | {default} |", setting.variable());
        assert!(readme.contains(&row), "the README lacks the row {row}");
    }
}

#[tokio::test]
async fn the_readme_lists_every_metric_and_no_other() {
    let world = World::start(1).await;
    world.assert_serves().await;
    let (_, text) = world.nodes[0].get("/metrics").await;
    let readme = readme();
    let listed: Vec<&str> = readme.split('`').filter(|word| word.starts_with("shoprelay_")).collect();
    let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|line| line.split(' ').next());
    for name in typed {
        assert!(listed.contains(&name), "the README lacks the metric {name}");
    }
    for name in listed {
        assert!(include_str!("../../src/metrics.rs").contains(&format!("\"{name}\"")), "there is no metric {name}");
    }
}

#[tokio::test]
async fn the_protocol_page_lists_every_request_with_its_scope_and_no_other() {
    let world = World::embedded(&[]).await;
    let openapi = world.api(0).get("/openapi.json").await.json;
    let mut rows = Vec::new();
    for (path, operations) in openapi["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            let description = operation["description"].as_str().unwrap();
            let scope = description.split('`').nth(1).unwrap();
            let reach = if description.ends_with("for all shops.") { ", all shops" } else { "" };
            rows.push(format!("| `{} {path}` | {scope}{reach} |", method.to_uppercase()));
        }
    }
    let page = page("docs/protocol.md");
    for row in &rows {
        assert!(page.contains(row), "docs/protocol.md lacks the row {row}");
    }
    let listed = page.lines().filter(|line| line.starts_with("| `") && line.contains(" /v1/"));
    assert_eq!(listed.count(), rows.len());
}
