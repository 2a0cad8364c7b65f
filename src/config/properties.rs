//! What must hold of any settings file; see [`crate::properties`].

use super::{Layers, redacted_url};

/// Stands where a password does.
const PASSWORD: &str = "hunter2-hunter2";

/// A settings file is taken, or everything that is wrong with it is told; what is shown of it has no
/// password, wherever in an address that stands.
pub fn settings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let layers = Layers::of_file("settings.toml", &text);
    assert!(!layers.effective().is_empty());
    if let Err(problems) = layers.check() {
        assert!(!problems.is_empty());
        for problem in problems {
            assert!(problem.to_string().len() <= 10 * text.len() + 1024, "{problem}");
        }
    }
    for address in [
        format!("redis://till:{PASSWORD}@{text}"),
        format!("rediss://:{PASSWORD}@{text}?db=1"),
        format!("{}:{PASSWORD}@redis", text.replace("embedded:", "")),
        format!("redis://redis?{text}&password={PASSWORD}"),
    ] {
        let shown = redacted_url(&address);
        assert!(!shown.contains(PASSWORD) || text.contains("hunter2"), "{address:?} is shown as {shown:?}");
    }
}
