//! Bytes on the wire, as few looked at as can be: frames that are prepared once, and a reader that finds
//! only what a benchmark needs.
//!
//! Owns the shape of an order and the *mark* in it: `~`, the message's number in its shop (8 hex digits)
//! and the moment it was due (16). Text passes a relay unchanged in either encoding, so the mark is found by
//! its `~` without decoding anything. Frames are masked with zeros, which leaves them as they are and costs
//! the relay the same. Never touches a socket. Called by [`mod@super::worker`] and [`mod@super::floor`].

use serde::Serialize;

use crate::protocol::{self, Encoding};

/// Fewest bytes of an order: the mark has to fit.
pub const ORDER_BYTES_MIN: usize = 64;
/// What a frame holds until it is sent.
const REF: &str = "~RRRRRRRR";
const MARK: &str = "~SSSSSSSSDDDDDDDDDDDDDDDD";

/// Opcodes of RFC 6455.
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// The number of a message in its shop, and when it was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub seq: u32,
    pub due_ns: u64,
}

/// What a handheld sends: a list of dishes, filled up to the size that is wanted.
#[derive(Serialize)]
struct Order {
    mark: &'static str,
    dishes: Vec<Dish>,
    note: String,
}

#[derive(Clone, Serialize)]
struct Dish {
    name: &'static str,
    count: u32,
    cents: u32,
}

const DISH: Dish = Dish { name: "mapo tofu", count: 2, cents: 3800 };

impl Order {
    /// An order of so many bytes as JSON, [`ORDER_BYTES_MIN`] at least.
    fn of(bytes: usize) -> Order {
        let mut order = Order { mark: MARK, dishes: Vec::new(), note: String::new() };
        let len = |order: &Order| serde_json::to_vec(order).map_or(0, |json| json.len());
        let (empty, dish) = (len(&order), len(&Order { dishes: vec![DISH; 2], ..Order { ..order.blank() } }));
        let each = (dish.saturating_sub(empty) / 2).max(1);
        order.dishes = vec![DISH; bytes.saturating_sub(empty) / (each + 1)];
        order.note = "x".repeat(bytes.saturating_sub(len(&order)));
        order
    }

    fn blank(&self) -> Order {
        Order { mark: self.mark, dishes: Vec::new(), note: String::new() }
    }
}

/// A frame with places to be filled in.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: Vec<u8>,
    ref_at: Option<usize>,
    mark_at: usize,
}

#[derive(Serialize)]
struct NotifyOp {
    op: &'static str,
    #[serde(rename = "ref")]
    reference: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    durable: Option<bool>,
    table: &'static str,
    data: Order,
}

#[derive(Serialize)]
struct MessageOp {
    op: &'static str,
    id: &'static str,
    at: u64,
    to: &'static str,
    from: From,
    #[serde(rename = "type")]
    kind: &'static str,
    table: &'static str,
    data: Order,
    status: &'static str,
}

#[derive(Serialize)]
struct From {
    device: &'static str,
    role: &'static str,
}

impl Template {
    /// A client's `notify`. Without `to` it is for the other role; `durable` as the op has it.
    pub fn notify(
        encoding: Encoding,
        order_bytes: usize,
        to: Option<&'static str>,
        durable: Option<bool>,
    ) -> Option<Template> {
        let data = Order::of(order_bytes);
        let op = NotifyOp { op: "notify", reference: REF, kind: "add", to, durable, table: "12", data };
        let payload = protocol::encode(encoding, &op).ok()?;
        Template::of(masked(data_opcode(encoding), &payload))
    }

    /// What a relay would send a device for such a notify, with an id of its own making.
    pub fn message(encoding: Encoding, order_bytes: usize) -> Option<Template> {
        let op = MessageOp {
            op: "message",
            id: "1700000000000-0",
            at: 1_700_000_000_000,
            to: "mains",
            from: From { device: "hand", role: "sub" },
            kind: "add",
            table: "12",
            data: Order::of(order_bytes),
            status: "open",
        };
        let payload = protocol::encode(encoding, &op).ok()?;
        Template::of(unmasked(data_opcode(encoding), &payload))
    }

    fn of(bytes: Vec<u8>) -> Option<Template> {
        let (ref_at, mark_at) = (find(&bytes, REF.as_bytes()), find(&bytes, MARK.as_bytes())?);
        Some(Template { bytes, ref_at, mark_at })
    }

    /// The frame for this message; it is the template's own until the next one.
    pub fn filled(&mut self, mark: Mark) -> &[u8] {
        if let Some(at) = self.ref_at {
            put_hex(self.bytes.get_mut(at + 1..at + 9), u64::from(mark.seq));
        }
        put_hex(self.bytes.get_mut(self.mark_at + 1..self.mark_at + 9), u64::from(mark.seq));
        put_hex(self.bytes.get_mut(self.mark_at + 9..self.mark_at + 25), mark.due_ns);
        &self.bytes
    }

    /// The frame with these 24 digits in the place of its mark.
    pub fn stamped(&mut self, digits: &[u8]) -> &[u8] {
        if let Some(place) = self.bytes.get_mut(self.mark_at + 1..self.mark_at + 25)
            && place.len() == digits.len()
        {
            place.copy_from_slice(digits);
        }
        &self.bytes
    }

    /// Bytes of the frame.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where the digits of its mark begin.
    pub fn digits_at(&self) -> usize {
        self.mark_at + 1
    }
}

/// The opcode of data in this encoding.
pub fn data_opcode(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Json => TEXT,
        Encoding::MsgPack => BINARY,
    }
}

/// A client's frame.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    put_masked(&mut frame, opcode, payload);
    frame
}

/// Appends a client's frame.
pub fn put_masked(frame: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    put_header(frame, opcode, payload.len(), 0x80);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
}

fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    put_header(&mut frame, opcode, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

fn put_header(frame: &mut Vec<u8>, opcode: u8, len: usize, mask_bit: u8) {
    frame.push(0x80 | opcode);
    if len <= 125 {
        frame.push(mask_bit | len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        frame.push(mask_bit | 126);
        frame.extend_from_slice(&len.to_be_bytes());
    } else {
        frame.push(mask_bit | 127);
        frame.extend_from_slice(&(len as u64).to_be_bytes());
    }
}

/// Appends an `ack` of this id.
pub fn put_ack(frame: &mut Vec<u8>, encoding: Encoding, id: &[u8]) {
    const JSON: (&[u8], &[u8]) = (br#"{"op":"ack","id":""#, br#""}"#);
    const MSGPACK: &[u8] = b"\x82\xa2op\xa3ack\xa2id";
    match encoding {
        Encoding::Json => {
            put_header(frame, TEXT, JSON.0.len() + id.len() + JSON.1.len(), 0x80);
            frame.extend_from_slice(&[0; 4]);
            frame.extend_from_slice(JSON.0);
            frame.extend_from_slice(id);
            frame.extend_from_slice(JSON.1);
        }
        Encoding::MsgPack => {
            // An id has 31 bytes at most in practice; a longer one takes another header.
            let short = id.len() <= 31;
            put_header(frame, BINARY, MSGPACK.len() + usize::from(!short) + 1 + id.len(), 0x80);
            frame.extend_from_slice(&[0; 4]);
            frame.extend_from_slice(MSGPACK);
            match short {
                true => frame.push(0xa0 | id.len() as u8),
                false => frame.extend_from_slice(&[0xd9, id.len() as u8]),
            }
            frame.extend_from_slice(id);
        }
    }
}

/// A server's frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub opcode: u8,
    pub is_final: bool,
    pub payload: &'a [u8],
    /// Bytes of the whole frame.
    pub len: usize,
}

/// The frame that these bytes begin with; None where it is not whole yet.
pub fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (header, len) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        len => (2, usize::from(len)),
    };
    let len = len.checked_add(header)?;
    let payload = bytes.get(header..len)?;
    Some(Frame { opcode: first & 0x0f, is_final: first & 0x80 != 0, payload, len })
}

/// The op of an object; the relay writes it first.
pub fn op(encoding: Encoding, payload: &[u8]) -> Option<&[u8]> {
    match encoding {
        Encoding::Json => until_quote(payload.strip_prefix(br#"{"op":""#)?),
        Encoding::MsgPack => {
            let rest = match *payload.first()? {
                0x80..=0x8f => payload.get(1..)?,
                0xde => payload.get(3..)?,
                _ => return None,
            };
            text(rest.strip_prefix(b"\xa2op")?)
        }
    }
}

/// The text under a key that comes first with this name, such as the id, the code and the message of the
/// relay's own ops.
pub fn field<'a>(encoding: Encoding, payload: &'a [u8], key: &str) -> Option<&'a [u8]> {
    match encoding {
        Encoding::Json => {
            let key = format!("\"{key}\":\"");
            until_quote(payload.get(find(payload, key.as_bytes())? + key.len()..)?)
        }
        Encoding::MsgPack => {
            let mut name = vec![0xa0 | key.len() as u8];
            name.extend_from_slice(key.as_bytes());
            text(payload.get(find(payload, &name)? + name.len()..)?)
        }
    }
}

/// The id of a `message` or `status`, which stands right behind the op.
pub fn id<'a>(encoding: Encoding, op: &[u8], payload: &'a [u8]) -> Option<&'a [u8]> {
    let behind = match encoding {
        Encoding::Json => payload.get(7 + op.len() + 1..)?.strip_prefix(br#","id":""#).and_then(until_quote),
        Encoding::MsgPack => {
            let at = if payload.first() == Some(&0xde) { 3 } else { 1 };
            payload.get(at + 4 + op.len()..)?.strip_prefix(b"\xa2id").and_then(text)
        }
    };
    behind.or_else(|| field(encoding, payload, "id"))
}

/// The mark of a message.
pub fn mark(payload: &[u8]) -> Option<Mark> {
    behind_tildes(payload).find_map(|digits| {
        let seq = u32::try_from(hex(digits.get(..8)?)?).ok()?;
        Some(Mark { seq, due_ns: hex(digits.get(8..24)?)? })
    })
}

/// The number of the message that an answer is for.
pub fn answered(payload: &[u8]) -> Option<u32> {
    behind_tildes(payload).find_map(|digits| u32::try_from(hex(digits.get(..8)?)?).ok())
}

/// What follows each `~`: in MessagePack a number may hold that byte too.
fn behind_tildes(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let tildes = payload.iter().enumerate().filter(|(_, byte)| **byte == b'~');
    tildes.filter_map(|(at, _)| payload.get(at + 1..))
}

fn until_quote(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..bytes.iter().position(|byte| *byte == b'"')?)
}

/// A MessagePack string of at most 255 bytes.
fn text(bytes: &[u8]) -> Option<&[u8]> {
    match *bytes.first()? {
        head @ 0xa0..=0xbf => bytes.get(1..1 + usize::from(head & 0x1f)),
        0xd9 => bytes.get(2..2 + usize::from(*bytes.get(1)?)),
        _ => None,
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number: u64, digit| Some(number << 4 | u64::from((*digit as char).to_digit(16)?)))
}

fn put_hex(place: Option<&mut [u8]>, mut number: u64) {
    for digit in place.into_iter().flatten().rev() {
        *digit = b"0123456789abcdef".get((number & 0xf) as usize).copied().unwrap_or(b'0');
        number >>= 4;
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests;
