//! The HTTP API: every row of its table, and what it refuses.

mod bad_input;
mod barring;
mod broadcast;
mod browsers;
mod churn;
mod closing;
mod connections;
mod devices;
mod keys;
mod members;
mod messages;
mod openapi;
mod outages;
mod presence;
mod refusals;
mod requests;
mod tokens;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::harness::Api;

/// A path below a shop's, whatever characters the shop's name has.
fn of_shop(shop: &str, rest: &str) -> String {
    format!("/v1/shops/{}{rest}", encoded(shop))
}

/// A name as it stands in a path or a query.
fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// A field of every item of a list, in order.
async fn listed(api: &Api, path: &str, field: &str) -> Vec<Value> {
    api.get(path).await.items().iter().map(|item| item[field].clone()).collect()
}

/// The items of a list of names.
async fn names(api: &Api, path: &str) -> Vec<String> {
    let reply = api.get(path).await;
    reply.items().iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}
