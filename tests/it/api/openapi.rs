//! The document that describes the API: it has every row of the contract's table, and no other.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use serde_json::{Map, Value};

use crate::harness::{Api, NodeOptions, NodeProcess};
use crate::redis_server::RedisServer;

/// The contract's table: method, path, scope, and whether a key has to be for all shops.
const TABLE: &[(&str, &str, &str, bool)] = &[
    ("POST", "/v1/shops/{shop}/messages", "write", false),
    ("GET", "/v1/shops/{shop}/messages", "read", false),
    ("GET", "/v1/shops/{shop}/messages/{id}", "read", false),
    ("PUT", "/v1/shops/{shop}/messages/{id}/status", "write", false),
    ("GET", "/v1/shops/{shop}/devices", "read", false),
    ("GET", "/v1/shops/{shop}/devices/{device}", "read", false),
    ("DELETE", "/v1/shops/{shop}/devices/{device}", "operate", false),
    ("GET", "/v1/shops/{shop}/online", "read", false),
    ("POST", "/v1/shops/{shop}/devices/{device}/close", "operate", false),
    ("GET", "/v1/shops/{shop}/barred", "read", false),
    ("GET", "/v1/shops/{shop}/devices/{device}/bar", "read", false),
    ("PUT", "/v1/shops/{shop}/devices/{device}/bar", "operate", false),
    ("DELETE", "/v1/shops/{shop}/devices/{device}/bar", "operate", false),
    ("GET", "/v1/shops/{shop}/devices/{device}/attrs", "read", false),
    ("PUT", "/v1/shops/{shop}/devices/{device}/attrs", "write", false),
    ("PATCH", "/v1/shops/{shop}/devices/{device}/attrs", "write", false),
    ("GET", "/v1/shops/{shop}/groups", "read", false),
    ("GET", "/v1/shops/{shop}/groups/{group}", "read", false),
    ("PUT", "/v1/shops/{shop}/groups/{group}/devices/{device}", "write", false),
    ("DELETE", "/v1/shops/{shop}/groups/{group}/devices/{device}", "write", false),
    ("DELETE", "/v1/shops/{shop}/groups/{group}", "write", false),
    ("GET", "/v1/shops/{shop}/users", "read", false),
    ("GET", "/v1/shops/{shop}/users/{user}", "read", false),
    ("PUT", "/v1/shops/{shop}/users/{user}/devices/{device}", "write", false),
    ("DELETE", "/v1/shops/{shop}/users/{user}/devices/{device}", "write", false),
    ("GET", "/v1/connections/{conn}", "read", false),
    ("POST", "/v1/connections/{conn}/close", "operate", false),
    ("POST", "/v1/broadcast", "operate", true),
    ("GET", "/v1/shops", "read", true),
    ("GET", "/v1/nodes", "read", true),
    ("GET", "/v1/stats", "read", true),
];

/// What the API has beside the table, which may be added to.
const BESIDE: &[(&str, &str, &str, bool)] =
    &[("GET", "/v1/shops/{shop}/stats", "read", false), ("GET", "/v1/connections", "read", true)];

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// A request that the document describes.
#[derive(Debug, Clone)]
pub struct Operation {
    pub method: Method,
    pub path: String,
    /// The scope that a key needs.
    pub scope: String,
    /// All that the document says of it.
    pub body: Value,
}

/// What the document describes.
pub fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in object(&document["paths"]) {
        for (method, body) in object(item).iter().filter(|(name, _)| METHODS.contains(&name.as_str())) {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
            let scopes = &body["security"][0]["key"];
            let [scope] = list(scopes).as_slice() else { panic!("{method} {path}: {scopes}") };
            let scope = scope.as_str().expect("a text").to_owned();
            operations.push(Operation { method, path: path.clone(), scope, body: body.clone() });
        }
    }
    operations
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("an object, not {value}"))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("a list, not {value}"))
}

fn text(value: &Value) -> &str {
    let text = value.as_str().unwrap_or_else(|| panic!("a text, not {value}"));
    assert!(!text.is_empty());
    text
}

async fn document() -> Value {
    let node = NodeProcess::start(&NodeOptions::new(RedisServer::shared().url())).await;
    let reply = Api::at(node.api_listen()).get("/openapi.json").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    reply.json
}

#[tokio::test]
async fn the_document_has_every_row_of_the_contract_and_no_other() {
    let document = document().await;
    let row = |operation: &Operation| {
        let wants_all = text(&operation.body["description"]).contains("for all shops");
        (operation.method.to_string(), operation.path.clone(), operation.scope.clone(), wants_all)
    };
    let described: BTreeSet<_> = operations(&document).iter().map(row).collect();
    let wanted = TABLE
        .iter()
        .chain(BESIDE)
        .map(|(method, path, scope, wants_all)| (method.to_string(), path.to_string(), scope.to_string(), *wants_all));
    assert_eq!(described, wanted.collect());
}

#[tokio::test]
async fn the_document_is_openapi_3_1() {
    let document = document().await;
    assert_eq!(document["openapi"], "3.1.0");
    text(&document["info"]["title"]);
    text(&document["info"]["version"]);
    assert_eq!(document["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    let mut ids = BTreeSet::new();
    for operation in operations(&document) {
        let Operation { method, path, body, .. } = &operation;
        assert!(path.starts_with('/'), "{path}");
        assert!(ids.insert(text(&body["operationId"]).to_owned()), "{method} {path}: its operationId is another's");
        text(&body["summary"]);
        let of_path = document["paths"][path].get("parameters").into_iter();
        let parameters: Vec<&Value> = of_path.chain([&body["parameters"]]).flat_map(list).collect();
        let mut in_path: BTreeSet<&str> = BTreeSet::new();
        let mut named = BTreeMap::new();
        for parameter in parameters {
            let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
            assert!(["path", "query", "header"].contains(&place), "{parameter}");
            assert!(named.insert((place, name), ()).is_none(), "{method} {path} has {name} twice");
            object(&parameter["schema"]);
            if place == "path" {
                assert_eq!(parameter["required"], true, "{parameter}");
                in_path.insert(name);
            }
        }
        let in_template: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(in_path, in_template, "{method} {path}");
        if let Some(request) = body.get("requestBody") {
            object(&request["content"]["application/json"]["schema"]);
            assert!(request["required"].is_boolean(), "{request}");
        }
        let responses = object(&body["responses"]);
        assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
        for (status, response) in responses {
            assert!(status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()), "{status}");
            text(&response["description"]);
            if status.starts_with(['4', '5']) {
                object(&response["content"]["application/problem+json"]["schema"]);
            }
        }
    }
}

#[tokio::test]
async fn every_reference_of_the_document_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").map(text));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document().await;
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} is of another document"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}
