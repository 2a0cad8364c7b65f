//! The operations that the engines are compared by, at random.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use shoprelay::attrs::{Attrs, AttrsChange};
use shoprelay::ids::{DeviceId, Name};
use shoprelay::message::{Audience, MembershipChange, MembershipStep, Origin, Role, Signal};
use shoprelay::store::{Forget, PageLimit, Publish};

use crate::store::suite::{device, message, message_of_api, signal, with_key};

const DEVICES: [&str; 6] = ["a", "b", "c", "d", "店", "z 1"];
/// Few and small, so that they are reached.
pub const GROUPS_MAX: usize = 2;
pub const ATTRS_BYTES_MAX: usize = 40;

/// A place in a shop's log, the same for both engines.
#[derive(Debug, Clone, Copy)]
pub enum At {
    Zero,
    Nth(usize),
    Beyond,
}

#[derive(Debug, Clone)]
pub enum Op {
    Publish(Publish),
    Signal(Signal),
    Receipt(DeviceId, At),
    Mark(Vec<(DeviceId, At, Vec<At>)>),
    Connect(Login),
    Disconnect(DeviceId, usize, Option<At>),
    SetStatus {
        message: At,
        status: &'static str,
        expect: Option<&'static str>,
        by: Origin,
    },
    Read(At, PageLimit),
    Heads,
    Devices,
    Online,
    Trim(At, usize),
    LogLen,
    Forget(DeviceId, Forget),
    Device(DeviceId),
    Membership(MembershipChange),
    Attrs(DeviceId),
    ChangeAttrs(DeviceId, AttrsChange),
    Evict(DeviceId, Option<usize>, Option<Signal>),
    Bar(DeviceId, Option<Signal>),
    Unbar(DeviceId),
    Barred,
    Locate(usize),
    Broadcast,
    Numbers(Vec<At>),
    /// Of the number told so many numbers ago.
    Numbered(usize),
    Legacy(usize, bool),
    LegacyConns,
    Text,
    Shops,
    Claim(&'static str),
    Beat,
    Leave,
    Subscribe,
    Unsubscribe,
}

#[derive(Debug, Clone)]
pub struct Login {
    pub device: DeviceId,
    pub role: Role,
    /// Which of a few connections.
    pub conn: usize,
    pub meta: Option<Box<str>>,
    pub groups: Option<Vec<Name>>,
    pub user: Option<Name>,
}

fn at(random: &mut StdRng) -> At {
    match random.random_range(0..12) {
        0 => At::Zero,
        1 => At::Beyond,
        // The later ones are more interesting, and each engine counts from the end.
        2..8 => At::Nth(random.random_range(0..4)),
        _ => At::Nth(random.random_range(0..40)),
    }
}

fn some_device(random: &mut StdRng) -> DeviceId {
    device(DEVICES.choose(random).unwrap())
}

fn audience(random: &mut StdRng) -> Audience {
    match random.random_range(0..6) {
        0 | 1 => Audience::Mains,
        2 => Audience::Devices((0..random.random_range(1..3)).map(|_| some_device(random)).collect::<Vec<_>>().into()),
        3 => Audience::Subs,
        4 => Audience::Group("g".parse().unwrap()),
        _ => Audience::All,
    }
}

fn some_message(random: &mut StdRng) -> Publish {
    let to = audience(random);
    if random.random_bool(0.3) { message_of_api(to) } else { message(to) }
}

fn publish(random: &mut StdRng) -> Op {
    let mut publish = some_message(random);
    publish.message.receipt = random.random();
    if random.random_bool(0.4) {
        publish = with_key(publish, &format!("k{}", random.random_range(0..8)));
    }
    Op::Publish(publish)
}

fn set_status(random: &mut StdRng) -> Op {
    let by = match random.random_range(0..4) {
        0 => Origin::Api { name: "a".parse().unwrap() },
        _ => Origin::Device { device: some_device(random), role: *[Role::Main, Role::Sub].choose(random).unwrap() },
    };
    let status = *["done", "paid"].choose(random).unwrap();
    let expect = *[None, None, Some("open"), Some("done"), Some("paid")].choose(random).unwrap();
    Op::SetStatus { message: at(random), status, expect, by }
}

fn some_name(random: &mut StdRng) -> Name {
    ["g", "h", "店", "1"].choose(random).unwrap().parse().unwrap()
}

fn login(random: &mut StdRng) -> Op {
    let meta = *[None, Some("{\"v\": 1}"), Some("\"é\"")].choose(random).unwrap();
    Op::Connect(Login {
        device: some_device(random),
        role: if random.random_bool(0.5) { Role::Main } else { Role::Sub },
        conn: random.random_range(0..3),
        meta: meta.map(Into::into),
        groups: random.random_bool(0.2).then(|| (0..random.random_range(0..4)).map(|_| some_name(random)).collect()),
        user: random.random_bool(0.2).then(|| some_name(random)),
    })
}

fn membership(random: &mut StdRng) -> Op {
    let name = some_name(random);
    let step = match random.random_range(0..6) {
        0 | 1 => MembershipStep::Join(name),
        2 => MembershipStep::Leave(name),
        3 => MembershipStep::Bind(name),
        4 => MembershipStep::Unbind(Some(name)),
        _ => MembershipStep::Unbind(None),
    };
    Op::Membership(MembershipChange { device: random.random_bool(0.7).then(|| some_device(random)), step })
}

fn change_attrs(random: &mut StdRng) -> Op {
    let long = format!(r#"{{"long":"{}"}}"#, "x".repeat(ATTRS_BYTES_MAX - random.random_range(10..13)));
    let texts = ["{}", r#"{"a":1}"#, r#"{"a":null}"#, r#"{"b":{"c":[1,"é"]}}"#, r#"{"b":{"c":null,"d":0.5}}"#, &long];
    let attrs = Attrs::parse(texts.choose(random).unwrap()).unwrap();
    let change = if random.random_bool(0.3) { AttrsChange::Set(attrs) } else { AttrsChange::Patch(attrs) };
    Op::ChangeAttrs(some_device(random), change)
}

fn forget(random: &mut StdRng) -> Op {
    let which = match random.random_range(0..5) {
        0 => Forget::UnseenSince(1000),
        1 => Forget::ByOperator,
        _ => Forget::UnseenSince(u64::MAX >> 12),
    };
    Op::Forget(some_device(random), which)
}

fn evict(random: &mut StdRng) -> Op {
    let conn = random.random_bool(0.5).then(|| random.random_range(0..3));
    let last = random.random_bool(0.5).then(|| signal(some_message(random)));
    Op::Evict(some_device(random), conn, last)
}

impl Op {
    pub fn random(random: &mut StdRng) -> Op {
        match random.random_range(0..138) {
            0..22 => publish(random),
            22..26 => Op::Signal(signal(some_message(random))),
            26..28 => Op::Receipt(some_device(random), at(random)),
            28..40 => {
                let expired = |random: &mut StdRng| (0..random.random_range(0..3)).map(|_| at(random)).collect();
                let mut mark = || (some_device(random), at(random), expired(random));
                Op::Mark((0..3).map(|_| mark()).collect())
            }
            40..53 => login(random),
            53..61 => {
                let settled = random.random_bool(0.5).then(|| at(random));
                Op::Disconnect(some_device(random), random.random_range(0..3), settled)
            }
            61..70 => set_status(random),
            70..77 => {
                let bytes = *[1, 150, 400, 1 << 20].choose(random).unwrap();
                Op::Read(at(random), PageLimit { entries: random.random_range(0..12), bytes })
            }
            77..79 => Op::Heads,
            79..83 => Op::Devices,
            83..86 => Op::Online,
            86..89 => Op::Trim(at(random), random.random_range(0..4)),
            89 => Op::LogLen,
            90..94 => forget(random),
            94 => Op::Shops,
            95 => Op::Claim(["x", "y"].choose(random).unwrap()),
            96 => Op::Beat,
            97 => Op::Leave,
            98 => Op::Subscribe,
            99 => Op::Unsubscribe,
            100..107 => membership(random),
            107..111 => change_attrs(random),
            111 => Op::Attrs(some_device(random)),
            112..115 => evict(random),
            115..117 => Op::Locate(random.random_range(0..3)),
            117..119 => Op::Device(some_device(random)),
            119..124 => Op::Numbers((0..random.random_range(0..4)).map(|_| at(random)).collect()),
            124..127 => Op::Numbered(random.random_range(0..12)),
            127..129 => Op::Legacy(random.random_range(0..3), random.random_bool(0.7)),
            129 => Op::LegacyConns,
            130 => Op::Text,
            131 | 132 => Op::Bar(some_device(random), random.random_bool(0.5).then(|| signal(some_message(random)))),
            133..136 => Op::Unbar(some_device(random)),
            136 => Op::Barred,
            _ => Op::Broadcast,
        }
    }
}
