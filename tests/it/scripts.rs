//! The contract of each script: its header against its body, and its body against a real Redis.

mod many;
mod registry;

use serde_json::{Value, json};

use crate::redis_server::{RedisServer, fresh_prefix};

const SCRIPTS: [&str; 17] = [
    "publish",
    "mark_delivered",
    "connect",
    "disconnect",
    "restore",
    "set_status",
    "read",
    "trim",
    "number",
    "forget",
    "membership",
    "set_attrs",
    "evict",
    "bar",
    "beat",
    "claim",
    "note_conn",
];

/// A shop of its own on the shared server, by raw key names.
struct Shop {
    redis: &'static RedisServer,
    stem: String,
}

impl Shop {
    fn fresh() -> Shop {
        Shop { redis: RedisServer::shared(), stem: format!("{}{{s}}", fresh_prefix()) }
    }

    fn run(&self, script: &str, keys: &[&str], args: &[&str]) -> Value {
        self.try_run(script, keys, args).unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    fn try_run(&self, script: &str, keys: &[&str], args: &[&str]) -> Result<Value, String> {
        let keys: Vec<String> = keys.iter().map(|key| self.key(key)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.redis.script(script, &keys, args)
    }

    /// The channel's name is the stem alone.
    fn key(&self, name: &str) -> String {
        if name == "channel" { self.stem.clone() } else { format!("{}:{name}", self.stem) }
    }

    fn cli(&self, command: &str, key: &str, args: &[&str]) -> String {
        self.redis.cli(&[&[command, &self.key(key)], args].concat())
    }

    fn publish(&self, args: &[&str]) -> Value {
        self.run("publish", &["log", "head", "channel", "mains", "devices"], args)
    }

    fn publish_once(&self, args: &[&str]) -> Value {
        self.run("publish", &["log", "head", "channel", "mains", "devices", "once:k"], args)
    }

    fn connect(&self, device: &str, role: &str, conn: &str, meta: &str) -> Value {
        let keys = ["devices", "mains", "cursors", "online", "head", "channel", "barred"];
        self.run("connect", &keys, &[device, role, conn, "node", meta, "99999999999999", "", "-"])
    }

    /// The same with a user, and with groups where they are named.
    fn connect_as(&self, device: &str, user: &str, groups: Option<&[&str]>) -> Value {
        let keys = ["devices", "mains", "cursors", "online", "head", "channel", "barred"];
        let said = ["sub", "c", "node", "", "99999999999999", user, if groups.is_some() { "=" } else { "-" }];
        self.run("connect", &keys, &[&[device][..], &said, groups.unwrap_or_default()].concat())
    }

    fn membership(&self, step: &str, name: &str, device: &str, groups_max: &str) -> Value {
        let args = [step, name, device, groups_max, "record", "node"];
        self.run("membership", &["log", "head", "devices", "channel"], &args)
    }

    fn set_attrs(&self, device: &str, expected: &str, attrs: &str) -> Value {
        self.run("set_attrs", &["devices", "attrs"], &[device, expected, attrs])
    }

    fn evict(&self, device: &str, conn: &str, last: &str) -> Value {
        self.run("evict", &["devices", "online", "channel"], &[device, conn, last])
    }

    fn bar(&self, device: &str, by: &str) -> Value {
        self.run("bar", &["barred", "devices", "online", "channel"], &[device, by, ""])
    }

    fn forget(&self, device: &str, seen_before: &str) -> Value {
        let keys = ["devices", "mains", "cursors", "online", "attrs", "channel"];
        self.run("forget", &keys, &[device, seen_before])
    }

    /// What the registry holds of a device, in JSON.
    fn record(&self, device: &str) -> Value {
        let unpack = "return cjson.encode(cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1])))";
        serde_json::from_str(&self.redis.cli(&["EVAL", unpack, "1", &self.key("devices"), device])).unwrap()
    }

    /// Marks, each of a device, the id through which, and the expired ids.
    fn mark(&self, marks: &[(&str, &str, &str)]) -> Value {
        let places: Vec<String> = (0..=marks.len()).map(|place| place.to_string()).collect();
        let mut args = vec![places[marks.len()].as_str()];
        args.extend(marks.iter().map(|mark| mark.0));
        args.extend(marks.iter().map(|mark| mark.1));
        for (place, mark) in places[1..].iter().zip(marks).filter(|(_, mark)| !mark.2.is_empty()) {
            args.extend([place, mark.2]);
        }
        self.run("mark_delivered", &["cursors", "expired"], &args)
    }

    fn set_status(&self, message: &str, status: &str, expect: &str, by: &str) -> Value {
        let args = [message, status, expect, by, "open", "record", "node"];
        self.run("set_status", &["log", "head", "status", "channel"], &args)
    }
}

fn id(reply: &Value) -> &str {
    reply[1].as_str().unwrap()
}

#[test]
fn every_header_states_flags_keys_reply_repeat_and_cost_and_the_body_agrees() {
    let dir = format!("{}/lua", env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().trim_end_matches(".lua").to_owned())
        .collect();
    // It is what stands around a script, and has no flags.
    found.retain(|name| name != "many");
    found.sort();
    let mut known = SCRIPTS.map(str::to_owned);
    known.sort();
    assert_eq!(found, known, "every script is tested here");

    for name in SCRIPTS {
        let text = std::fs::read_to_string(format!("{dir}/{name}.lua")).unwrap();
        let (header, body): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("#!lua") || line.starts_with("--"));
        let body = body.join("\n");
        assert!(
            ["#!lua", "#!lua flags=allow-oom", "#!lua flags=no-writes"].contains(&header[0]),
            "{name}: {}",
            header[0]
        );
        assert!(header[1].starts_with(&format!("-- {name}: ")), "{name}: {}", header[1]);
        for word in ["RETURN", "REPEAT", "COST"] {
            assert!(header.iter().any(|line| line.starts_with(&format!("-- {word} "))), "{name} states no {word}");
        }
        for list in ["KEYS", "ARGV"] {
            let stated = highest(&header.join("\n"), list);
            assert_eq!(highest(&body, list), stated, "{name}: {list} of the header and of the body");
        }
        assert!(!body.contains("':"), "{name} spells a key");
    }
}

/// The highest number in brackets behind `list`.
fn highest(text: &str, list: &str) -> usize {
    text.match_indices(&format!("{list}["))
        .filter_map(|(at, found)| text[at + found.len()..].split(']').next()?.parse().ok())
        .max()
        .unwrap_or(0)
}

#[test]
fn a_publish_stores_swaps_the_head_and_a_repeat_without_a_key_is_a_second_entry() {
    let shop = Shop::fresh();
    let first = shop.publish(&["r1", "node", "10", "0", "-"]);
    assert_eq!(first[0], 0);
    assert_eq!(shop.cli("GET", "head", &[]), id(&first));
    let second = shop.publish(&["r1", "node", "10", "0", "-"]);
    assert_ne!(id(&first), id(&second));
    assert_eq!(shop.cli("XLEN", "log", &[]), "2");
}

#[test]
fn a_publish_under_a_known_key_gives_the_first_id_even_where_it_would_be_refused_now() {
    let shop = Shop::fresh();
    let first = shop.publish_once(&["r", "node", "1", "60000", "-"]);
    assert_eq!(first[0], 0);
    assert_eq!(shop.publish_once(&["r", "node", "1", "60000", "m"]), json!([1, id(&first)]));
    assert_eq!(shop.cli("XLEN", "log", &[]), "1");
    let ttl: i64 = shop.cli("PTTL", "once:k", &[]).parse().unwrap();
    assert!((1..=60000).contains(&ttl), "{ttl}");
}

#[test]
fn a_publish_is_refused_without_its_audience_or_with_a_full_log_and_then_leaves_nothing() {
    let shop = Shop::fresh();
    assert_eq!(shop.publish_once(&["r", "node", "10", "60000", "m"]), json!([2]));
    assert_eq!(shop.publish_once(&["r", "node", "10", "60000", "d", "a", "b"]), json!([3]));
    assert_eq!(shop.publish_once(&["r", "node", "10", "60000", "r"]), json!([3]));
    assert_eq!(shop.publish_once(&["r", "node", "0", "60000", "-"]), json!([4]));
    assert_eq!(shop.redis.cli(&["EXISTS", &shop.key("log"), &shop.key("head"), &shop.key("once:k")]), "0");
    shop.connect("b", "main", "c1", "");
    assert_eq!(shop.publish(&["r", "node", "10", "0", "m"])[0], 0);
    assert_eq!(shop.publish(&["r", "node", "10", "0", "r"])[0], 0);
    let mut many: Vec<String> = (0..2500).map(|n| format!("x{n}")).collect();
    many.push("b".to_owned());
    let args: Vec<&str> = ["r", "node", "10", "0", "d"].into_iter().chain(many.iter().map(String::as_str)).collect();
    assert_eq!(shop.publish(&args)[0], 0, "beyond what unpack can take at once");
}

#[test]
fn a_mark_moves_forward_once_and_compares_ids_beyond_what_lua_counts_exactly() {
    let shop = Shop::fresh();
    shop.connect("d", "sub", "c", "");
    assert_eq!(shop.mark(&[("d", "9-0", ""), ("stranger", "9-0", "")]), json!(["0-0", null]));
    let through = |id: &str| shop.mark(&[("d", id, "")])[0].clone();
    assert_eq!(through("9-0"), json!(null), "the repeat");
    assert_eq!(through("9-10"), json!("9-0"));
    assert_eq!(through("10-9"), json!("9-10"), "10 is beyond 9");
    assert_eq!(through("9-11"), json!(null), "and does not go back");
    assert_eq!(through("10-10"), json!("10-9"));
    assert_eq!(through("18446744073709551614-18446744073709551614"), json!("10-10"));
    let from = "18446744073709551614-18446744073709551614";
    assert_eq!(through("18446744073709551614-18446744073709551615"), json!(from));
    assert_eq!(through(from), json!(null));
    assert_eq!(shop.cli("HEXISTS", "cursors", &["stranger"]), "0");
}

#[test]
fn marks_of_one_device_in_one_call_apply_in_order_and_expiries_count_once() {
    let shop = Shop::fresh();
    shop.connect("a", "sub", "c", "");
    shop.connect("b", "sub", "c2", "");
    let twice = [("a", "5-0", "3-0,5-0,6-0"), ("a", "4-0", "4-0"), ("a", "7-0", "3-0,7-0")];
    assert_eq!(shop.mark(&twice), json!(["0-0", null, "5-0"]));
    assert_eq!(shop.mark(&twice), json!([null, null, null]));
    shop.mark(&[("b", "5-0", "5-0")]);
    assert_eq!(shop.cli("HGET", "expired", &["3-0"]), "a");
    assert_eq!(shop.cli("HGET", "expired", &["5-0"]), "a\nb");
    assert_eq!(shop.cli("HGET", "expired", &["7-0"]), "a");
    assert_eq!(shop.cli("HLEN", "expired", &[]), "3", "neither 4-0 nor 6-0 lay on the way");
}

#[test]
fn the_first_to_deal_wins_and_its_repeat_tells_nothing() {
    let shop = Shop::fresh();
    let published = shop.publish(&["r", "node", "10", "0", "-"]);
    let message = id(&published);
    let (mine, other) = ("d\nt1\nmain", "a\npos");
    assert_eq!(shop.set_status(message, "done", "", mine)[0], 0);
    assert_eq!(shop.set_status(message, "done", "", mine), json!([1]));
    assert_eq!(shop.set_status(message, "done", "", other), json!([2, "done", mine]));
    assert_eq!(shop.set_status(message, "late", "", mine), json!([2, "done", mine]));
    assert_eq!(shop.set_status(message, "late", "open", other), json!([2, "done", mine]));
    assert_eq!(shop.set_status(message, "late", "done", other)[0], 0);
    assert_eq!(shop.set_status("1-1", "done", "", mine), json!([3]));
    assert_eq!(shop.cli("XLEN", "log", &[]), "3", "one message, two changes");
}

#[test]
fn an_expected_status_is_the_initial_one_while_nobody_dealt() {
    let shop = Shop::fresh();
    let published = shop.publish(&["r", "node", "10", "0", "-"]);
    assert_eq!(shop.set_status(id(&published), "done", "paid", "a\nx"), json!([2, "open", null]));
    assert_eq!(shop.set_status(id(&published), "done", "open", "a\nx")[0], 0);
}

#[test]
fn a_page_ends_at_its_limits_and_says_whether_the_log_does() {
    let shop = Shop::fresh();
    let ids: Vec<String> =
        (0..130).map(|_| id(&shop.publish(&["12345678", "node", "1000", "0", "-"])).to_owned()).collect();
    let read = |after: &str, entries: &str, bytes: &str| {
        let reply = shop.run("read", &["log", "status", "expired"], &[after, entries, bytes]);
        let reply = reply.as_array().unwrap().clone();
        (
            reply[0].as_i64().unwrap(),
            reply[1..].chunks(4).map(|entry| entry[0].as_str().unwrap().to_owned()).collect::<Vec<_>>(),
        )
    };
    assert_eq!(read("0-0", "1000", "100000"), (1, ids.clone()));
    assert_eq!(read("0-0", "130", "100000"), (1, ids.clone()), "exactly all is all");
    assert_eq!(read("0-0", "129", "100000"), (0, ids[..129].to_vec()));
    assert_eq!(read("0-0", "128", "100000"), (0, ids[..128].to_vec()));
    assert_eq!(read("0-0", "64", "100000"), (0, ids[..64].to_vec()));
    assert_eq!(read("0-0", "1000", "24"), (0, ids[..3].to_vec()));
    assert_eq!(read(&ids[1], "1000", "1"), (0, ids[2..3].to_vec()), "one entry at least");
    assert_eq!(read(&ids[129], "10", "10"), (1, Vec::new()));
}

#[test]
fn a_trim_removes_entries_with_what_is_remembered_of_them() {
    let shop = Shop::fresh();
    let ids: Vec<String> = (0..1100).map(|n| format!("{}-1", n + 1)).collect();
    for id in &ids {
        shop.cli("XADD", "log", &[id, "e", "r"]);
    }
    for hash in ["status", "expired", "numbers"] {
        shop.cli("HSET", hash, &[&ids[0], "x", &ids[1099], "y"]);
    }
    let trim = |through: &str, max: &str| shop.run("trim", &["log", "status", "expired", "numbers"], &[through, max]);
    assert_eq!(trim(&ids[1], "1"), json!(1));
    assert_eq!(trim("1099-0", "100000"), json!(1097), "over several batches");
    assert_eq!(trim("1099-0", "100000"), json!(0), "the repeat");
    assert_eq!(shop.cli("XLEN", "log", &[]), "2");
    for hash in ["status", "expired", "numbers"] {
        assert_eq!(shop.cli("HKEYS", hash, &[]), ids[1099], "{hash}");
    }
}

#[test]
fn a_number_is_taken_by_a_message_of_the_log_that_has_none_and_by_no_other() {
    let shop = Shop::fresh();
    for id in ["1-1", "2-0", "3-0"] {
        shop.cli("XADD", "log", &[id, "e", "r"]);
    }
    let number = |pairs: &[&str]| shop.run("number", &["log", "numbers"], pairs);
    assert_eq!(number(&["2-0", "7", "9-0", "8", "1-1", "9"]), json!(["7", null, "9"]));
    assert_eq!(number(&["2-0", "10", "3-0", "11", "1-1", "12"]), json!(["7", "11", "9"]), "what was given stays");
    assert_eq!(number(&["4-0", "13", "4-0", "14"]), json!([null, null]));
    shop.cli("XADD", "log", &["5-0", "e", "r"]);
    assert_eq!(number(&["5-0", "9007199254740991", "5-0", "15"]), json!(["9007199254740991", "9007199254740991"]));
    assert_eq!(shop.cli("HLEN", "numbers", &[]), "4", "nothing is kept of a message that is not there");
    assert_eq!(number(&[]), json!([]));
}

#[test]
fn a_beat_lists_who_lives_and_drops_who_has_long_been_gone() {
    let shop = Shop::fresh();
    shop.cli("HSET", "nodes", &["old", "1000 1 1 0.1", "broken", "x"]);
    let reply = shop.run("beat", &["nodes"], &["n", "1 2 3 4 0.1"]);
    let field = format!("{} 1 2 3 4 0.1", reply[0].as_str().unwrap());
    assert_eq!(reply, json!([reply[0], "n", field]));
    assert_eq!(shop.cli("HLEN", "nodes", &[]), "1");
}

#[test]
fn a_connection_is_noted_with_its_owner_and_forgotten_with_its_end() {
    let shop = Shop::fresh();
    let note = |conn: &str, whose: &str| shop.run("note_conn", &["conns"], &[conn, whose, "60"]);
    assert_eq!((note("c1", "s\ntill"), note("c2", "s\nhand"), note("c1", "s\ntill")), (json!(1), json!(1), json!(0)));
    assert_eq!(shop.cli("HGET", "conns", &["c1"]), "s\ntill");
    assert_eq!((note("c1", ""), note("c1", "")), (json!(1), json!(0)));
    assert_eq!(shop.cli("HGETALL", "conns", &[]), "c2\ns\nhand");
    let left: u64 = shop.cli("TTL", "conns", &[]).parse().unwrap();
    assert!((1..=60).contains(&left), "{left}");
}

#[test]
fn a_claim_is_held_by_one_node_and_renewed_by_it_alone() {
    let shop = Shop::fresh();
    let claim = |node: &str, ms: &str| shop.run("claim", &["lease"], &[node, ms]);
    assert_eq!((claim("a", "60000"), claim("b", "60000"), claim("a", "90000")), (json!(1), json!(0), json!(1)));
    let ttl: i64 = shop.cli("PTTL", "lease", &[]).parse().unwrap();
    assert!(ttl > 60000, "{ttl}");
}
