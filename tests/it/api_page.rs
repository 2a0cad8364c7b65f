//! docs/api.md, and the README's example, against the code: the examples are run as they stand there, and
//! answer what stands there.
//!
//! In the page a ```sh block is an example and the ```http block after it its answer, in which `…` stands
//! for anything. Variables that an example sets hold for those after it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Api, Device, Login, NodeProcess, SOON, embedded_options, eventually};

/// Where the API listens by default, and in the examples.
const ADDRESS: &str = "127.0.0.1:8081";
/// What stands for anything.
const ANY: &str = "…";

/// A fenced block of the page.
struct Block {
    /// The heading that it stands under.
    section: String,
    language: String,
    text: String,
    line: usize,
}

fn blocks(page: &str) -> Vec<Block> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let (mut blocks, mut section, mut open) = (Vec::new(), String::new(), None::<Block>);
    for (n, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                let (section, language) = (section.clone(), language.to_owned());
                open = Some(Block { section, language, text: String::new(), line: n + 1 });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text.extend([line, "\n"]),
            (None, None) => section = line.strip_prefix("## ").map_or(section, str::to_owned),
        }
    }
    blocks
}

/// What an example was answered.
#[derive(Debug)]
struct Answer {
    status_line: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// Runs examples one after the other.
struct Shell {
    dir: TempDir,
    /// The lines that set variables.
    variables: String,
    answer: Option<Answer>,
    /// The method and URL of each request.
    requests: Vec<String>,
}

impl Shell {
    fn new() -> Shell {
        let found = Command::new("curl").arg("--version").output();
        if found.is_err_and(|cause| cause.kind() == ErrorKind::NotFound) {
            panic!("the tests need curl: apt-get install curl, or ./test.sh, which does it");
        }
        Shell { dir: TempDir::new().unwrap(), variables: String::new(), answer: None, requests: Vec::new() }
    }

    /// Runs a block against the API at this address.
    fn run(&mut self, block: &Block, api: &str) {
        let at = format!("the example in line {} of its page", block.line);
        let mut script = String::new();
        for line in block.text.lines() {
            let line = self.of_the_answer(line).unwrap_or_else(|| line.to_owned());
            let line = line.replace(ADDRESS, api);
            let is_set =
                line.split_once('=').is_some_and(|(name, _)| name.bytes().all(|byte| byte.is_ascii_uppercase()));
            let part = if is_set { &mut self.variables } else { &mut script };
            part.extend([line.as_str(), "\n"]);
        }
        let [head, body] = ["head", "body"].map(|name| self.dir.path().join(name).display().to_string());
        let curl =
            format!("command curl -sS --max-time 10 -D '{head}' -o '{body}' -w '%{{method}} %{{url_effective}}\\n'");
        let variables = &self.variables;
        let whole = format!("set -euo pipefail\ncurl() {{ {curl} \"$@\"; }}\n{variables}API=http://{api}\n{script}");
        let output = Command::new("bash").args(["-c", &whole]).output().expect("bash can be run");
        assert!(output.status.success(), "{at}: {script}{}", String::from_utf8_lossy(&output.stderr));
        let requests = String::from_utf8(output.stdout).expect("URLs are text");
        if requests.is_empty() {
            return;
        }
        self.requests.extend(requests.lines().map(|line| line.replace(&format!("http://{api}"), "")));
        let head = std::fs::read_to_string(head).unwrap();
        let mut lines = head.lines();
        let status_line = lines.next().expect("a status line").trim_end().to_owned();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        // Without a body curl makes no file.
        let body = if status_line.contains(" 204 ") { String::new() } else { std::fs::read_to_string(body).unwrap() };
        self.answer = Some(Answer { status_line, headers, body });
    }

