//! Records there and back.

use serde_json::value::RawValue;

use super::*;
use crate::message::{Audience, Content, Origin, Role, Value};

fn message() -> Message {
    Message {
        content: Content {
            from: Origin::Device { device: "h1".parse().unwrap(), role: Role::Sub },
            to: Audience::Devices(vec!["t1".parse().unwrap()].into()),
            except: vec!["t2".parse().unwrap()].into(),
            kind: "add".parse().unwrap(),
            table: Some("12".parse().unwrap()),
            data: Some(Value::Json(RawValue::from_string(r#"{"a": 1}"#.into()).unwrap())),
            user_info: Some(Value::MsgPack([0xc4, 1, 255].into())),
            legacy: None,
        },
        status: "open".parse().unwrap(),
        ttl: Some(Duration::from_secs(60)),
        receipt: true,
    }
}

/// [`message`], as it was stored before there were legacy devices.
const OF_AN_EARLIER_VERSION: &[u8] = b"\x81\xa1m\x84\xa1c\x87\xa1f\x81\xa1d\x92\xa2h1\xa3sub\xa1t\x81\xa1d\x91\xa2t1\xa1x\x91\xa2t2\xa1k\xa3add\xa1b\xa212\
    \xa1d\x81\xa1j\xa8{\"a\": 1}\xa1u\x81\xa1p\xc4\x03\xc4\x01\xff\xa1s\xa4open\xa1l<\xa1r\xc3";

#[test]
fn every_part_of_a_message_survives_the_record() {
    let sent = message();
    let Entry::Message(read) = decode_entry(&encode_message(&sent).unwrap()).unwrap() else { panic!() };
    assert_eq!(format!("{read:?}"), format!("{sent:?}"));
    let (Some(Value::Json(data)), Some(Value::MsgPack(user_info))) = (&read.content.data, &read.content.user_info)
    else {
        panic!()
    };
    assert_eq!(data.get(), r#"{"a": 1}"#);
    assert_eq!(user_info.as_ref(), [0xc4, 1, 255]);
}

#[test]
fn what_a_legacy_device_gave_survives_the_record_and_costs_nothing_where_there_is_none() {
    let without = encode_message(&message()).unwrap();
    let mut sent = message();
    let text = r#"{"table_id": 12, "n": 9007199254740993}"#;
    sent.content.legacy = Some(RawValue::from_string(text.to_owned()).unwrap());
    let with = encode_message(&sent).unwrap();
    let Entry::Message(read) = decode_entry(&with).unwrap() else { panic!() };
    assert_eq!(read.content.legacy.unwrap().get(), text);
    let key_and_length = 4;
    assert_eq!(with.len(), without.len() + text.len() + key_and_length);
    assert_eq!(without, OF_AN_EARLIER_VERSION);
    let Entry::Message(read) = decode_entry(OF_AN_EARLIER_VERSION).unwrap() else { panic!() };
    assert!(read.content.legacy.is_none());

    // What is no JSON, as long as what it takes the place of.
    let at = with.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    let mut broken = with.clone();
    broken[at] = b'x';
    assert!(matches!(decode_entry(&broken), Err(RecordError::Json(_))));
}

#[test]
fn a_status_change_and_a_receipt_survive_the_record() {
    let change = StatusChange {
        message: MessageId { ms: u64::MAX, n: 3 },
        status: "done".parse().unwrap(),
        by: Origin::Api { name: "pos".parse().unwrap() },
        sender: Some("h1".parse().unwrap()),
    };
    let Entry::Status(read) = decode_entry(&encode_status(&change).unwrap()).unwrap() else { panic!() };
    assert_eq!(read, change);
    let receipt = Receipt {
        sender: "a".parse().unwrap(),
        message: MessageId { ms: 5, n: 0 },
        device: "b".parse().unwrap(),
        at_ms: 7,
    };
    assert_eq!(decode_receipt(&encode_receipt(&receipt).unwrap()).unwrap(), receipt);
}

#[test]
fn every_change_of_membership_survives_the_record() {
    let name = || "店 1".parse().unwrap();
    for step in [
        MembershipStep::Join(name()),
        MembershipStep::Leave(name()),
        MembershipStep::Bind(name()),
        MembershipStep::Unbind(Some(name())),
        MembershipStep::Unbind(None),
    ] {
        for device in [None, Some("t1".parse().unwrap())] {
            let change = MembershipChange { device, step: step.clone() };
            let Entry::Membership(read) = decode_entry(&encode_membership(&change).unwrap()).unwrap() else { panic!() };
            assert_eq!(read, change);
        }
    }
}

#[test]
fn a_broadcast_survives_the_record() {
    let signal = Signal { at_ms: 7, content: message().content };
    for except in [Vec::new(), vec!["n.1".parse().unwrap(), "n.2".parse().unwrap()]] {
        let sent = Broadcast { signal: signal.clone(), except: except.into() };
        let read = decode_broadcast(&encode_broadcast(&sent).unwrap()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{sent:?}"));
    }
}

#[test]
fn a_small_message_has_a_small_record() {
    let bytes = encode_message(&message()).unwrap();
    assert!(bytes.len() < 100, "{} bytes", bytes.len());
}

#[test]
fn a_record_of_another_kind_is_an_error_and_no_panic() {
    assert!(decode_entry(b"").is_err());
    assert!(decode_entry(b"\x81\xa1z\x80").is_err());
    // A step that a later version may know, a name that is none, and a connection that is none.
    assert!(decode_entry(b"\x81\xa1g\x81\xa1s\x81\xa1z\xa1n").is_err());
    assert!(decode_entry(b"\x81\xa1g\x81\xa1s\x81\xa1j\xa1{").is_err());
    for bad in [&b""[..], b"\x80", b"\x82\xa1s\x80\xa1x\x90", b"\x81\xa1x\x91\xa1 "] {
        assert!(decode_broadcast(bad).is_err(), "{bad:?}");
    }
}

/// It was read to the library's own limit of 1024 levels, and the stack of a debug build was not enough for that.
#[test]
fn a_record_that_is_nested_without_end_is_refused() {
    for nested in [&b"\x91"[..], b"\x81\xa1a"] {
        for levels in [DEPTH_MAX, 1000, 60_000] {
            let record = [b"\x81\xa1m\x82\xa1z", &nested.repeat(levels)[..], b"\xc0"].concat();
            assert!(decode_entry(&record).is_err() && decode_receipt(&record).is_err(), "{levels}");
        }
    }
}
