//! What clients and back ends may say, and what is made of it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a property that does not hold panics")]

use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::attrs::{Attrs, AttrsChange};
use crate::ids::MessageId;
use crate::message::{Audience, Content, Entry, Message, Origin, Role, Signal};
use crate::protocol::legacy::{self, AdminOp, Frame};
use crate::protocol::{
    ClientOp, Encoding, FrameKind, Notify, Opening, Refused, ServerOp, body, decode, encode, message_frame, open,
    open_any, plain_ack, signal_frame,
};
use crate::store::record;

const ID: MessageId = MessageId { ms: 1_700_000_000_000, n: 2 };

pub fn native_json(frame: &[u8]) {
    native(Encoding::Json, frame);
}

pub fn native_msgpack(frame: &[u8]) {
    native(Encoding::MsgPack, frame);
}

/// Whatever a device sends is refused, in an answer that can be written and is not much longer than what it
/// answers, or it means something that can be stored and told to devices of both encodings.
fn native(encoding: Encoding, frame: &[u8]) {
    let opening = match open(encoding, FrameKind::of(encoding), frame) {
        Ok(opening) => opening,
        Err(refused) => return answerable(encoding, &refused, frame),
    };
    let pong = encode(encoding, &ServerOp::Pong { reference: opening.reference.clone() }).unwrap();
    let mirrored = open(encoding, FrameKind::of(encoding), &pong).unwrap();
    assert_eq!(mirrored.reference, opening.reference, "a ref comes back as it was");
    let plain_ack = plain_ack(encoding, FrameKind::of(encoding), frame);
    let any = open_any(encoding, FrameKind::of(encoding), frame).unwrap();
    assert_eq!((&any.reference, &any.op), (&opening.reference, &opening.op), "however it is read");
    let any = decode(encoding, any, frame);
    let op = match decode(encoding, opening, frame) {
        Ok(frame) => {
            assert_eq!(format!("{:?}", any.unwrap().op), format!("{:?}", frame.op), "however it is read");
            frame.op
        }
        Err(refused) => {
            assert_eq!(plain_ack, None, "{refused:?}");
            assert!(!refused.malformed, "a frame with an opening is not malformed: {refused:?}");
            return answerable(encoding, &refused, frame);
        }
    };
    if let Some(id) = plain_ack {
        assert!(matches!(op, ClientOp::Ack(acked) if acked == id), "{op:?}");
    }
    match op {
        ClientOp::Notify(notify) => carried(&message(*notify)),
        ClientOp::Attrs(Some(AttrsChange::Set(attrs) | AttrsChange::Patch(attrs))) => is_json(attrs.as_str(), "{"),
        ClientOp::Login(login) => login.meta.iter().for_each(|meta| is_json(meta, "{")),
        ClientOp::Call(call) => call.data.iter().for_each(|data| is_json(data, "")),
        ClientOp::List(list) => assert!((1..=500).contains(&list.limit)),
        _ => {}
    }
}

/// Whatever a legacy client sends is echoed, refused, or means something as natively; what is kept of it for
/// other legacy clients is an object of no more than its own bytes.
pub fn legacy_frame(frame: &[u8]) {
    assert!(matches!(legacy::read(FrameKind::Binary, frame), Frame::Raw(None)));
    match legacy::read(FrameKind::Text, frame) {
        Frame::Login(Err(problem)) => brief(&problem, frame),
        Frame::Notify(notify) => match *notify {
            Ok(notify) => legacy_notify(notify, frame),
            Err(problem) => brief(&problem, frame),
        },
        Frame::Raw(Some(admin)) => {
            if let AdminOp::SendMessages { content, to } = &admin.op {
                // What is no UTF-8 becomes U+FFFD, which has three bytes.
                assert!(content.len() + to.iter().map(String::len).sum::<usize>() <= 3 * frame.len());
            }
        }
        Frame::Login(Ok(_)) | Frame::Logout | Frame::Raw(None) => {}
    }
}

fn legacy_notify(notify: legacy::LegacyNotify, frame: &[u8]) {
    for kept in [&notify.kept_of_message, &notify.kept_of_signal] {
        is_json(kept.get(), "{");
        assert!(kept.get().len() <= 2 * frame.len() + 2, "{}", kept.get());
    }
    let content = |legacy: Box<RawValue>| Content {
        from: origin(),
        to: Audience::Mains,
        except: Vec::new().into(),
        kind: notify.kind.clone(),
        table: notify.table.clone(),
        data: notify.data.clone(),
        user_info: notify.user_info.clone(),
        legacy: Some(legacy),
    };
    let status = notify.status.clone().unwrap_or_else(|| "open".parse().unwrap());
    let sent = Message { content: content(notify.kept_of_message.clone()), status, ttl: None, receipt: false };
    carried(&sent);
    let signal = Signal { at_ms: ID.ms, content: content(notify.kept_of_signal.clone()) };
    let stored = record::encode_signal(&signal).unwrap();
    let read = record::decode_signal(&stored).unwrap();
    assert_eq!(legacy::signal(&"s1".parse().unwrap(), &read).unwrap(), notify.kept_of_signal.get().as_bytes());
}

/// Whatever a back end sends as a body is refused in few words, or means something.
pub fn api_body(bytes: &[u8]) {
    match body::notify(bytes) {
        Ok(notify) => carried(&message(notify)),
        Err(problem) => brief(&problem, bytes),
    }
    match body::attrs(AttrsChange::Set, bytes) {
        Ok(AttrsChange::Set(attrs) | AttrsChange::Patch(attrs)) => is_json(attrs.as_str(), "{"),
        Err(problem) => brief(&problem, bytes),
    }
    if let Err(problem) = body::deal(ID, bytes) {
        brief(&problem, bytes);
    }
    if let Err(problem) = body::close(bytes) {
        brief(&problem, bytes);
    }
    if let Err(problem) = body::broadcast(bytes) {
        brief(&problem, bytes);
    }
}

