//! RFC 6455 to the letter: the echo of raw frames is what conformance suites are pointed at.

use super::{address, raw, world};
use crate::harness::raw::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT};
use crate::harness::{Frame, RawSocket, World};

/// The default frame limit.
const LIMIT: usize = 65_536;

/// Sends frames on a connection of its own and gives the close that they lead to.
async fn closed_by(world: &World, frames: &[Frame]) -> u16 {
    let mut socket = raw(address(world, 0)).await;
    for frame in frames {
        socket.send(frame).await;
    }
    socket.close_code().await.0
}

async fn expect(socket: &mut RawSocket, opcode: u8, payload: &[u8]) {
    let frame = socket.read_frame().await.unwrap_or_else(|cause| panic!("{cause}"));
    assert!(frame.fin && frame.reserved == 0 && !frame.masked, "{frame:?}");
    assert_eq!(frame.opcode, opcode, "{frame:?}");
    assert!(frame.payload == payload, "{} bytes came back of {}", frame.payload.len(), payload.len());
}

/// A message cut into fragments of this many bytes.
fn fragments(opcode: u8, message: &[u8], size: usize) -> Vec<Frame> {
    let mut frames = Frame::fragments(message, size);
    frames[0].opcode = opcode;
    frames
}

fn open(opcode: u8, payload: &[u8]) -> Frame {
    Frame { fin: false, ..Frame::new(opcode, payload) }
}

#[tokio::test]
async fn texts_and_binary_frames_of_every_size_are_echoed() {
    let world = world(1).await;
    let mut socket = raw(address(&world, 0)).await;
    for size in [0, 1, 125, 126, 127, 128, 1_000, 32_768, LIMIT - 1, LIMIT] {
        let text = "*".repeat(size).into_bytes();
        socket.send(&Frame::new(TEXT, text.clone())).await;
        expect(&mut socket, TEXT, &text).await;
        let bytes: Vec<u8> = (0..size).map(|n| (n * 7) as u8).collect();
        socket.send(&Frame::new(BINARY, bytes.clone())).await;
        expect(&mut socket, BINARY, &bytes).await;
    }
}

#[tokio::test]
async fn a_fragmented_message_is_echoed_whole_with_pings_answered_in_between() {
    let world = world(1).await;
    let mut socket = raw(address(&world, 0)).await;
    let text = "Hello-µ@ßöäüàá-UTF-8!!".repeat(40);
    for (opcode, size) in [(TEXT, 1), (TEXT, 7), (BINARY, 64), (TEXT, 1_000)] {
        for frame in fragments(opcode, text.as_bytes(), size) {
            socket.send(&frame).await;
            if size > 1 {
                socket.send(&Frame::new(PING, "between")).await;
                if !frame.fin {
                    expect(&mut socket, PONG, b"between").await;
                }
            }
        }
        expect(&mut socket, opcode, text.as_bytes()).await;
        if size > 1 {
            expect(&mut socket, PONG, b"between").await;
        }
    }
    // Empty fragments are fragments.
    for frame in [open(TEXT, b""), open(CONTINUATION, b""), open(CONTINUATION, b"middle"), Frame::new(CONTINUATION, "")]
    {
        socket.send(&frame).await;
    }
    expect(&mut socket, TEXT, b"middle").await;
    for frame in [open(BINARY, b""), Frame::new(CONTINUATION, "")] {
        socket.send(&frame).await;
    }
    expect(&mut socket, BINARY, b"").await;
}

#[tokio::test]
async fn fragments_together_are_taken_up_to_the_limit() {
    let world = world(1).await;
    let mut socket = raw(address(&world, 0)).await;
    let most = vec![b'x'; LIMIT];
    for frame in fragments(TEXT, &most, 1_000) {
        socket.send(&frame).await;
    }
    expect(&mut socket, TEXT, &most).await;
    let more = vec![b'x'; LIMIT + 1];
    for opcode in [TEXT, BINARY] {
        assert_eq!(closed_by(&world, &[Frame::new(opcode, more.clone())]).await, 1009);
        assert_eq!(closed_by(&world, &fragments(opcode, &more, LIMIT)).await, 1009);
    }
    // The header alone is enough.
    let mut socket = raw(address(&world, 0)).await;
    socket.write(&Frame::new(BINARY, "").header(1 << 40)).await;
    socket.write(&[0; 4]).await;
    assert_eq!(socket.close_code().await.0, 1009);
    world.assert_serves().await;
}

