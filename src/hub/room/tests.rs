//! One room, driven by hand.

use super::*;
use crate::ids::NodeId;
use crate::message::{Audience, Content, MembershipChange, MembershipStep, Message, Origin, Role};

fn id(ms: u64) -> MessageId {
    MessageId { ms, n: 0 }
}

fn push(ms: u64) -> Arc<Push> {
    let content = Content {
        from: Origin::Device { device: "hand".parse().unwrap(), role: Role::Sub },
        to: Audience::Mains,
        except: Vec::new().into(),
        kind: "t".parse().unwrap(),
        table: None,
        data: None,
        user_info: None,
        legacy: None,
    };
    let message = Message { content, status: "open".parse().unwrap(), ttl: None, receipt: false };
    Arc::new(Push::new(id(ms), Entry::Message(message), None, false))
}

/// The only member of its room.
fn till(outbox: Arc<Outbox>) -> Member {
    let node: NodeId = "n".parse().unwrap();
    Member {
        conn: ConnId::of(&node, 1),
        device: "till".parse().unwrap(),
        role: Role::Main,
        membership: Membership::default(),
        member_as_of: MessageId::ZERO,
        since_ms: 0,
        outbox,
    }
}

fn room_at(position: u64) -> (Room, Arc<Outbox>) {
    let room = Room::new("s".parse().unwrap(), 100, Instant::now());
    let outbox = Arc::new(Outbox::default());
    let member = till(outbox.clone());
    assert!(!room.join(member, id(position)));
    assert_eq!(room.attach(&outbox), id(position));
    (room, outbox)
}

fn taken(outbox: &Outbox) -> Vec<u64> {
    let parcels = outbox.take().parcels;
    parcels.iter().filter_map(|parcel| if let Parcel::Entry(push) = parcel { Some(push.id.ms) } else { None }).collect()
}

#[test]
fn an_entry_at_its_place_in_the_chain_goes_straight_through() {
    let (room, outbox) = room_at(10);
    assert_eq!(room.on_entry(id(10), &push(11)), Applied::Taken);
    assert_eq!(room.on_entry(id(10), &push(11)), Applied::Old);
    assert_eq!(room.on_entry(id(11), &push(12)), Applied::Taken);
    assert_eq!(taken(&outbox), [11, 12]);
}

#[test]
fn a_gap_is_read_once_and_what_is_heard_meanwhile_is_not_lost() {
    let (room, outbox) = room_at(10);
    assert_eq!(room.on_entry(id(11), &push(12)), Applied::Gap);
    assert_eq!(room.on_entry(id(12), &push(13)), Applied::Noted, "somebody reads already");
    let reading = room.begin_reading().unwrap();
    assert_eq!(reading.from, id(10));
    assert_eq!(room.on_entry(id(13), &push(14)), Applied::Noted);
    for ms in [11, 12] {
        room.on_replay(&push(ms), &reading);
    }
    assert!(room.caught_up(id(12), &reading), "14 was heard of");
    let reading = room.begin_reading().unwrap();
    room.on_replay(&push(13), &reading);
    assert!(!room.caught_up(id(13), &reading), "14 was not in the log, so it was trimmed");
    assert_eq!(taken(&outbox), [11, 12, 13]);
    assert_eq!(room.on_entry(id(13), &push(15)), Applied::Taken);
}

#[test]
fn what_is_heard_before_the_position_is_known_is_read_later() {
    let room = Room::new("s".parse().unwrap(), 100, Instant::now());
    assert_eq!(room.on_entry(id(10), &push(11)), Applied::Noted);
    let member = till(Arc::default());
    assert!(room.join(member, id(10)), "the login saw the head before 11 was stored");
}

#[test]
fn a_lost_last_entry_is_found_by_its_head() {
    let (room, _) = room_at(10);
    assert_eq!(room.check_head(id(10), id(10)), HeadCheck::Fine);
    assert_eq!(room.check_head(id(10), id(11)), HeadCheck::Behind);
    assert_eq!(room.check_head(id(10), id(11)), HeadCheck::Fine, "somebody reads already");
    let (room, _) = room_at(10);
    assert_eq!(room.check_head(id(10), id(9)), HeadCheck::Rewound);
}

#[test]
fn a_rewound_log_is_seen_by_its_prev() {
    let (room, outbox) = room_at(10);
    assert_eq!(room.on_entry(id(8), &push(20)), Applied::Rewound);
    room.rewind(id(20), |_| Some((id(7), Membership::default())));
    assert_eq!(outbox.take().rewound.map(|rewound| rewound.cursor), Some(id(7)));
    assert!(!outbox.is_live());
}

#[test]
fn a_full_outbox_falls_behind_and_says_where() {
    let (room, outbox) = room_at(0);
    for ms in 1..=200 {
        assert_eq!(room.on_entry(id(ms - 1), &push(ms)), Applied::Taken);
    }
    let taken = outbox.take();
    assert_eq!(taken.parcels.len(), 128);
    assert_eq!(taken.fell_behind_at, Some(id(128)));
    assert_eq!(room.attach(&outbox), id(200));
}

#[test]
fn only_the_replaced_connection_is_closed() {
    let (room, outbox) = room_at(0);
    room.replaced(&"n.2".parse().unwrap());
    assert_eq!(outbox.take().close, None);
    room.replaced(&"n.1".parse().unwrap());
    assert_eq!(outbox.take().close.map(|close| close.code), Some(CloseCode::Replaced));
}

#[test]
fn a_takeover_that_is_heard_before_its_login_has_joined_is_not_lost() {
    let room = Room::new("s".parse().unwrap(), 100, Instant::now());
    room.hold();
    let outbox = Arc::new(Outbox::default());
    let member = till(outbox.clone());
    room.replaced(&member.conn);
    room.join(member, id(0));
    assert_eq!(outbox.take().close.map(|close| close.code), Some(CloseCode::Replaced));
}

/// A change between the login's reading of the registry and its joining the room reached the members
/// that were there, and not the one that was on its way: it never saw what its new group was sent.
#[test]
fn a_membership_that_changes_during_a_login_is_not_missed() {
    let (room, _) = room_at(10);
    // The till's, and that of the login under way.
    room.hold();
    room.hold();
    let step = MembershipStep::Join("bar".parse().unwrap());
    let change = MembershipChange { device: Some("hand".parse().unwrap()), step };
    let entry = Arc::new(Push::new(id(11), Entry::Membership(change), None, false));
    assert_eq!(room.on_entry(id(10), &entry), Applied::Taken);
    let outbox = Arc::new(Outbox::default());
    let node: NodeId = "n".parse().unwrap();
    let hand = Member {
        conn: ConnId::of(&node, 2),
        device: "hand".parse().unwrap(),
        role: Role::Sub,
        member_as_of: id(10),
        ..till(outbox.clone())
    };
    room.join(hand, id(10));
    room.attach(&outbox);
    let mut to_group = push(12);
    let message = Arc::get_mut(&mut to_group).unwrap();
    let Entry::Message(of_group) = &mut message.entry else { panic!() };
    of_group.content.to = Audience::Group("bar".parse().unwrap());
    of_group.content.from = Origin::Api { name: "x".parse().unwrap() };
    assert_eq!(room.on_entry(id(11), &to_group), Applied::Taken);
    assert_eq!(outbox.take().parcels.len(), 1);
}