/// Two objects with a line break between: a patch comes out as RFC 7396 says, and the second time it changes
/// nothing.
pub fn attrs(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (target, patch) = text.split_once('\n').unwrap_or((&text, "{}"));
    let (Ok(target), Ok(patch)) = (Attrs::parse(target), Attrs::parse(patch)) else { return };
    let change = AttrsChange::Patch(patch.clone());
    let merged = target.changed(&change);
    is_json(merged.as_str(), "{");
    // A short number may be written out, `1e15`, and an escape may be one character.
    assert!(merged.as_str().len() <= 8 * (target.as_str().len() + patch.as_str().len()));
    assert_eq!(merged.changed(&change), merged);
    let (merged, patch): (Json, Json) = (read(merged.as_str()), read(patch.as_str()));
    let before: Json = read(target.as_str());
    for (name, value) in patch.as_object().unwrap() {
        match value {
            Json::Null => assert!(merged.get(name).is_none()),
            Json::Object(_) => assert!(merged[name].is_object()),
            value => assert_eq!(&merged[name], value),
        }
    }
    for (name, value) in before.as_object().unwrap().iter().filter(|(name, _)| patch.get(name).is_none()) {
        assert_eq!(&merged[name], value);
    }
}

/// A stored record is refused, or means something that is written as it is read.
pub fn record(bytes: &[u8]) {
    if let Ok(entry) = record::decode_entry(bytes) {
        let written = |entry: &Entry| match entry {
            Entry::Message(message) => record::encode_message(message).unwrap(),
            Entry::Status(change) => record::encode_status(change).unwrap(),
            Entry::Membership(change) => record::encode_membership(change).unwrap(),
        };
        let first = written(&entry);
        assert_eq!(written(&record::decode_entry(&first).unwrap()), first);
        if let Entry::Message(message) = &entry {
            told(message);
        }
    }
    if let Ok(signal) = record::decode_signal(bytes) {
        let first = record::encode_signal(&signal).unwrap();
        assert_eq!(record::encode_signal(&record::decode_signal(&first).unwrap()).unwrap(), first);
        // A value in it may be none; then it is told to nobody.
        drop((signal_frame(Encoding::Json, &signal), signal_frame(Encoding::MsgPack, &signal)));
        drop(legacy::signal(&"s1".parse().unwrap(), &signal));
    }
    if let Ok(broadcast) = record::decode_broadcast(bytes) {
        let first = record::encode_broadcast(&broadcast).unwrap();
        assert_eq!(record::encode_broadcast(&record::decode_broadcast(&first).unwrap()).unwrap(), first);
    }
    if let Ok(receipt) = record::decode_receipt(bytes) {
        let first = record::encode_receipt(&receipt).unwrap();
        assert_eq!(record::decode_receipt(&first).unwrap(), receipt);
    }
}

/// Tells a message that was read from the store, where a value may be none.
fn told(message: &Message) {
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        drop(message_frame(encoding, ID, message, None));
    }
    is_json(std::str::from_utf8(&legacy::push(7, &message.status, message)).unwrap(), "{");
}

/// A message that was taken from a client can be stored, and what is told of it means the same to a device
/// of either encoding.
fn carried(message: &Message) {
    let stored = record::encode_message(message).unwrap();
    let Entry::Message(read_back) = record::decode_entry(&stored).unwrap() else { panic!("no message") };
    assert_eq!(record::encode_message(&read_back).unwrap(), stored);
    is_json(std::str::from_utf8(&legacy::push(7, &message.status, message)).unwrap(), "{");
    let as_json = |message: &Message| -> Json {
        serde_json::from_slice(&message_frame(Encoding::Json, ID, message, None).unwrap()).unwrap()
    };
    let wanted = as_json(&read_back);
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        let frame = message_frame(encoding, ID, message, None).unwrap();
        // What a device is told has the fields of what a device says.
        let opening = Opening { reference: None, op: "notify".into(), notify: None };
        let ClientOp::Notify(notify) = decode(encoding, opening, &frame).unwrap().op else { panic!("no notify") };
        assert_eq!(as_json(&self::message(*notify)), wanted, "{encoding:?}");
    }
}

fn message(notify: Notify) -> Message {
    let content = Content {
        from: origin(),
        to: notify.to.unwrap_or(Audience::Mains),
        except: notify.except,
        kind: notify.kind,
        table: notify.table,
        data: notify.data,
        user_info: notify.user_info,
        legacy: None,
    };
    let status = notify.status.unwrap_or_else(|| "open".parse().unwrap());
    Message { content, status, ttl: notify.ttl, receipt: notify.receipt }
}

fn origin() -> Origin {
    Origin::Device { device: "hand-1".parse().unwrap(), role: Role::Sub }
}

fn answerable(encoding: Encoding, refused: &Refused, frame: &[u8]) {
    brief(&refused.message, frame);
    let answer = ServerOp::Error {
        reference: refused.reference.clone(),
        code: refused.code,
        message: &refused.message,
        retry_after_ms: None,
        status: None,
        by: None,
    };
    encode(encoding, &answer).unwrap();
}

/// A refusal may repeat what was refused once, escaped.
fn brief(problem: &str, frame: &[u8]) {
    assert!(problem.len() <= 10 * frame.len() + 512, "{} bytes for {}: {problem}", problem.len(), frame.len());
}

fn is_json(text: &str, opening: &str) {
    assert!(serde_json::from_str::<&RawValue>(text).is_ok(), "{text}");
    assert!(text.starts_with(opening), "{text}");
}

fn read(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}
