//! Several calls of a script in one, as the engine puts them together.

use serde_json::{Value, json};

use super::Shop;

fn text(script: &str) -> String {
    let read = |name: &str| std::fs::read_to_string(format!("{}/lua/{name}.lua", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let script = read(script);
    let (flags, body) = script.split_once('\n').unwrap();
    let around = read("many");
    assert_eq!(around.matches("-- BODY\n").count(), 1);
    format!("{flags}\n{}", around.replace("-- BODY\n", body))
}

/// Calls of a script, each with its keys and arguments, all of one shop: the items of each answer, or its error.
fn run(shop: &Shop, script: &str, calls: &[(&[&str], &[&str])]) -> Vec<Result<Vec<Value>, String>> {
    let keys: Vec<String> = calls.iter().flat_map(|(keys, _)| keys.iter().map(|key| shop.key(key))).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let count = calls.len().to_string();
    let sizes: Vec<String> =
        calls.iter().flat_map(|(keys, args)| [keys.len().to_string(), args.len().to_string()]).collect();
    let mut args = vec![count.as_str()];
    args.extend(sizes.iter().map(String::as_str));
    args.extend(calls.iter().flat_map(|(_, args)| args.iter().copied()));
    let answers = shop.redis.eval(&text(script), &keys, &args).unwrap();
    let mut items = answers.as_array().unwrap().iter().cloned();
    let mut answer = || {
        let count = items.next().unwrap().as_i64().unwrap();
        let Ok(count) = usize::try_from(count) else { return Err(items.next().unwrap().as_str().unwrap().to_owned()) };
        Ok(items.by_ref().take(count).collect())
    };
    let answers = calls.iter().map(|_| answer()).collect();
    assert_eq!(items.next(), None);
    answers
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
    let (first, second) = (answers[0].as_ref().unwrap()[1].clone(), answers[1].as_ref().unwrap()[1].clone());
    assert_eq!(
        answers,
        [Ok(vec![json!(0), first]), Ok(vec![json!(0), second.clone()]), Ok(vec![json!(3)]), Ok(vec![json!(1), second])]
    );
    assert_eq!(shop.cli("XLEN", "log", &[]), "2");
    let head = shop.cli("GET", "head", &[]);
    assert_eq!(answers[3], Ok(vec![json!(1), json!(head)]), "what came before in the same call counts");
}

#[test]
fn a_call_that_fails_leaves_the_others_as_they_are() {
    let shop = Shop::fresh();
    shop.cli("SET", "broken", &["x"]);
    let good = ["log", "head", "channel", "mains", "devices"];
    let bad = ["broken", "head", "channel", "mains", "devices"];
    let args = ["record", "node", "9", "0", "-"];
    let answers = run(&shop, "publish", &[(&good, &args), (&bad, &args), (&good, &args)]);
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(answers[1].as_ref().unwrap_err().starts_with("WRONGTYPE "), "{answers:?}");
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
    assert!(answers[0].as_ref().unwrap_err().starts_with("LATE "), "{answers:?}");
    assert_eq!(answers[1], Ok(vec![json!(null)]));
    assert_eq!(answers[2].as_ref().unwrap()[0], json!("0-0"));
}
