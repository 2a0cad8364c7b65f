//! What is measured: each case is prepared once and then called again and again.

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::types::Value as RedisValue;
use futures_util::FutureExt as _;
use shoprelay::hub::{Hub, Member, Outbox, Push, RoomGuard};
use shoprelay::ids::{ConnId, MessageId, NodeId, ShopId};
use shoprelay::message::{Entry, Membership, Message, Role};
use shoprelay::protocol::{self, Dialect, Encoding, FrameKind};
use shoprelay::session::{Action, Answer, CallOp, Grant, Session, SessionSettings, Welcome};
use shoprelay::socket::writer::{Outgoing, data_frame};
use shoprelay::store::record;
use shoprelay::store::redis::{payload, reply::Reply};
use tokio::io::AsyncWrite;

/// A part that is called again and again.
pub type Run = Box<dyn FnMut()>;

pub struct Case {
    pub name: &'static str,
    pub prepare: fn() -> Run,
}

const fn case(name: &'static str, prepare: fn() -> Run) -> Case {
    Case { name, prepare }
}

pub const CASES: &[Case] = &[
    case("decode_notify_json", || decode(Encoding::Json)),
    case("decode_notify_msgpack", || decode(Encoding::MsgPack)),
    case("session_notify_json", || session_notify(Encoding::Json)),
    case("session_notify_msgpack", || session_notify(Encoding::MsgPack)),
    case("session_entry_and_ack_json", || session_entry_and_ack(Encoding::Json)),
    case("session_entry_and_ack_msgpack", || session_entry_and_ack(Encoding::MsgPack)),
    case("record_encode", record_encode),
    case("announcement_parse", announcement_parse),
    case("publish_reply_parse", publish_reply_parse),
    case("route_to_4", || route(4)),
    case("route_to_1000", || route(1000)),
    case("encode_once_json", || encode_once(Encoding::Json)),
    case("encode_once_msgpack", || encode_once(Encoding::MsgPack)),
    case("write_1", || write_many(1)),
    case("write_16", || write_many(16)),
];

/// An order of 320 bytes, as a handheld sends it.
fn notify(encoding: Encoding) -> Vec<u8> {
    let dishes: Vec<_> = (0..6).map(|n| serde_json::json!({"name": "mapo tofu", "count": n, "cents": 3800})).collect();
    let data = serde_json::json!({"mark": "~0000000000000000001234567", "dishes": dishes, "note": "x".repeat(30)});
    let op = serde_json::json!({"op": "notify", "ref": "~00000001", "type": "add", "table": "12", "data": data});
    protocol::encode(encoding, &op).unwrap()
}

fn id(ms: u64) -> MessageId {
    MessageId { ms: 1_700_000_000_000 + ms, n: 0 }
}

fn conn(n: u64) -> ConnId {
    ConnId::of(&"1a2b3c4d-node".parse::<NodeId>().unwrap(), n)
}

/// A session of a device that has logged in.
fn session(encoding: Encoding, role: Role, now: Instant) -> Session {
    let settings = SessionSettings {
        frame_bytes: 65536,
        window: 256,
        ops_per_s: 1_000_000_000,
        heartbeat: Duration::from_secs(25),
        login_timeout: Duration::from_secs(10),
        ack_timeout: Duration::from_secs(30),
    };
    let node: NodeId = "1a2b3c4d-node".parse().unwrap();
    let mut session = Session::new(Arc::new(settings), Dialect::Native(encoding), node, conn(1), now);
    let device = if role == Role::Main { "till" } else { "hand" };
    let login = serde_json::json!({"op": "login", "shop": "shop-1", "device": device, "role": role.as_str()});
    let mut out = Vec::new();
    let frame = protocol::encode(encoding, &login).unwrap();
    session.on_frame(FrameKind::of(encoding), &frame, now, 0, &mut out);
    let Some(Action::Call(call)) = out.pop() else { panic!("{out:?}") };
    let (reference, CallOp::Login(login)) = call.into_parts() else { panic!("no login") };
    let welcome = Welcome {
        login,
        grant: Grant::default(),
        expires_at: None,
        membership: Membership::default(),
        cursor: MessageId::ZERO,
        head: MessageId::ZERO,
        server_time_ms: 1,
    };
    session.on_answer(reference, Answer::Welcome(Box::new(welcome)), now, 0, &mut out);
    session
}

/// The message that a handheld's notify becomes.
fn message(encoding: Encoding) -> Message {
    let now = Instant::now();
    let mut out = Vec::new();
    session(encoding, Role::Sub, now).on_frame(FrameKind::of(encoding), &notify(encoding), now, 0, &mut out);
    let Some(Action::Call(call)) = out.pop() else { panic!("{out:?}") };
    let (_, CallOp::Publish(message, _)) = call.into_parts() else { panic!("no publish") };
    *message
}

fn decode(encoding: Encoding) -> Run {
    let frame = notify(encoding);
    Box::new(move || {
        let opening = protocol::open(encoding, FrameKind::of(encoding), black_box(&frame)).unwrap();
        black_box(protocol::decode(encoding, opening, &frame).is_ok());
    })
}

