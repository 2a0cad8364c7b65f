//! What fields and strings hold, and how it is read and written.
//!
//! Owns the forms that scripts and Rust share: the registry's record, a presence, a status, a beat, and those
//! of a connection and a number, which lead to a shop.
//! Names hold no control characters, so newlines join them. Never talks to Redis. Called by
//! [`super::scripts`] and [`super`].

use serde::Deserialize;

use crate::ids::{ConnId, DeviceId, MessageId, Name, NodeId, ShopId};
use crate::message::{Membership, Origin, Role};
use crate::store::record as stored;
use crate::store::{Barred, Dealt, Device, NodeReport, Online};

/// The record of `devices`, as `connect.lua` and `membership.lua` write it. Keys that this version does not know are
/// kept by the scripts and ignored here.
#[derive(Deserialize)]
struct DeviceRecord {
    role: Role,
    #[serde(default)]
    groups: Vec<Name>,
    #[serde(default)]
    user: Option<Name>,
    #[serde(default)]
    meta: Option<Box<str>>,
    first_seen: u64,
    last_seen: u64,
    registered_at: MessageId,
}

/// A registered device, from its fields in `devices` and `cursors`.
pub fn device(device: DeviceId, record: &[u8], cursor: Option<&str>) -> Option<Device> {
    let record: DeviceRecord = stored::read(record).ok()?;
    Some(Device {
        device,
        role: record.role,
        membership: Membership { groups: record.groups, user: record.user },
        meta: record.meta,
        first_seen_ms: record.first_seen,
        last_seen_ms: record.last_seen,
        registered_at: record.registered_at,
        cursor: cursor.map_or(Some(MessageId::ZERO), |cursor| cursor.parse().ok())?,
    })
}

/// A connected device, from its field in `online`.
pub fn online(device: DeviceId, presence: &str) -> Option<Online> {
    let mut parts = presence.split('\n');
    let conn: ConnId = parts.next()?.parse().ok()?;
    let node: NodeId = parts.next()?.parse().ok()?;
    let since_ms = parts.next()?.parse().ok()?;
    let role = role(parts.next()?)?;
    Some(Online { device, role, conn, node, since_ms })
}

/// A barred device, from its field in `barred`.
pub fn barred(device: DeviceId, text: &str) -> Option<Barred> {
    let (since_ms, by) = text.split_once('\n')?;
    Some(Barred { device, since_ms: since_ms.parse().ok()?, by: by.parse().ok()? })
}

/// Who dealt with a message, as `status` holds it.
pub fn origin_text(origin: &Origin) -> String {
    match origin {
        Origin::Device { device, role } => format!("d\n{device}\n{}", role.as_str()),
        Origin::Api { name } => format!("a\n{name}"),
    }
}

/// Reads what [`origin_text`] wrote.
pub fn origin(text: &str) -> Option<Origin> {
    let mut parts = text.split('\n');
    let origin = match (parts.next()?, parts.next()?, parts.next()) {
        ("d", device, Some(role_text)) => Origin::Device { device: device.parse().ok()?, role: role(role_text)? },
        ("a", name, None) => Origin::Api { name: name.parse().ok()? },
        _ => return None,
    };
    parts.next().is_none().then_some(origin)
}

/// A status, from its field in `status`.
pub fn dealt(text: &str) -> Option<Dealt> {
    let mut parts = text.splitn(3, '\n');
    let (status, _entry, by) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Dealt { status: status.parse().ok()?, by: origin(by)? })
}

/// The devices of a field in `expired`.
pub fn unseen_by(text: &str) -> Option<Vec<DeviceId>> {
    text.split('\n').map(|device| device.parse().ok()).collect()
}

/// Whose connection it is, as a node's `conns` holds it.
pub fn whose_text(shop: &ShopId, device: &DeviceId) -> String {
    format!("{shop}\n{device}")
}

/// Reads what [`whose_text`] wrote.
pub fn whose(text: &str) -> Option<(ShopId, DeviceId)> {
    let (shop, device) = text.split_once('\n')?;
    Some((shop.parse().ok()?, device.parse().ok()?))
}

/// Which message has a number, as the number's key holds it.
pub fn numbered_text(shop: &ShopId, message: MessageId) -> String {
    format!("{shop}\n{message}")
}

/// Reads what [`numbered_text`] wrote.
pub fn numbered(text: &str) -> Option<(ShopId, MessageId)> {
    let (shop, message) = text.split_once('\n')?;
    Some((shop.parse().ok()?, message.parse().ok()?))
}