    /// `NAME=value   # the "member" in the answer above`, with what the answer really has.
    fn of_the_answer(&self, line: &str) -> Option<String> {
        let (setting, member) = line.split_once("# the \"")?;
        let member = member.strip_suffix("\" in the answer above")?;
        let body: Value = serde_json::from_str(&self.answer.as_ref()?.body).ok()?;
        let value = first(&body, member)?.as_str()?;
        Some(format!("{}={value}", setting.split_once('=')?.0))
    }
}

/// The first member of this name.
fn first<'a>(value: &'a Value, member: &str) -> Option<&'a Value> {
    match value {
        Value::Object(members) => {
            members.get(member).or_else(|| members.values().find_map(|value| first(value, member)))
        }
        Value::Array(items) => items.iter().find_map(|item| first(item, member)),
        _ => None,
    }
}

/// Checks an answer against what the page shows.
fn compare(answer: &Answer, shown: &Block) {
    let at = format!("docs/api.md:{}: {answer:?}", shown.line);
    let (head, body) = shown.text.split_once("\n\n").unwrap_or((&shown.text, ""));
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some(answer.status_line.as_str()), "{at}");
    for line in lines {
        let (name, wanted) = line.split_once(": ").unwrap_or_else(|| panic!("{at}: no header: {line}"));
        let is_there = |(had, value): &(String, String)| name.eq_ignore_ascii_case(had) && text_fits(value, wanted);
        assert!(answer.headers.iter().any(is_there), "{at}: no header {line}");
    }
    if body.trim().is_empty() {
        assert_eq!(answer.body, "", "{at}");
        return;
    }
    let pattern = pattern(body).unwrap_or_else(|cause| panic!("{at}: {cause}: {body}"));
    let had: Value = serde_json::from_str(&answer.body).unwrap_or_else(|cause| panic!("{at}: {cause}"));
    assert!(fits(&had, &pattern), "{at}\nis not as shown:\n{body}");
}

/// The body as JSON: a `…` outside of a text becomes one, a last one of an object a member of that name.
fn pattern(body: &str) -> serde_json::Result<Value> {
    let quoted = body.split('"').enumerate().map(|(n, part)| match n % 2 {
        0 => part.replace(", …}", ", \"…\": \"…\"}").replace(": …", ": \"…\""),
        _ => part.to_owned(),
    });
    serde_json::from_str(&quoted.collect::<Vec<_>>().join("\""))
}

fn fits(had: &Value, pattern: &Value) -> bool {
    match (had, pattern) {
        (_, Value::String(any)) if any == ANY => true,
        (Value::String(had), Value::String(pattern)) => text_fits(had, pattern),
        (Value::Array(had), Value::Array(pattern)) => {
            had.len() == pattern.len() && had.iter().zip(pattern).all(|(had, pattern)| fits(had, pattern))
        }
        (Value::Object(had), Value::Object(pattern)) => {
            let shown = |name: &String| pattern.contains_key(name) || pattern.contains_key(ANY);
            let names = pattern.keys().filter(|name| *name != ANY);
            had.keys().all(shown) && { names }.all(|name| had.get(name).is_some_and(|had| fits(had, &pattern[name])))
        }
        (had, pattern) => had == pattern,
    }
}

/// Whether the text has the parts of the pattern, with anything between them.
fn text_fits(text: &str, pattern: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once(ANY) else { return text == pattern };
    let Some(text) = text.strip_prefix(begin) else { return false };
    (0..=text.len()).any(|at| text.is_char_boundary(at) && text_fits(&text[at..], rest))
}

/// The devices that the page says are there.
async fn devices(node: &NodeProcess) -> [Device; 2] {
    let url = node.ws_url();
    let meta = serde_json::json!({"model": "T2"});
    let till = Login::main("s1", "till-1").ack_by_pong().meta(meta).on(&url).await;
    let hand = Login::sub("s1", "hand-1").ack_by_pong().on(&url).await;
    Login::sub("s1", "hand-2").on(&url).await.close().await;
    let api = Api::at(node.api_listen());
    let is_away = async || api.get("/v1/shops/s1/online").await.json["total"] == 2;
    eventually(SOON, "hand-2 is away", is_away).await;
    [till, hand]
}

