//! Several calls of a script in one, as the engine puts them together.

use serde_json::{Value, json};

use super::{Shop, id};

fn text(script: &str) -> String {
    let read = |name: &str| std::fs::read_to_string(format!("{}/lua/{name}.lua", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let script = read(script);
    let (flags, body) = script.split_once('\n').unwrap();
    let around = read("many");
    assert_eq!(around.matches("-- BODY\n").count(), 1);
    format!("{flags}\n{}", around.replace("-- BODY\n", body))
}

/// Calls of a script, each with its keys and arguments, all of one shop.
fn run(shop: &Shop, script: &str, calls: &[(&[&str], &[&str])]) -> Vec<Value> {
    let keys: Vec<String> = calls.iter().flat_map(|(keys, _)| keys.iter().map(|key| shop.key(key))).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let count = calls.len().to_string();
    let sizes: Vec<String> =
        calls.iter().flat_map(|(keys, args)| [keys.len().to_string(), args.len().to_string()]).collect();
    let mut args = vec![count.as_str()];
    args.extend(sizes.iter().map(String::as_str));
    args.extend(calls.iter().flat_map(|(_, args)| args.iter().copied()));
    let answers = shop.redis.eval(&text(script), &keys, &args).unwrap();
    answers.as_array().unwrap().clone()
}

#[test]
fn each_call_has_its_own_keys_and_arguments_and_its_own_answer() {
    let shop = Shop::fresh();
    shop.connect("till", "main", "c", "");
    let keys = ["log", "head", "channel", "mains", "devices"];
    let (unkeyed, checked) = (["one", "node", "9", "0", "m"], ["three", "node", "9", "0", "d", "nobody"]);
    let (keyed, once) = (["two", "node", "9", "60000", "-"], [&keys[..], &["once:k"]].concat());
    let calls: [(&[&str], &[&str]); 4] = [(&keys, &unkeyed), (&once, &keyed), (&keys, &checked), (&once, &keyed)];
    let answers = run(&shop, "publish", &calls);
    let (first, second) = (id(&answers[1]), id(&answers[3]));
    assert_eq!(
        answers,
        [json!(1), json!([0, first]), json!(1), json!([0, second]), json!(1), json!([3]), json!(1), json!([1, second])]
    );
    assert_eq!(shop.cli("XLEN", "log", &[]), "2");
    assert_eq!(shop.cli("GET", "head", &[]), second, "what came before in the same call counts");
}

#[test]
fn a_call_that_fails_leaves_the_others_as_they_are() {
    let shop = Shop::fresh();
    shop.cli("SET", "broken", &["x"]);
    let good = ["log", "head", "channel", "mains", "devices"];
    let bad = ["broken", "head", "channel", "mains", "devices"];
    let args = ["record", "node", "9", "0", "-"];
    let answers = run(&shop, "publish", &[(&good, &args), (&bad, &args), (&good, &args)]);
    assert_eq!((&answers[0], &answers[2], &answers[4]), (&json!(1), &json!(0), &json!(1)));
    assert!(answers[3].as_str().unwrap().starts_with("WRONGTYPE "), "{answers:?}");
    assert_eq!(shop.cli("XLEN", "log", &[]), "2");
}

#[test]
fn an_error_that_a_script_answers_is_told_as_one_and_nothing_is_an_answer_too() {
    let shop = Shop::fresh();
    let keys = ["devices", "mains", "cursors", "online", "head", "channel", "barred"];
    shop.bar("bad", "api");
    let late = ["till", "main", "c1", "node", "", "1", "", "-"];
    let barred = ["bad", "main", "c2", "node", "", "99999999999999", "", "-"];
    let fine = ["till", "main", "c3", "node", "", "99999999999999", "", "-"];
    let answers = run(&shop, "connect", &[(&keys, &late), (&keys, &barred), (&keys, &fine)]);
    assert!(answers[0] == json!(0) && answers[1].as_str().unwrap().starts_with("LATE "), "{answers:?}");
    assert_eq!((&answers[2], &answers[3]), (&json!(1), &json!(null)));
    assert_eq!((&answers[4], &answers[5][0]), (&json!(1), &json!("0-0")));
}
