use super::*;

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::MsgPack];
const SENT: Mark = Mark { seq: 0x2a, due_ns: 0x1234_5678_9abc_def0 };

#[test]
fn an_order_has_the_size_that_was_asked_for() {
    for bytes in [ORDER_BYTES_MIN, 65, 100, 320, 4096] {
        assert_eq!(serde_json::to_vec(&Order::of(bytes)).unwrap().len(), bytes);
    }
}

#[test]
fn a_notify_carries_its_mark_and_is_decoded_by_the_relay() {
    for encoding in ENCODINGS {
        let mut template = Template::notify(encoding, 320, Some("subs"), Some(true)).unwrap();
        let (len, digits_at) = (template.len(), template.digits_at());
        let bytes = template.filled(SENT).to_vec();
        assert_eq!(bytes.len(), len);
        assert_eq!(&bytes[digits_at..digits_at + 24], b"0000002a123456789abcdef0");
        // Masked with zeros: behind a header of 8 bytes the payload is as it was.
        let payload = &bytes[8..];
        let kind = protocol::FrameKind::of(encoding);
        let opening = protocol::open(encoding, kind, payload).unwrap();
        assert!(protocol::decode(encoding, opening, payload).is_ok());
        assert_eq!(answered(payload), Some(0x2a));
    }
}

#[test]
fn what_a_relay_sends_is_read_without_decoding_it() {
    for encoding in ENCODINGS {
        let mut template = Template::message(encoding, 320).unwrap();
        let bytes = template.filled(SENT);
        let read = frame(bytes).unwrap();
        assert_eq!((read.opcode, read.is_final, read.len), (data_opcode(encoding), true, bytes.len()));
        assert_eq!(op(encoding, read.payload), Some(&b"message"[..]));
        assert_eq!(id(encoding, b"message", read.payload), Some(&b"1700000000000-0"[..]));
        assert_eq!(field(encoding, read.payload, "device"), Some(&b"hand"[..]));
        assert_eq!(mark(read.payload), Some(SENT));
        assert_eq!(frame(&bytes[..bytes.len() - 1]), None);
        assert_eq!(frame(&bytes[..3]), None);
    }
}

#[test]
fn an_ack_is_what_a_client_would_send() {
    for encoding in ENCODINGS {
        let mut bytes = Vec::new();
        put_ack(&mut bytes, encoding, b"1700000000000-12");
        let payload = &bytes[6..];
        let opening = protocol::open(encoding, protocol::FrameKind::of(encoding), payload).unwrap();
        let decoded = protocol::decode(encoding, opening, payload).unwrap();
        assert!(matches!(decoded.op, protocol::ClientOp::Ack { .. }), "{:?}", decoded.op);
    }
}

/// Numbers of MessagePack are bytes like any others: a time of the day made messages unreadable.
#[test]
fn a_tilde_that_is_no_mark_is_passed_over() {
    let payload = b"\xcf\x00\x00\x01~\xfe~0000\xa4mark\xb9~0000002a123456789abcdef0";
    assert_eq!(mark(payload), Some(SENT));
    assert_eq!(answered(payload), Some(SENT.seq));
}

#[test]
fn a_stranger_s_bytes_are_not_taken_for_a_mark() {
    assert_eq!(mark(b"~0000002a"), None);
    assert_eq!(mark(b"~0000002z123456789abcdef0"), None);
    assert_eq!(answered(b"no tilde"), None);
    assert_eq!(op(Encoding::Json, br#"{"id":1}"#), None);
    assert_eq!(op(Encoding::MsgPack, b"\x91\xa2op"), None);
    assert_eq!(frame(&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
}
