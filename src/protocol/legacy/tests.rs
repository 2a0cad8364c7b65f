//! What the old clients say and are told, byte for byte where it is fixed.

use super::*;
use crate::message::{Audience, Content, Message, Origin};

fn notify_of(text: &str) -> LegacyNotify {
    let Frame::Notify(notify) = read(FrameKind::Text, text.as_bytes()) else { panic!("no notify: {text}") };
    notify.unwrap()
}

fn content(notify: LegacyNotify, kept: Box<RawValue>) -> Content {
    Content {
        from: Origin::Device { device: "7".parse().unwrap(), role: Role::Sub },
        to: Audience::Mains,
        except: Vec::new().into(),
        kind: notify.kind,
        table: notify.table,
        data: notify.data,
        user_info: notify.user_info,
        legacy: Some(kept),
    }
}

#[test]
fn a_login_takes_numbers_and_strings() {
    for text in [
        r#"{"op":"login","shop_id":12,"client_id":"7","type":"主"}"#,
        r#"{"op":"login","shop_id":"12","client_id":7,"type":"主","token":null}"#,
    ] {
        let Frame::Login(Ok(login)) = read(FrameKind::Text, text.as_bytes()) else { panic!("{text}") };
        assert_eq!((login.shop.as_str(), login.device.as_str(), login.role), ("12", "7", Role::Main));
    }
    for bad in [
        r#"{"op":"login","shop_id":12,"client_id":7,"type":"x"}"#,
        r#"{"op":"login","shop_id":12,"type":"主"}"#,
        r#"{"op":"login","shop_id":[],"client_id":7,"type":"主"}"#,
        r#"{"op":"login","shop_id":"","client_id":7,"type":"主"}"#,
    ] {
        assert!(matches!(read(FrameKind::Text, bad.as_bytes()), Frame::Login(Err(_))), "{bad}");
    }
}

#[test]
fn what_is_no_op_is_raw() {
    for raw in [r#"{"op":"dance"}"#, "hello", "[]", r#"["login"]"#, r#"{"a":1}"#, "", r#"{"op":7}"#] {
        assert!(matches!(read(FrameKind::Text, raw.as_bytes()), Frame::Raw(None)), "{raw}");
    }
    let binary = br#"{"op":"logout"}"#;
    assert!(matches!(read(FrameKind::Binary, binary), Frame::Raw(None)));
    assert!(matches!(read(FrameKind::Text, binary), Frame::Logout));
}

#[test]
fn a_push_repeats_the_table_as_it_was_given() {
    for (given, shown, title) in
        [("12", "12", "12"), (r#""12""#, r#""12""#, "12"), (r#""""#, r#""""#, ""), ("null", r#""""#, "")]
    {
        let text = format!(r#"{{"op":"notify","type":"加菜","table_id":{given},"data":[1]}}"#);
        let notify = notify_of(&text);
        let kept = notify.kept_of_message.clone();
        let message =
            Message { content: content(notify, kept), status: "open".parse().unwrap(), ttl: None, receipt: false };
        let pushed = String::from_utf8(push(5, &message.status, &message)).unwrap();
        let expected =
            format!(r#"{{"id":5,"status":"open","table_id":{shown},"type":"加菜","title":"桌id:{title} 加菜"}}"#);
        assert_eq!(pushed, expected);
    }
}

#[test]
fn the_object_of_a_main_loses_its_op_and_nothing_else() {
    let text = r#"{ "op" : "notify", "type":"退菜", "z":{"b":1.0,"a":2}, "table_id":3 , "data":"x"}"#;
    let notify = notify_of(text);
    assert_eq!(notify.table.as_ref().map(Name::as_str), Some("3"));
    assert_eq!(notify.kept_of_signal.get(), r#"{"type":"退菜","z":{"b":1.0,"a":2},"table_id":3,"data":"x"}"#);
}

#[test]
fn an_operators_word_is_read_as_a_query() {
    let read = |text: &str| match read(FrameKind::Text, text.as_bytes()) {
        Frame::Raw(Some(admin)) => admin,
        other => panic!("{other:?}"),
    };
    let sent = read("from_admin=1&op=send_messages&content=a%20b&to_fds=n.1,n.2&key=k");
    let to = vec!["n.1".to_owned(), "n.2".to_owned()];
    assert_eq!(sent, Admin { key: "k".into(), op: AdminOp::SendMessages { content: "a b".into(), to } });
    assert_eq!(read("op=get_connections&from_admin").op, AdminOp::GetConnections);
    assert!(!format!("{sent:?}").contains("\"k\""), "a key is not printed");
}

#[test]
fn an_answer_has_the_old_form() {
    let answer = Answer {
        is_done: false,
        msg: NO_MAIN_DEVICE,
        data: (),
        at_ms: 1_700_000_000_000,
        took: std::time::Duration::from_micros(123),
    };
    assert_eq!(
        serde_json::to_string(&answer).unwrap(),
        r#"{"code":1,"msg":"店铺主设备未记录,请先联系商家完成主设备初始化","time":"2023-11-14 22:13:20","data":null,"ttfb_time":"0.000123s"}"#
    );
}