#[tokio::test]
async fn frames_in_single_bytes_and_many_at_once_are_read_alike() {
    let world = world(1).await;
    let mut socket = raw(address(&world, 0)).await;
    socket.send_byte_by_byte(&Frame::text("slowly")).await;
    expect(&mut socket, TEXT, b"slowly").await;
    let together: Vec<u8> = (0..50).flat_map(|n| Frame::text(format!("{n}")).bytes()).collect();
    socket.write(&together).await;
    for n in 0..50 {
        expect(&mut socket, TEXT, n.to_string().as_bytes()).await;
    }
}

#[tokio::test]
async fn a_ping_is_answered_with_its_payload_and_an_unasked_pong_is_ignored() {
    let world = world(1).await;
    let mut socket = raw(address(&world, 0)).await;
    for payload in [&b""[..], b"Hello", b"\x00\xff\xfe\xfd", &[0xfe; 125]] {
        socket.send(&Frame::new(PONG, payload)).await;
        socket.send(&Frame::new(PING, payload)).await;
        expect(&mut socket, PONG, payload).await;
    }
    socket.send(&Frame::new(PONG, "5-0")).await;
    socket.send(&Frame::text("on")).await;
    expect(&mut socket, TEXT, b"on").await;
}

#[tokio::test]
async fn what_breaks_the_framing_is_closed_with_1002() {
    let world = world(1).await;
    for opcode in [TEXT, BINARY, PING, CLOSE] {
        let unmasked = Frame { masked: false, ..Frame::new(opcode, "") };
        assert_eq!(closed_by(&world, &[unmasked]).await, 1002, "unmasked, opcode {opcode}");
    }
    for reserved in 1..8 {
        for opcode in [TEXT, BINARY, PING, CLOSE] {
            let frame = Frame { reserved, ..Frame::new(opcode, "") };
            assert_eq!(closed_by(&world, &[frame]).await, 1002, "reserved bits {reserved:03b}, opcode {opcode}");
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in ["", "some"] {
            let frame = Frame::new(opcode, payload);
            assert_eq!(closed_by(&world, &[Frame::text("a"), frame]).await, 1002, "opcode {opcode}");
        }
    }
}

#[tokio::test]
async fn control_frames_are_whole_and_small_or_closed_with_1002() {
    let world = world(1).await;
    for opcode in [PING, PONG, CLOSE] {
        let large = Frame::new(opcode, vec![3; 126]);
        assert_eq!(closed_by(&world, &[large]).await, 1002, "large, opcode {opcode}");
        let cut = open(opcode, b"");
        assert_eq!(closed_by(&world, &[cut, Frame::new(CONTINUATION, "")]).await, 1002, "cut, opcode {opcode}");
    }
}

#[tokio::test]
async fn fragments_out_of_place_are_closed_with_1002() {
    let world = world(1).await;
    for frames in [
        vec![Frame::new(CONTINUATION, "x")],
        vec![Frame::new(CONTINUATION, "")],
        vec![open(CONTINUATION, b"x"), Frame::new(CONTINUATION, "x")],
        vec![open(TEXT, b"x"), Frame::text("x")],
        vec![open(TEXT, b"x"), Frame::new(BINARY, "x")],
        vec![open(BINARY, b"x"), open(BINARY, b"x")],
        vec![open(TEXT, b"a"), Frame::new(CONTINUATION, "b"), Frame::new(CONTINUATION, "c")],
    ] {
        assert_eq!(closed_by(&world, &frames).await, 1002, "{frames:?}");
    }
}

#[tokio::test]
async fn text_that_is_no_utf8_is_closed_with_1007() {
    let world = world(1).await;
    let bad: [&[u8]; 9] = [
        b"\xff",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xed\xbf\xbf",
        b"cut \xe4\xb8",
        b"\x80",
    ];
    for text in bad {
        assert_eq!(closed_by(&world, &[Frame::new(TEXT, text)]).await, 1007, "{text:02x?}");
        for size in [1, 2] {
            assert_eq!(closed_by(&world, &fragments(TEXT, text, size)).await, 1007, "{text:02x?} by {size}");
        }
        let mut reason = 1000_u16.to_be_bytes().to_vec();
        reason.extend(text);
        assert_eq!(closed_by(&world, &[Frame::new(CLOSE, reason)]).await, 1007, "{text:02x?} as a reason");
    }
    let mut socket = raw(address(&world, 0)).await;
    // The edges of what is UTF-8, cut within their code points.
    let text = "κόσμε \u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{fffd}\u{ffff}\u{10000}\u{10ffff}主副";
    for size in 1..5 {
        for frame in fragments(TEXT, text.as_bytes(), size) {
            socket.send(&frame).await;
        }
        expect(&mut socket, TEXT, text.as_bytes()).await;
    }
}

#[tokio::test]
async fn close_codes_that_may_be_sent_are_echoed_and_no_others() {
    let world = world(1).await;
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999_u16] {
        for reason in ["", "goodbye 再见"] {
            let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
            assert_eq!(closed_by(&world, &[Frame::new(CLOSE, payload)]).await, code);
        }
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535_u16] {
        assert_eq!(closed_by(&world, &[Frame::new(CLOSE, code.to_be_bytes())]).await, 1002, "{code}");
    }
    assert_eq!(closed_by(&world, &[Frame::new(CLOSE, "\x03")]).await, 1002, "one byte is no code");
    // 1005 is what the harness has for a close without a code.
    assert_eq!(closed_by(&world, &[Frame::new(CLOSE, "")]).await, 1005);
    let longest = [&1000_u16.to_be_bytes()[..], &[b'x'; 123]].concat();
    assert_eq!(closed_by(&world, &[Frame::new(CLOSE, longest)]).await, 1000);
}

