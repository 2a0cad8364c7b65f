//! Ids and rows.

use super::*;
use crate::ids::NodeId;
use crate::message::{Membership, Origin, Role};

#[test]
fn ids_go_on_where_the_clock_goes_back() {
    let head = MessageId { ms: 10, n: 3 };
    assert_eq!(next_id(head, 11), MessageId { ms: 11, n: 0 });
    assert_eq!(next_id(head, 10), MessageId { ms: 10, n: 4 });
    assert_eq!(next_id(head, 5), MessageId { ms: 10, n: 4 });
    assert_eq!(next_id(MessageId { ms: 10, n: u64::MAX }, 5), MessageId { ms: 11, n: 0 });
}

#[test]
fn rows_survive_their_bytes() {
    let mut fate = Fate::default();
    fate.deal(&"done".parse().unwrap(), &Origin::Device { device: "店".parse().unwrap(), role: Role::Main });
    fate.unseen_by.push("a".parse().unwrap());
    let read: Fate = decode("fates", &encode("fates", &fate).unwrap()).unwrap();
    assert_eq!((read.dealt(), &read.unseen_by), (fate.dealt(), &fate.unseen_by));
    let (holder, later) = (NodeId::fresh(), NodeId::fresh());
    let mut row = DeviceRow::new(Role::Sub, 7, MessageId { ms: 5, n: 1 });
    row.come(&holder, &"c.1".parse().unwrap(), &holder, 9);
    let read: DeviceRow = decode("devices", &encode("devices", &row).unwrap()).unwrap();
    assert_eq!((read.first_seen, read.registered_at, &read.membership().groups), (7, row.registered_at, &Vec::new()));
    let membership = Membership { groups: vec!["g".parse().unwrap()], user: Some("u".parse().unwrap()) };
    row.set_membership(membership.clone());
    let read: DeviceRow = decode("devices", &encode("devices", &row).unwrap()).unwrap();
    assert_eq!(read.membership(), membership);
    assert_eq!(read.presence(&holder).map(|presence| presence.since), Some(9));
    assert!(read.presence(&later).is_none(), "another process wrote it");
    assert!(decode::<DeviceRow>("devices", b"\xc1").is_err());
}
