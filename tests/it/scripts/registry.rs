//! The scripts of the registry: who comes and goes, and what is kept of each device.

use serde_json::{Value, json};

use super::{Shop, id};

#[test]
fn a_connect_takes_over_and_its_repeat_replaces_nothing() {
    let shop = Shop::fresh();
    assert_eq!(shop.connect("d", "main", "c1", r#"{"v":1}"#), json!(["0-0", "0-0", null, null]));
    let presence = shop.cli("HGET", "online", &["d"]);
    assert_eq!(shop.connect("d", "main", "c1", "")[2], Value::Null);
    assert_eq!(shop.cli("HGET", "online", &["d"]), presence, "and `since` stays");
    assert_eq!(shop.connect("d", "main", "c2", "")[2], "c1");
    assert_eq!(shop.cli("SMEMBERS", "mains", &[]), "d");
    shop.connect("d", "sub", "c3", "");
    assert_eq!(shop.cli("SCARD", "mains", &[]), "0", "it came back as a sub");
    let head = shop.publish(&["r", "node", "10", "0", "-"]);
    assert_eq!(shop.connect("d", "sub", "c4", ""), json!(["0-0", id(&head), "c3", null]));
    assert_eq!(shop.connect("new", "sub", "c5", "")[0], id(&head), "a new device starts at the head");
}

#[test]
fn a_login_that_was_given_up_and_comes_late_takes_nothing_over() {
    let shop = Shop::fresh();
    shop.connect("d", "main", "c2", "");
    let keys = ["devices", "mains", "cursors", "online", "head", "channel"];
    let late = shop.try_run("connect", &keys, &["d", "sub", "c1", "node", "", "1000", "", "-"]).unwrap_err();
    assert!(late.contains("LATE"), "{late}");
    assert!(shop.cli("HGET", "online", &["d"]).starts_with("c2"));
    assert_eq!(shop.cli("SCARD", "mains", &[]), "1", "nor is the role changed");
}

#[test]
fn a_late_disconnect_leaves_the_newer_presence() {
    let shop = Shop::fresh();
    shop.connect("d", "main", "c1", "");
    shop.connect("d", "main", "c2", "");
    let late = || shop.run("disconnect", &["devices", "online", "cursors"], &["d", "c1", "9-0"]);
    assert_eq!((late(), late()), (json!(0), json!(0)));
    assert_eq!(shop.cli("HGET", "cursors", &["d"]), "0-0", "what the old connection settled may not hold any more");
    let due = || shop.run("disconnect", &["devices", "online", "cursors"], &["d", "c2", "9-0"]);
    assert_eq!((due(), due()), (json!(1), json!(0)));
    assert_eq!(shop.cli("HGET", "cursors", &["d"]), "9-0");
    shop.connect("d", "main", "c3", "");
    shop.run("disconnect", &["devices", "online", "cursors"], &["d", "c3", "8-99"]);
    assert_eq!(shop.cli("HGET", "cursors", &["d"]), "9-0", "a cursor never goes back");
    assert_eq!(shop.cli("HLEN", "online", &[]), "0");
    assert_eq!(shop.cli("SCARD", "mains", &[]), "1", "it stays registered");
}

#[test]
fn a_device_is_forgotten_only_when_it_is_away_and_long_unseen() {
    let shop = Shop::fresh();
    shop.connect("d", "main", "c", "");
    let forget = |before: &str| shop.forget("d", before);
    assert_eq!(forget("99999999999999"), json!(0), "it is connected");
    shop.run("disconnect", &["devices", "online", "cursors"], &["d", "c", "0-0"]);
    assert_eq!(forget("1000"), json!(0), "it was seen since");
    assert_eq!((forget("99999999999999"), forget("99999999999999")), (json!(1), json!(0)));
    assert_eq!(shop.redis.cli(&["EXISTS", &shop.key("devices"), &shop.key("mains"), &shop.key("cursors")]), "0");
}

#[test]
fn an_operator_forgets_a_device_whatever_it_does_and_whatever_its_record_holds() {
    let shop = Shop::fresh();
    shop.connect("d", "main", "c", "");
    shop.set_attrs("d", "", "{\"a\":1}");
    shop.connect("e", "main", "c2", "");
    shop.cli("HSET", "devices", &["d", "no record"]);
    assert_eq!((shop.forget("d", ""), shop.forget("d", "")), (json!(1), json!(0)));
    for hash in ["devices", "cursors", "online"] {
        assert_eq!(shop.cli("HKEYS", hash, &[]), "e", "{hash}");
    }
    assert_eq!(shop.cli("SMEMBERS", "mains", &[]), "e");
    assert_eq!(shop.cli("EXISTS", "attrs", &[]), "0");
    shop.run("disconnect", &["devices", "online", "cursors"], &["e", "c2", "0-0"]);
    assert_eq!(shop.forget("e", ""), json!(1), "one that is away");
}

#[test]
fn a_login_that_names_groups_or_a_user_sets_them_and_another_keeps_them() {
    let shop = Shop::fresh();
    assert_eq!(shop.connect_as("d", "", None), json!(["0-0", "0-0", null, null]));
    assert_eq!(shop.connect_as("d", "ann", Some(&["1", "b"])), json!(["0-0", "0-0", null, "ann", "1", "b"]));
    assert_eq!(shop.connect_as("d", "", None), json!(["0-0", "0-0", null, "ann", "1", "b"]));
    assert_eq!(shop.record("d")["groups"], json!(["1", "b"]), "a name that looks like a number stays a text");
    assert_eq!(shop.connect_as("d", "", Some(&[])), json!(["0-0", "0-0", null, "ann"]));
    assert_eq!(shop.record("d").get("groups"), None, "no empty table, which could be a list or a map");
}

#[test]
fn a_change_of_membership_is_stored_with_its_entry_and_its_repeat_changes_nothing() {
    let shop = Shop::fresh();
    let before = shop.publish(&["r", "node", "10", "0", "-"]);
    shop.connect("d", "sub", "c", "{}");
    let known = shop.record("d");
    let joined = shop.membership("join", "g", "d", "2");
    assert_eq!((&joined[0], shop.membership("join", "g", "d", "2")), (&json!(0), json!([1])));
    assert!(id(&joined) > id(&before));
    assert_eq!(shop.cli("GET", "head", &[]), id(&joined));
    assert!(shop.cli("XREVRANGE", "log", &["+", "-", "COUNT", "1"]).ends_with("record"));
    let mut expected = known.clone();
    expected["groups"] = json!(["g"]);
    assert_eq!(shop.record("d"), expected, "the rest of the record stays");
    assert_eq!(shop.membership("leave", "g", "d", "2")[0], 0);
    assert_eq!(shop.membership("leave", "g", "d", "2"), json!([1]));
    assert_eq!(shop.record("d"), known, "the last group leaves no empty table");
    assert_eq!(shop.membership("bind", "ann", "d", "2")[0], 0);
    assert_eq!(shop.membership("bind", "ann", "d", "2"), json!([1]));
    assert_eq!(shop.membership("unbind", "bob", "d", "2"), json!([1]));
    assert_eq!(shop.membership("unbind", "ann", "d", "2")[0], 0);
    assert_eq!(shop.membership("bind", "bob", "d", "2")[0], 0);
    assert_eq!(shop.membership("unbind", "", "d", "2")[0], 0);
    assert_eq!(shop.membership("unbind", "", "d", "2"), json!([1]));
    assert_eq!(shop.record("d"), known);
    assert_eq!(shop.cli("XLEN", "log", &[]), "7", "one entry a change");
}

#[test]
fn a_change_of_membership_is_refused_for_a_stranger_and_beyond_the_limit_and_then_leaves_nothing() {
    let shop = Shop::fresh();
    assert_eq!(shop.membership("join", "g", "d", "2"), json!([2]));
    assert_eq!(shop.membership("leave", "g", "", "2"), json!([1]), "nobody is there");
    shop.connect_as("d", "", Some(&["a", "b"]));
    shop.connect_as("e", "", Some(&["a"]));
    assert_eq!(shop.membership("join", "g", "d", "2"), json!([3]));
    assert_eq!(shop.membership("join", "b", "d", "2"), json!([1]), "it is in it");
    assert_eq!(shop.membership("join", "g", "", "2"), json!([3]), "one cannot");
    assert_eq!(shop.record("e")["groups"], json!(["a"]), "so none does");
    assert_eq!(shop.cli("EXISTS", "log", &[]), "0");
    assert_eq!(shop.membership("leave", "a", "", "0")[0], 0, "whoever has too many can leave");
    assert_eq!((&shop.record("d")["groups"], shop.record("e").get("groups")), (&json!(["b"]), None));
    assert_eq!(shop.cli("XLEN", "log", &[]), "1", "one entry for all");
}

#[test]
fn attributes_are_set_only_where_they_are_still_what_was_read() {
    let shop = Shop::fresh();
    assert_eq!(shop.set_attrs("d", "", "{1}"), json!(2));
    shop.connect("d", "sub", "c", "");
    assert_eq!(shop.set_attrs("d", "{0}", "{1}"), json!(1), "there are none");
    assert_eq!((shop.set_attrs("d", "", "{1}"), shop.set_attrs("d", "", "{1}")), (json!(0), json!(1)));
    assert_eq!(shop.set_attrs("d", "{1}", "{2}"), json!(0));
    assert_eq!(shop.set_attrs("d", "{1}", "{3}"), json!(1));
    assert_eq!(shop.set_attrs("d", "{2}", "{2}"), json!(0), "where nothing changes");
    assert_eq!(shop.cli("HGET", "attrs", &["d"]), "{2}");
    assert_eq!((shop.set_attrs("d", "{2}", ""), shop.set_attrs("d", "{2}", "")), (json!(0), json!(1)));
    assert_eq!(shop.cli("EXISTS", "attrs", &[]), "0");
    assert_eq!(shop.set_attrs("d", "", ""), json!(0));
}

#[test]
fn an_eviction_ends_the_presence_it_means_and_no_other() {
    let shop = Shop::fresh();
    assert_eq!(shop.evict("d", "", ""), json!([1]));
    shop.connect("d", "main", "c1", "");
    shop.connect("d", "main", "c2", "");
    shop.connect("e", "main", "c1", "");
    assert_eq!(shop.evict("d", "c1", ""), json!([1]), "it was replaced");
    assert_eq!(shop.evict("d", "c", ""), json!([1]), "a part of the name is not the name");
    assert_eq!((shop.evict("d", "c2", ""), shop.evict("d", "c2", "")), (json!([0, "c2"]), json!([1])));
    assert_eq!(shop.evict("e", "", "last"), json!([0, "c1"]));
    assert_eq!(shop.cli("EXISTS", "online", &[]), "0");
    assert_eq!((shop.cli("HLEN", "devices", &[]), shop.cli("SCARD", "mains", &[])), ("2".into(), "2".into()));
}

#[test]
fn a_bar_ends_the_presence_and_refuses_every_login_until_it_is_gone() {
    let shop = Shop::fresh();
    assert_eq!(shop.bar("stranger", "pos"), json!(1), "one that never came");
    assert_eq!(shop.connect("stranger", "main", "c0", ""), Value::Null);
    assert_eq!(shop.cli("EXISTS", "devices", &[]), "0", "a refused login leaves nothing");
    shop.connect("d", "main", "c1", "");
    shop.connect("e", "sub", "c2", "");
    assert_eq!(shop.bar("d", "pos"), json!(1));
    let bar = shop.cli("HGET", "barred", &["d"]);
    assert_eq!((shop.bar("d", "other"), shop.cli("HGET", "barred", &["d"])), (json!(0), bar.clone()));
    assert!(bar.ends_with("\npos"), "{bar:?}");
    assert_eq!(shop.cli("HKEYS", "online", &[]), "e");
    assert_eq!(shop.connect("d", "main", "c3", ""), Value::Null);
    assert_eq!((shop.cli("HLEN", "devices", &[]), shop.cli("HKEYS", "online", &[])), ("2".into(), "e".into()));
    assert_eq!(shop.forget("d", ""), json!(1));
    assert_eq!(shop.connect("d", "main", "c3", ""), Value::Null, "who is forgotten stays barred");
    shop.cli("HDEL", "barred", &["d"]);
    assert_eq!(shop.connect("d", "main", "c3", "")[2], Value::Null, "nobody is replaced by its coming back");
}

#[test]
fn a_presence_is_given_back_where_there_is_none_and_nobody_ended_it() {
    let shop = Shop::fresh();
    let restore = |conn: &str| shop.run("restore", &["devices", "online", "barred"], &["d", conn, "node", "7", "main"]);
    assert_eq!(restore("c1"), json!(2), "it is not registered");
    shop.connect("d", "main", "c1", "");
    let presence = shop.cli("HGET", "online", &["d"]);
    assert_eq!((restore("c1"), restore("c0")), (json!(0), json!(1)));
    assert_eq!(shop.cli("HGET", "online", &["d"]), presence, "what is there stays");
    shop.cli("HDEL", "online", &["d"]);
    assert_eq!((restore("c1"), restore("c1"), restore("c2")), (json!(0), json!(0), json!(1)));
    assert_eq!(shop.cli("HGET", "online", &["d"]), "c1\nnode\n7\nmain");
    shop.evict("d", "", "");
    assert_eq!((restore("c1"), restore("c2")), (json!(2), json!(0)), "only the connection that was ended");
    shop.run("bar", &["barred", "devices", "online", "channel"], &["d", "pos", ""]);
    assert_eq!((restore("c2"), restore("c3")), (json!(2), json!(2)));
}
