//! A session driven by hand: frames and times in, actions out.

use std::sync::Arc;

use super::*;
use crate::ids::Name;
use crate::message::{Audience, Content, MembershipChange, Origin};
use crate::protocol::FrameKind;

const SECOND: Duration = Duration::from_secs(1);

fn session(window: usize, start: Instant) -> Session {
    let settings = SessionSettings {
        frame_bytes: 65536,
        window,
        ops_per_s: 200,
        heartbeat: 25 * SECOND,
        login_timeout: 10 * SECOND,
        ack_timeout: 30 * SECOND,
    };
    let node: NodeId = "n".parse().unwrap();
    let conn = ConnId::of(&node, 1);
    Session::new(Arc::new(settings), Dialect::Native(Encoding::Json), node, conn, start)
}

fn say(session: &mut Session, text: &str, now: Instant) -> Vec<Action> {
    let mut out = Vec::new();
    session.on_frame(FrameKind::Text, text.as_bytes(), now, 0, &mut out);
    out
}

fn log_in(session: &mut Session, login: &str, now: Instant) {
    log_in_with(session, login, &Grant::default(), None, now);
}

fn log_in_with(session: &mut Session, login: &str, grant: &Grant, expires_at: Option<Instant>, now: Instant) {
    let mut out = say(session, login, now);
    let Some(Action::Call(call)) = out.pop() else { panic!("{out:?}") };
    let (reference, CallOp::Login(login)) = call.into_parts() else { panic!() };
    let welcome = Welcome {
        login,
        grant: grant.clone(),
        expires_at,
        membership: Membership::default(),
        cursor: MessageId::ZERO,
        head: MessageId::ZERO,
        server_time_ms: 1,
    };
    session.on_answer(reference, Answer::Welcome(Box::new(welcome)), now, 0, &mut out);
    assert!(sent(&out).contains(r#""op":"welcome""#));
}

fn sent(actions: &[Action]) -> String {
    let frames = actions.iter().filter_map(|action| match action {
        Action::Send(frame) => Some(String::from_utf8(frame.clone()).unwrap()),
        _ => None,
    });
    frames.collect::<Vec<_>>().join("\n")
}

fn closed(actions: &[Action]) -> Option<CloseCode> {
    actions.iter().find_map(|action| match action {
        Action::Close(close) => Some(close.code),
        _ => None,
    })
}

fn order(from: &str) -> Entry {
    Entry::Message(Message {
        content: Content {
            from: Origin::Device { device: from.parse().unwrap(), role: Role::Sub },
            to: Audience::Mains,
            except: Vec::new().into(),
            kind: "add".parse().unwrap(),
            table: None,
            data: None,
            user_info: None,
            legacy: None,
        },
        status: "open".parse().unwrap(),
        ttl: None,
        receipt: false,
    })
}

fn id(ms: u64) -> MessageId {
    MessageId { ms, n: 0 }
}

const MAIN: &str = r#"{"op":"login","shop":"s","device":"till","role":"main"}"#;
const MAIN_BY_PONG: &str = r#"{"op":"login","shop":"s","device":"till","role":"main","ack":"pong"}"#;
const SUB: &str = r#"{"op":"login","shop":"s","device":"hand","role":"sub"}"#;

#[test]
fn before_login_only_login_ping_and_logout_are_taken() {
    let now = Instant::now();
    let mut session = session(4, now);
    assert_eq!(sent(&say(&mut session, r#"{"op":"ping","ref":"a"}"#, now)), r#"{"op":"pong","ref":"a"}"#);
    assert!(sent(&say(&mut session, r#"{"op":"online"}"#, now)).contains("not_logged_in"));
    assert_eq!(closed(&say(&mut session, r#"{"op":"logout"}"#, now)), Some(CloseCode::Logout));
}

#[test]
fn a_login_that_never_comes_ends_the_connection() {
    let now = Instant::now();
    let mut session = session(4, now);
    assert_eq!(session.deadline(), now + 10 * SECOND);
    let mut out = Vec::new();
    session.on_tick(now + 10 * SECOND, &mut out);
    assert_eq!(closed(&out), Some(CloseCode::Unauthorized));
}

#[test]
fn the_time_a_login_waits_for_the_store_is_not_held_against_the_device() {
    let start = Instant::now();
    let mut session = session(4, start);
    let login = r#"{"op":"login","shop":"s","device":"d","role":"sub"}"#;
    let mut out = say(&mut session, login, start + 8 * SECOND);
    out.clear();
    session.on_heard(start + 20 * SECOND);
    session.on_tick(start + 20 * SECOND, &mut out);
    assert!(!out.iter().any(|action| matches!(action, Action::Close(_))), "{out:?}");
    let busy = Failure::new(ErrorCode::Unavailable, "busy");
    session.on_answer(None, Answer::Failed(Box::new(busy)), start + 20 * SECOND, 0, &mut out);
    assert_eq!(session.deadline(), start + 22 * SECOND, "two of its ten seconds are left");
    out.clear();
    session.on_tick(start + 22 * SECOND, &mut out);
    assert!(matches!(out.as_slice(), [Action::Close(close)] if close.code == CloseCode::Unauthorized), "{out:?}");
}

#[test]
fn the_window_holds_back_what_exceeds_it_until_an_ack_frees_room() {
    let now = Instant::now();
    let mut session = session(2, now);
    log_in(&mut session, MAIN, now);
    let mut out = Vec::new();
    let offers: Vec<Offer> = (1..=3).map(|ms| session.on_entry(id(ms), &order("hand"), now, 0, &mut out)).collect();
    assert_eq!(offers, [Offer::Send, Offer::Send, Offer::Full]);
    assert_eq!(session.position(), id(2), "the third is still ahead");
    let out = say(&mut session, r#"{"op":"ack","id":"1-0"}"#, now);
    assert!(matches!(&out[..], [Action::Proven(proven)] if proven.through == id(1)), "{out:?}");
    assert_eq!(session.on_entry(id(3), &order("hand"), now, 0, &mut Vec::new()), Offer::Send);
    assert_eq!(session.on_entry(id(3), &order("hand"), now, 0, &mut Vec::new()), Offer::Skip, "once is enough");
}

#[test]
fn a_device_that_does_not_acknowledge_in_time_is_closed() {
    let now = Instant::now();
    let mut session = session(2, now);
    log_in(&mut session, MAIN, now);
    session.on_entry(id(1), &order("hand"), now, 0, &mut Vec::new());
    session.on_heard(now + 29 * SECOND);
    let mut out = Vec::new();
    session.on_tick(now + 30 * SECOND, &mut out);
    assert_eq!(closed(&out), Some(CloseCode::TooSlow));
}

#[test]
fn a_pong_proves_what_its_ping_named() {
    let now = Instant::now();
    let mut session = session(4, now);
    log_in(&mut session, MAIN_BY_PONG, now);
    let mut out = Vec::new();
    session.on_entry(id(1), &order("hand"), now, 0, &mut out);
    session.on_entry(id(2), &order("hand"), now, 0, &mut out);
    session.on_written(&mut out);
    session.on_written(&mut out);
    assert!(matches!(&out[..], [Action::Ping(payload)] if payload == b"2-0"), "one Ping for both: {out:?}");
    out.clear();
    session.on_tick(now + 25 * SECOND, &mut out);
    assert!(matches!(&out[..], [Action::Ping(payload)] if payload == b"2-0"), "a heartbeat repeats it: {out:?}");
    out.clear();
    session.on_pong(b"2-0", now, &mut out);
    assert!(matches!(&out[..], [Action::Proven(proven)] if proven.delivered.len() == 2), "{out:?}");
}

#[test]
fn two_heartbeats_of_silence_end_the_connection() {
    let now = Instant::now();
    let mut session = session(4, now);
    log_in(&mut session, MAIN, now);
    let mut out = Vec::new();
    session.on_tick(now + 25 * SECOND, &mut out);
    assert!(matches!(&out[..], [Action::Ping(payload)] if payload.is_empty()), "{out:?}");
    session.on_tick(now + 50 * SECOND, &mut out);
    assert_eq!(closed(&out), Some(CloseCode::Silent));
}

#[test]
fn what_a_notify_leaves_out_depends_on_the_role() {
    let now = Instant::now();
    let durable_to = |login: &str, text: &str| {
        let mut session = session(4, now);
        log_in(&mut session, login, now);
        match say(&mut session, text, now).pop() {
            Some(Action::Call(Call { op: CallOp::Publish(message, _), .. })) => (true, message.content.to),
            Some(Action::Call(Call { op: CallOp::Signal(signal), .. })) => (false, signal.content.to),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(durable_to(SUB, r#"{"op":"notify","type":"t"}"#), (true, Audience::Mains));
    assert_eq!(durable_to(MAIN, r#"{"op":"notify","type":"t"}"#), (false, Audience::Subs));
    assert_eq!(durable_to(MAIN, r#"{"op":"notify","type":"t","durable":true}"#), (true, Audience::Subs));
    assert_eq!(durable_to(SUB, r#"{"op":"notify","type":"t","to":"subs"}"#), (true, Audience::Subs));
    assert_eq!(durable_to(MAIN, r#"{"op":"notify","type":"t","to":"all"}"#), (true, Audience::All));
    assert!(!durable_to(SUB, r#"{"op":"notify","type":"t","to":{"conns":["n.1"]}}"#).0);
}

#[test]
fn a_sub_may_not_deal() {
    let now = Instant::now();
    let mut session = session(4, now);
    log_in(&mut session, SUB, now);
    assert!(sent(&say(&mut session, r#"{"op":"deal","id":"1-0","status":"done"}"#, now)).contains("forbidden"));
}

#[test]
fn a_client_that_goes_on_after_200_rate_limited_answers_is_closed() {
    let now = Instant::now();
    let mut session = session(4, now);
    log_in(&mut session, MAIN, now);
    let mut ping = || say(&mut session, r#"{"op":"ping","ref":1}"#, now);
    // The login took one of the thousand.
    for _ in 0..999 {
        assert_eq!(sent(&ping()), r#"{"op":"pong","ref":1}"#);
    }
    for _ in 0..200 {
        let answer = sent(&ping());
        assert!(answer.contains(r#""ref":1,"code":"rate_limited""#) && answer.contains("retry_after_ms"), "{answer}");
    }
    assert_eq!(closed(&ping()), Some(CloseCode::RateLimit));
}

#[test]
fn an_expired_message_is_passed_and_told() {
    let now = Instant::now();
    let mut session = session(4, now);
    log_in(&mut session, MAIN, now);
    let Entry::Message(mut message) = order("hand") else { panic!() };
    message.ttl = Some(SECOND);
    let mut out = Vec::new();
    assert_eq!(session.on_entry(id(1), &Entry::Message(message), now, 5000, &mut out), Offer::Expired);
    assert!(matches!(&out[..], [Action::Proven(proven)] if proven.expired == [id(1)]), "{out:?}");
}

#[test]
fn a_refused_login_is_told_and_closed_but_an_unavailable_store_is_not_its_end() {
    let now = Instant::now();
    for (code, close) in [(ErrorCode::Unauthorized, Some(CloseCode::Unauthorized)), (ErrorCode::Unavailable, None)] {
        let mut session = session(4, now);
        let mut out = Vec::new();
        session.on_answer(None, Answer::Failed(Box::new(Failure::new(code, "no"))), Instant::now(), 0, &mut out);
        assert!(sent(&out).contains(code.as_str()));
        assert_eq!(closed(&out), close);
    }
}

fn group_entry(device: Option<&str>, step: MembershipStep) -> Entry {
    Entry::Membership(MembershipChange { device: device.map(|device| device.parse().unwrap()), step })
}

#[test]
fn membership_is_taken_in_the_order_of_the_log_and_only_above_the_head_of_the_login() {
    let start = Instant::now();
    let mut session = session(4, start);
    let grant = Grant::default();
    log_in_with(&mut session, r#"{"op":"login","shop":"s","device":"a","role":"sub"}"#, &grant, None, start);
    let group: Name = "floor".parse().unwrap();
    let mut offer = |ms, entry: &Entry| {
        let mut out = Vec::new();
        let offer = session.on_entry(MessageId { ms, n: 0 }, entry, start, 0, &mut out);
        (offer, session.identity().unwrap().membership.groups.clone(), out.len())
    };
    let join = MembershipStep::Join(group.clone());
    assert_eq!(offer(1, &group_entry(Some("b"), join.clone())), (Offer::Skip, vec![], 0), "another device's");
    assert_eq!(offer(2, &group_entry(Some("a"), join.clone())), (Offer::Skip, vec![group.clone()], 0));
    assert_eq!(offer(3, &group_entry(None, MembershipStep::Leave(group))), (Offer::Skip, vec![], 0), "everybody's");
}

#[test]
fn a_grant_withholds_ops_and_what_it_fixes() {
    let start = Instant::now();
    let mut session = session(4, start);
    let grant = Grant {
        groups: Some(Vec::new()),
        user: Some("u".parse().unwrap()),
        ops: Some(["join", "bind", "online"].into_iter().collect()),
        expires_at_s: None,
    };
    log_in_with(&mut session, r#"{"op":"login","shop":"s","device":"a","role":"sub"}"#, &grant, None, start);
    for (frame, refused) in [
        (r#"{"op":"online"}"#, false),
        (r#"{"op":"ping"}"#, false),
        (r#"{"op":"join","group":"g"}"#, true),
        (r#"{"op":"unbind"}"#, true),
        (r#"{"op":"bind","user":"v"}"#, true),
        (r#"{"op":"notify","type":"t"}"#, true),
    ] {
        let answer = sent(&say(&mut session, frame, start));
        assert_eq!(answer.contains(r#""code":"forbidden""#), refused, "{frame}: {answer}");
    }
}

#[test]
fn a_session_ends_with_its_token() {
    let start = Instant::now();
    let mut session = session(4, start);
    let expires_at = start + Duration::from_secs(3);
    let login = r#"{"op":"login","shop":"s","device":"a","role":"sub"}"#;
    log_in_with(&mut session, login, &Grant::default(), Some(expires_at), start);
    assert_eq!(session.deadline(), expires_at);
    let mut out = Vec::new();
    session.on_tick(expires_at - Duration::from_millis(1), &mut out);
    assert_eq!(closed(&out), None);
    session.on_tick(expires_at, &mut out);
    assert_eq!(closed(&out), Some(CloseCode::Unauthorized));
}

#[test]
fn who_is_logged_in_is_told_to_go_and_everybody_else_is_closed() {
    let now = Instant::now();
    let mut session = session(4, now);
    let told = |session: &Session| {
        let mut out = Vec::new();
        session.on_goaway(24 * SECOND, &mut out);
        out
    };
    assert_eq!(closed(&told(&session)), Some(CloseCode::Restart));
    log_in(&mut session, MAIN, now);
    let out = told(&session);
    assert_eq!(sent(&out), r#"{"op":"goaway","reconnect_in_ms":0,"deadline_ms":24000}"#);
    assert_eq!(closed(&out), None);
    assert_eq!(session.on_entry(id(1), &order("hand"), now, 0, &mut Vec::new()), Offer::Send, "it serves on");
}