#[tokio::test]
async fn after_a_close_nothing_more_is_answered_and_the_connection_ends() {
    let world = world(1).await;
    let mut socket = raw(address(&world, 0)).await;
    let mut bytes = Frame::text("before").bytes();
    for frame in [Frame::new(CLOSE, 1000_u16.to_be_bytes()), Frame::new(PING, "late"), Frame::text("late")] {
        bytes.extend(frame.bytes());
    }
    socket.write(&bytes).await;
    expect(&mut socket, TEXT, b"before").await;
    expect(&mut socket, CLOSE, &1000_u16.to_be_bytes()).await;
    let ended = socket.read_frame().await.expect_err("the server ends the connection");
    assert!(ended.starts_with("lost"), "{ended}");
    // A close may come among fragments.
    let frames = [open(TEXT, b"half"), Frame::new(CLOSE, 1000_u16.to_be_bytes())];
    assert_eq!(closed_by(&world, &frames).await, 1000);
    // What came before a fault is still answered.
    let mut socket = raw(address(&world, 0)).await;
    socket.write(&[Frame::text("good").bytes(), Frame::new(3, "").bytes()].concat()).await;
    expect(&mut socket, TEXT, b"good").await;
    assert_eq!(socket.close_code().await.0, 1002);
}

#[tokio::test]
async fn a_handshake_is_as_strict_as_a_native_one_and_takes_no_subprotocol() {
    let world = world(1).await;
    let url = format!("ws://{}/", address(&world, 0));
    let (status, mut socket) = RawSocket::handshake(&url, &[("Sec-WebSocket-Protocol", "chat")]).await;
    assert_eq!(status, 101);
    socket.send(&Frame::text("here")).await;
    expect(&mut socket, TEXT, b"here").await;
    let (status, _) = RawSocket::handshake(&format!("{url}?shop=1"), &[]).await;
    assert_eq!(status, 101, "a query is no matter");
    assert_eq!(world.nodes[0].get_public("/").await.0, 426);
}
