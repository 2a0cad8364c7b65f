//! What travels on the channels: the layout of the feed's events.
//!
//! One leading byte says what it is, then come ids, which hold no blank and no newline, and the
//! bytes of a record go to the end, so that a script builds it by joining and nothing is escaped:
//!
//! | event | layout |
//! | --- | --- |
//! | entry, by `publish.lua`, `set_status.lua` and `membership.lua` | `E<prev> <id> <publisher>\n<record>` |
//! | takeover, by `connect.lua` | `C<conn>\n<device>` |
//! | eviction, by `evict.lua` and `forget.lua` | `K<conn>\n<record of the last signal, or nothing>` |
//! | bar, by `bar.lua` | `X<conn, or nothing>\n<device>\n<record of the last signal, or nothing>` |
//! | signal | `S<publisher>\n<record>` |
//! | receipt | `R<record>` |
//! | broadcast, on the channel of all shops | `B<record>` |
//! | text for legacy connections, on the channel of all shops | `T<conn> <conn> …\n<text>` |
//!
//! Never talks to Redis. Called by [`super::feed`] and [`super`].

use crate::ids::{ConnId, IdError, ShopId};
use crate::message::Signal;
use crate::store::record::{self, RecordError};
use crate::store::{FeedEvent, LegacyText, Stored};

