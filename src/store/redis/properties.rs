//! What must hold of anything that Redis may give; see [`crate::properties`].

#![allow(clippy::unwrap_used, reason = "a property that does not hold panics")]

use super::{hashes, payload};
use crate::ids::DeviceId;
use crate::store::FeedEvent;

/// What travels on a channel is refused, or is an event.
pub fn event(bytes: &[u8]) {
    drop(payload::parse("s1".parse().unwrap(), bytes));
    let Ok(event) = payload::parse_for_all(bytes) else { return };
    match event {
        FeedEvent::LegacyText(text) => assert_eq!(payload::legacy_text(&text), bytes),
        event => assert!(matches!(event, FeedEvent::Broadcast(_))),
    }
}

/// What a field or a string holds is refused, or is written as it was read.
pub fn field(bytes: &[u8]) {
    let device: DeviceId = "till-1".parse().unwrap();
    drop(hashes::device(device.clone(), bytes, Some("5-1")));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    drop((hashes::online(device.clone(), text), hashes::barred(device, text), hashes::dealt(text)));
    if let Some(devices) = hashes::unseen_by(text) {
        let names: Vec<&str> = devices.iter().map(DeviceId::as_str).collect();
        assert_eq!(names.join("\n"), text);
    }
    if let Some(origin) = hashes::origin(text) {
        assert_eq!(hashes::origin_text(&origin), text);
    }
    if let Some((shop, device)) = hashes::whose(text) {
        assert_eq!(hashes::whose_text(&shop, &device), text);
    }
    if let Some((shop, message)) = hashes::numbered(text) {
        assert_eq!(hashes::numbered(&hashes::numbered_text(&shop, message)), Some((shop, message)));
    }
    if let Some((at_ms, report)) = hashes::beat(text) {
        assert_eq!(hashes::beat(&format!("{at_ms} {}", hashes::report_text(&report))), Some((at_ms, report)));
    }
}