#[tokio::test]
async fn the_examples_of_the_api_page_answer_what_it_shows() {
    let blocks = blocks("docs/api.md");
    let (options, _dir) = embedded_options();
    let node = NodeProcess::start(&options).await;
    let devices = devices(&node).await;
    let toml = blocks.iter().find(|block| block.language == "toml").expect("the page shows a keys file");
    let files = TempDir::new().unwrap();
    let keys = files.path().join("keys.toml");
    std::fs::write(&keys, &toml.text).unwrap();
    let (options, _other) = embedded_options();
    let guarded = NodeProcess::start(&options.set("API_KEYS_FILE", &keys.display().to_string())).await;

    let mut shell = Shell::new();
    for (n, block) in blocks.iter().enumerate() {
        let api = if block.section == "Keys" { guarded.api_listen() } else { node.api_listen() };
        match block.language.as_str() {
            "sh" => {
                shell.run(block, api);
                let is_answered = blocks.get(n + 1).is_some_and(|next| next.language == "http");
                assert_eq!(
                    is_answered,
                    block.text.contains("curl"),
                    "docs/api.md:{}: what does it answer?",
                    block.line
                );
            }
            "http" => compare(shell.answer.as_ref().expect("a request before it"), block),
            "console" | "toml" => {}
            other => panic!("docs/api.md:{}: nothing checks {other:?}", block.line),
        }
    }
    drop(devices);
    assert_every_route_is_shown(&shell.requests, &Api::at(node.api_listen()).get("/openapi.json").await.json);
}

#[tokio::test]
async fn the_example_of_the_readme_sends_a_message_and_shows_who_has_it() {
    let (options, _dir) = embedded_options();
    let node = NodeProcess::start(&options).await;
    let mut till = Login::main("s1", "till-1").on(&node.ws_url()).await;
    let blocks = blocks("README.md");
    let mut shell = Shell::new();
    for block in blocks.iter().filter(|block| block.section == "Back ends") {
        shell.run(block, node.api_listen());
    }
    let message = till.expect("message").await;
    let shown: Value = serde_json::from_str(&shell.answer.expect("an answer").body).unwrap();
    assert_eq!(shown["items"][0]["id"], message["id"], "{shown}");
    assert_eq!(shown["items"][0]["delivered"], serde_json::json!({"till-1": false}));
}

fn assert_every_route_is_shown(requests: &[String], openapi: &Value) {
    let asked = requests.iter().map(|request| request.split('?').next().unwrap_or_default());
    let asked: BTreeSet<&str> = asked.collect();
    for (path, operations) in openapi["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys().filter(|name| *name != "parameters") {
            let wanted = format!("{} {path}", method.to_uppercase());
            let is_it = |request: &&str| {
                let (had, wanted) = (request.split('/'), wanted.split('/'));
                had.clone().count() == wanted.clone().count()
                    && had.zip(wanted).all(|(had, wanted)| wanted.starts_with('{') || had == wanted)
            };
            assert!(asked.iter().any(is_it), "docs/api.md does not show {wanted}");
        }
    }
}

#[test]
fn a_pattern_fits_what_differs_only_where_it_may() {
    let shown = pattern(r#"{"id": "…", "at": …, "list": [1, {"a": …}], "text": "x…z", "none": null}"#).unwrap();
    let fitting = |body: &str| fits(&serde_json::from_str(body).unwrap(), &shown);
    assert!(fitting(r#"{"id":"1-0","at":5,"list":[1,{"a":null}],"text":"xyz","none":null}"#));
    for wrong in [
        r#"{"id":"1-0","at":5,"list":[1,{"a":null}],"text":"xy","none":null}"#,
        r#"{"id":"1-0","at":5,"list":[1],"text":"xyz","none":null}"#,
        r#"{"id":"1-0","at":5,"list":[1,{"a":null}],"text":"xyz","none":0}"#,
        r#"{"id":"1-0","list":[1,{"a":null}],"text":"xyz","none":null}"#,
        r#"{"id":"1-0","at":5,"list":[1,{"a":null}],"text":"xyz","none":null,"more":1}"#,
    ] {
        assert!(!fitting(wrong), "{wrong}");
    }
    let open = pattern(r#"{"a": 1, …}"#).unwrap();
    assert!(fits(&serde_json::json!({"a": 1, "b": 2}), &open) && !fits(&serde_json::json!({"a": 2}), &open));
}