/// A payload that is none.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    #[error("the event has a layout that this version does not know")]
    Layout,
    #[error("the event names something that is no id")]
    Id(#[from] IdError),
    #[error("the event's record cannot be read")]
    Record(#[from] RecordError),
}

/// A signal of a node, given the signal's record.
pub fn signal(publisher: &str, record: &[u8]) -> Vec<u8> {
    [b"S", publisher.as_bytes(), b"\n", record].concat()
}

/// A receipt, given its record.
pub fn receipt(record: &[u8]) -> Vec<u8> {
    [b"R", record].concat()
}

/// A broadcast, given its record.
pub fn broadcast(record: &[u8]) -> Vec<u8> {
    [b"B", record].concat()
}

/// A text for legacy connections.
pub fn legacy_text(text: &LegacyText) -> Vec<u8> {
    let conns: Vec<&str> = text.conns.iter().map(ConnId::as_str).collect();
    format!("T{}\n{}", conns.join(" "), text.text).into_bytes()
}

/// The event of a payload on the channel of all shops.
///
/// # Errors
/// [`PayloadError`], as [`parse`].
pub fn parse_for_all(payload: &[u8]) -> Result<FeedEvent, PayloadError> {
    let (kind, rest) = payload.split_first().ok_or(PayloadError::Layout)?;
    match kind {
        b'B' => Ok(FeedEvent::Broadcast(record::decode_broadcast(rest)?)),
        b'T' => {
            let (conns, text) = split_line(rest)?;
            let conns = conns.split(' ').map(str::parse).collect::<Result<Vec<ConnId>, IdError>>()?;
            let text = std::str::from_utf8(text).map_err(|_| PayloadError::Layout)?.into();
            Ok(FeedEvent::LegacyText(LegacyText { conns, text }))
        }
        _ => Err(PayloadError::Layout),
    }
}

/// The event of a payload on a shop's channel.
///
/// # Errors
/// [`PayloadError`], also for an event of a later version that this one does not know.
pub fn parse(shop: ShopId, payload: &[u8]) -> Result<FeedEvent, PayloadError> {
    let (kind, rest) = payload.split_first().ok_or(PayloadError::Layout)?;
    match kind {
        b'E' => {
            let (ids, record) = split_line(rest)?;
            let mut ids = ids.split(' ');
            let (Some(prev), Some(id), Some(publisher), None) = (ids.next(), ids.next(), ids.next(), ids.next()) else {
                return Err(PayloadError::Layout);
            };
            let entry = record::decode_entry(record)?;
            let stored = Stored { id: id.parse()?, entry, dealt: None, unseen_by: Vec::new() };
            Ok(FeedEvent::Entry { shop, prev: prev.parse()?, stored, publisher: Some(publisher.parse()?) })
        }
        b'S' => {
            let (publisher, record) = split_line(rest)?;
            let signal = record::decode_signal(record)?;
            Ok(FeedEvent::Signal { shop, signal, publisher: Some(publisher.parse()?) })
        }
        b'R' => Ok(FeedEvent::Receipt { shop, receipt: record::decode_receipt(rest)? }),
        b'C' => {
            let (conn, device) = split_line(rest)?;
            let device = std::str::from_utf8(device).map_err(|_| PayloadError::Layout)?;
            Ok(FeedEvent::Replaced { shop, device: device.parse()?, conn: conn.parse()? })
        }
        b'K' => {
            let (conn, last) = split_line(rest)?;
            Ok(FeedEvent::Evicted { shop, conn: conn.parse()?, last: last_signal(last)? })
        }
        b'X' => {
            let (conn, rest) = split_line(rest)?;
            let (device, last) = split_line(rest)?;
            let conn = if conn.is_empty() { None } else { Some(conn.parse()?) };
            Ok(FeedEvent::Barred { shop, device: device.parse()?, conn, last: last_signal(last)? })
        }
        _ => Err(PayloadError::Layout),
    }
}

fn last_signal(record: &[u8]) -> Result<Option<Signal>, RecordError> {
    if record.is_empty() { Ok(None) } else { record::decode_signal(record).map(Some) }
}

/// The text before the first newline, and the bytes after it.
fn split_line(bytes: &[u8]) -> Result<(&str, &[u8]), PayloadError> {
    let end = bytes.iter().position(|&byte| byte == b'\n').ok_or(PayloadError::Layout)?;
    let (line, rest) = bytes.split_at_checked(end).ok_or(PayloadError::Layout)?;
    let line = std::str::from_utf8(line).map_err(|_| PayloadError::Layout)?;
    Ok((line, rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::MessageId;
    use crate::message::{Audience, Broadcast, Content, Origin, StatusChange, Value};
    use crate::store::Receipt;

    fn shop() -> ShopId {
        "s".parse().unwrap()
    }

    #[test]
    fn an_entry_is_read_whatever_bytes_its_record_holds() {
        let change = StatusChange {
            message: MessageId { ms: 10, n: 10 },
            status: "a b".parse().unwrap(),
            by: Origin::Api { name: "x".parse().unwrap() },
            sender: None,
        };
        let record = record::encode_status(&change).unwrap();
        assert!(record.contains(&b'\n'), "the record is to hold the separator");
        let payload = [b"E0-0 5-1 node-1\n", &record[..]].concat();
        let FeedEvent::Entry { prev, stored, publisher, .. } = parse(shop(), &payload).unwrap() else { panic!() };
        assert_eq!((prev, stored.id), (MessageId::ZERO, MessageId { ms: 5, n: 1 }));
        assert_eq!(publisher.unwrap().as_str(), "node-1");
        assert!(matches!(stored.entry, crate::message::Entry::Status(read) if read == change));
    }

    #[test]
    fn a_takeover_and_a_receipt_are_read() {
        let FeedEvent::Replaced { device, conn, .. } = parse(shop(), "Cnode.1\n店 1".as_bytes()).unwrap() else {
            panic!()
        };
        assert_eq!((device.as_str(), conn.as_str()), ("店 1", "node.1"));
        let sent = Receipt {
            sender: "a".parse().unwrap(),
            message: MessageId { ms: 1, n: 0 },
            device: "b".parse().unwrap(),
            at_ms: 2,
        };
        let payload = receipt(&record::encode_receipt(&sent).unwrap());
        let FeedEvent::Receipt { receipt, .. } = parse(shop(), &payload).unwrap() else { panic!() };
        assert_eq!(receipt, sent);
    }

    fn note() -> Signal {
        let content = Content {
            from: Origin::Api { name: "x".parse().unwrap() },
            to: Audience::All,
            except: Vec::new().into(),
            kind: "close".parse().unwrap(),
            table: None,
            data: Some(Value::MsgPack(b"\n\n".as_slice().into())),
            user_info: None,
            legacy: None,
        };
        Signal { at_ms: 7, content }
    }

    #[test]
    fn an_eviction_is_read_with_and_without_a_last_signal() {
        let FeedEvent::Evicted { conn, last, .. } = parse(shop(), b"Knode.1\n").unwrap() else { panic!() };
        assert_eq!((conn.as_str(), last.is_none()), ("node.1", true));
        let record = record::encode_signal(&note()).unwrap();
        let payload = [b"Knode.1\n", &record[..]].concat();
        let FeedEvent::Evicted { conn, last, .. } = parse(shop(), &payload).unwrap() else { panic!() };
        assert_eq!((conn.as_str(), format!("{:?}", last.unwrap())), ("node.1", format!("{:?}", note())));
    }

    #[test]
    fn a_bar_is_read_with_and_without_a_connection_and_a_last_signal() {
        let FeedEvent::Barred { device, conn, last, .. } = parse(shop(), "X\n店 1\n".as_bytes()).unwrap() else {
            panic!()
        };
        assert_eq!((device.as_str(), conn, last.is_none()), ("店 1", None, true));
        let payload = [b"Xnode.1\nd\n", &record::encode_signal(&note()).unwrap()[..]].concat();
        let FeedEvent::Barred { device, conn, last, .. } = parse(shop(), &payload).unwrap() else { panic!() };
        assert_eq!((device.as_str(), conn.unwrap().as_str()), ("d", "node.1"));
        assert_eq!(format!("{:?}", last.unwrap()), format!("{:?}", note()));
    }

    #[test]
    fn a_broadcast_is_read_on_its_own_channel_only() {
        let sent = Broadcast { signal: note(), except: vec!["node.1".parse().unwrap()].into() };
        let payload = broadcast(&record::encode_broadcast(&sent).unwrap());
        let FeedEvent::Broadcast(read) = parse_for_all(&payload).unwrap() else { panic!() };
        assert_eq!(format!("{read:?}"), format!("{sent:?}"));
        assert!(parse(shop(), &payload).is_err());
        for bad in [&b""[..], b"B", b"B\xc1", b"Knode.1\n", b"Z\x80"] {
            assert!(parse_for_all(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_legacy_text_is_read_as_it_was_on_its_own_channel_only() {
        for (conns, text) in [(vec!["node.1"], "a\nb\n\0 店"), (vec!["node.1", "n-2.17", "x"], "")] {
            let conns = conns.into_iter().map(|conn| conn.parse().unwrap()).collect();
            let sent = LegacyText { conns, text: text.into() };
            let payload = legacy_text(&sent);
            let FeedEvent::LegacyText(read) = parse_for_all(&payload).unwrap() else { panic!() };
            assert_eq!(read, sent);
            assert!(parse(shop(), &payload).is_err());
        }
        for bad in [&b"T"[..], b"Tn.1", b"T\nx", b"Tn.1 \nx", b"Tn.1  n.2\nx", b"Tn{1\nx", b"Tn.1\n\xff", b"T\xff\nx"] {
            assert!(parse_for_all(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_event_is_an_error_and_no_panic() {
        for bad in [
            &b""[..],
            b"E",
            b"E0-0 1-0\n",
            b"E0-0 1-0 n m\n",
            b"E0-0 x n\n\x80",
            b"Snode",
            b"Snode\n\xc1",
            b"Cn",
            b"K",
            b"Kn.1",
            b"Kn 1\n",
            b"Kn.1\n\xc1",
            b"X",
            b"X\n",
            b"Xn.1\nd",
            b"X\n\n",
            b"Xn 1\nd\n",
            b"X\nd\n\xc1",
            b"Zx",
            b"R",
        ] {
            assert!(parse(shop(), bad).is_err(), "{bad:?}");
        }
    }
}