/// A notify comes in, leaves as a call, and is answered.
fn session_notify(encoding: Encoding) -> Run {
    let now = Instant::now();
    let (mut session, frame, mut out) = (session(encoding, Role::Sub, now), notify(encoding), Vec::new());
    Box::new(move || {
        session.on_frame(FrameKind::of(encoding), black_box(&frame), now, 0, &mut out);
        let Some(Action::Call(call)) = out.pop() else { panic!("{out:?}") };
        let (reference, op) = call.into_parts();
        black_box(op);
        let answer = Answer::Accepted { id: Some(id(1)), is_duplicate: false };
        session.on_answer(reference, answer, now, 0, &mut out);
        black_box(&out);
        out.clear();
    })
}

/// An entry is offered to a till, which acknowledges it.
fn session_entry_and_ack(encoding: Encoding) -> Run {
    let now = Instant::now();
    let (mut session, entry, mut out) =
        (session(encoding, Role::Main, now), Entry::Message(message(encoding)), Vec::new());
    let (acks, mut next) = (acks(encoding), 0);
    Box::new(move || {
        next += 1;
        session.on_entry(id(next), black_box(&entry), now, 0, &mut out);
        let ack = acks(id(next));
        session.on_frame(FrameKind::of(encoding), black_box(&ack), now, 0, &mut out);
        assert!(!out.is_empty());
        out.clear();
    })
}

/// What makes acknowledgements: by hand, so that it is cheap beside what is measured.
fn acks(encoding: Encoding) -> impl Fn(MessageId) -> Vec<u8> {
    let template = protocol::encode(encoding, &serde_json::json!({"op": "ack", "id": id(0).to_string()})).unwrap();
    let at = template.windows(4).position(|window| window == b"1700").unwrap();
    move |id| {
        let mut ack = template.clone();
        let mut ms = id.ms;
        for digit in ack[at..at + 13].iter_mut().rev() {
            *digit = b'0' + (ms % 10) as u8;
            ms /= 10;
        }
        ack
    }
}

/// What a publish sends to the store.
fn record_encode() -> Run {
    let message = message(Encoding::Json);
    Box::new(move || {
        black_box(record::encode_message(black_box(&message)).unwrap());
    })
}

/// What comes back from the store to every node with a socket of the shop.
fn announcement_parse() -> Run {
    let mut announced = format!("E{} {} 1a2b3c4d-node\n", id(1), id(2)).into_bytes();
    announced.extend(record::encode_message(&message(Encoding::Json)).unwrap());
    let shop: ShopId = "shop-1".parse().unwrap();
    Box::new(move || {
        black_box(payload::parse(shop.clone(), black_box(&announced)).unwrap());
    })
}

/// What the script of a publish answers.
fn publish_reply_parse() -> Run {
    let answer = RedisValue::Array(vec![RedisValue::Integer(0), RedisValue::String(id(1).to_string().into())]);
    Box::new(move || {
        let mut reply = Reply::new("publish", black_box(answer.clone()));
        black_box((reply.number().unwrap(), reply.parsed::<MessageId>().unwrap()));
    })
}

/// An entry into the outboxes of so many members, and out of them again.
fn route(members: u64) -> Run {
    let hub = Hub::new(1000);
    let room: RoomGuard = hub.enter(&"shop-1".parse().unwrap());
    let outboxes: Vec<Arc<Outbox>> = (0..members).map(|_| Arc::new(Outbox::default())).collect();
    for (n, outbox) in outboxes.iter().enumerate() {
        let member = Member {
            conn: conn(n as u64),
            device: format!("till-{n}").parse().unwrap(),
            role: Role::Main,
            membership: Membership::default(),
            member_as_of: MessageId::ZERO,
            since_ms: 0,
            outbox: outbox.clone(),
        };
        room.join(member, id(0));
        room.attach(outbox);
    }
    let (message, mut next) = (message(Encoding::Json), 0);
    Box::new(move || {
        let push = Arc::new(Push::new(id(next + 1), Entry::Message(message.clone()), None, false));
        room.on_entry(id(next), &push);
        next += 1;
        for outbox in &outboxes {
            assert_eq!(black_box(outbox.take()).parcels.len(), 1);
        }
    })
}

/// The first connection of an encoding has the frame made; the next ones share it.
fn encode_once(encoding: Encoding) -> Run {
    let entry = Entry::Message(message(encoding));
    Box::new(move || {
        let push = Push::new(id(1), entry.clone(), None, false);
        for _ in 0..4 {
            black_box(push.frame(encoding, |payload| data_frame(encoding, payload)));
        }
    })
}

/// A socket that takes everything at once.
struct Taker(usize);

impl AsyncWrite for Taker {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0 += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = slices.iter().map(|slice| slice.len()).sum();
        self.0 += taken;
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// So many finished frames in one vectored write.
fn write_many(frames: usize) -> Run {
    let frame: Bytes = data_frame(Encoding::Json, notify(Encoding::Json));
    let (mut outgoing, mut taker) = (Outgoing::default(), Taker(0));
    Box::new(move || {
        (0..frames).for_each(|_| outgoing.push(frame.clone()));
        let is_written = outgoing.flush(&mut taker).now_or_never();
        assert!(matches!(is_written, Some(Ok(()))));
        black_box(&taker.0);
    })
}
