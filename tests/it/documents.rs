//! The README against the code: every setting and every metric is there, with what it really is.

use std::path::Path;

use shoprelay::config::{Kind, SETTINGS};

use crate::harness::World;

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

#[test]
fn the_readme_lists_every_setting_with_its_default() {
    let readme = readme();
    for setting in SETTINGS.iter().filter(|setting| setting.kind != Kind::Later) {
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