/// A node's report, as `beat.lua` takes it.
pub fn report_text(report: &NodeReport) -> String {
    let NodeReport { connections, mains, subs, rooms, version } = report;
    format!("{connections} {mains} {subs} {rooms} {version}")
}

/// When a node beat, and its report, from its field in `nodes`. Earlier versions told less, and of what
/// this one cannot read only the time counts: a node that cannot be read lives all the same.
pub fn beat(text: &str) -> Option<(u64, NodeReport)> {
    let (at_ms, report) = text.split_once(' ')?;
    Some((at_ms.parse().ok()?, read_report(report).unwrap_or_default()))
}

fn read_report(text: &str) -> Option<NodeReport> {
    let parts: Vec<&str> = text.splitn(5, ' ').collect();
    let mut report = NodeReport::default();
    match parts.as_slice() {
        [connections, mains, subs, rooms, version] => {
            (report.connections, report.rooms) = (connections.parse().ok()?, rooms.parse().ok()?);
            (report.mains, report.subs) = (mains.parse().ok()?, subs.parse().ok()?);
            report.version = (*version).into();
        }
        // Of an earlier version, which did not tell roles apart.
        [connections, rooms, version] => {
            (report.connections, report.rooms) = (connections.parse().ok()?, rooms.parse().ok()?);
            report.version = (*version).into();
        }
        _ => return None,
    }
    Some(report)
}

fn role(text: &str) -> Option<Role> {
    [Role::Main, Role::Sub].into_iter().find(|role| role.as_str() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_survives_its_text() {
        for by in [
            Origin::Device { device: "店 1".parse().unwrap(), role: Role::Main },
            Origin::Device { device: "a".parse().unwrap(), role: Role::Sub },
            Origin::Api { name: "pos".parse().unwrap() },
        ] {
            assert_eq!(origin(&origin_text(&by)), Some(by.clone()));
            let field = format!("done\n5-0\n{}", origin_text(&by));
            assert_eq!(dealt(&field), Some(Dealt { status: "done".parse().unwrap(), by }));
        }
        for bad in ["", "d", "d\na", "d\na\nboss", "a\nx\ny", "z\nx"] {
            assert_eq!(origin(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_presence_is_read_and_a_broken_one_is_none() {
        let read = online("d".parse().unwrap(), "n.1\nn\n17\nsub").unwrap();
        assert_eq!((read.conn.as_str(), read.node.as_str(), read.since_ms, read.role), ("n.1", "n", 17, Role::Sub));
        assert_eq!(online("d".parse().unwrap(), "n.1\nn\nx\nsub"), None);
    }

    #[test]
    fn whose_a_connection_is_survives_its_text() {
        let (shop, device) = ("店 1".parse().unwrap(), "a b".parse().unwrap());
        assert_eq!(whose(&whose_text(&shop, &device)), Some((shop, device)));
        for bad in ["", "s", "s\n", "\nd", "s\nd\n"] {
            assert_eq!(whose(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn which_message_has_a_number_survives_its_text() {
        let (shop, message) = ("店 1".parse().unwrap(), MessageId { ms: u64::MAX, n: 3 });
        assert_eq!(numbered(&numbered_text(&shop, message)), Some((shop, message)));
        for bad in ["", "s", "s\n", "\n1-0", "s\n1", "s\n1-0\n"] {
            assert_eq!(numbered(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_beat_is_read_whichever_version_sent_it() {
        let sent = NodeReport { connections: 9, mains: 2, subs: 5, rooms: 3, version: "0.2.0".into() };
        assert_eq!(beat(&format!("17 {}", report_text(&sent))), Some((17, sent)));
        let unknown = NodeReport::default();
        assert_eq!(beat(&format!("17 {}", report_text(&unknown))), Some((17, unknown.clone())));
        let earlier = NodeReport { connections: 9, rooms: 3, version: "0.1.0".into(), ..NodeReport::default() };
        assert_eq!(beat("17 9 3 0.1.0"), Some((17, earlier)));
        for odd in ["17 ", "17 x", "17 1 2", "17 1 x 3 4 v", "17 1 2 3 4"] {
            assert_eq!(beat(odd), Some((17, unknown.clone())), "{odd:?}");
        }
        for bad in ["", "17", "x 1 2 3"] {
            assert_eq!(beat(bad), None, "{bad:?}");
        }
    }
}
