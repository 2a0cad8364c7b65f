//! A request as the handlers take it: who asks, the names in the path, the query and the body.

use std::borrow::Cow;
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::auth::ApiKey;
use crate::http::Reply;
use crate::http::api::problem::{Problem, json};
use crate::ids::Name;
use crate::protocol::list_limit;
use crate::relay::Relay;

/// Largest page of a list, in bytes, less what stands around its items.
const PAGE_BYTES_MAX: usize = (1 << 20) - 512;

/// See the module.
pub struct Ask {
    pub relay: Arc<Relay>,
    pub key: Arc<ApiKey>,
    pub path: Texts,
    pub query: Texts,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Named texts, of a path or of a query.
#[derive(Debug, Default)]
pub struct Texts(HashMap<String, String>);

impl Texts {
    /// The names in a path, as they were before they were written into it.
    ///
    /// # Errors
    /// What is no UTF-8.
    pub fn of_path<'a>(params: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Texts, Problem> {
        let decoded = params.map(|(name, text)| match percent_decode_str(text).decode_utf8() {
            Ok(text) => Ok((name.to_owned(), text.into_owned())),
            Err(_) => Err(Problem::bad_request(format!("{name}: is no UTF-8, percent-encoded"))),
        });
        decoded.collect::<Result<_, _>>().map(Texts)
    }

    /// The pairs of a query.
    ///
    /// # Errors
    /// What is no UTF-8, and a name that is given twice: whichever counted, the other would be ignored.
    pub fn of_query(query: &str) -> Result<Texts, Problem> {
        let mut texts = HashMap::new();
        for pair in query.split('&') {
            // What is no UTF-8 would be read as something else.
            if percent_decode_str(pair).decode_utf8().is_err() {
                let name = pair.split('=').next().unwrap_or_default();
                return Err(Problem::bad_request(format!("{name}: is no UTF-8, percent-encoded")));
            }
            for (name, text) in form_urlencoded::parse(pair.as_bytes()) {
                if texts.insert(name.to_string(), text.into_owned()).is_some() {
                    return Err(Problem::bad_request(format!("{name}: is given twice")));
                }
            }
        }
        Ok(Texts(texts))
    }

    /// The text of this name, if there is one.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// What the text of this name says, if there is one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn optional<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        let parsed = self.text(name).map(str::parse).transpose();
        parsed.map_err(|problem: T::Err| Problem::bad_request(format!("{name}: {problem}")))
    }

    /// What the text of this name says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn required<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T, Problem> {
        self.optional(name)?.ok_or_else(|| Problem::bad_request(format!("{name}: is missing")))
    }
}

impl Ask {
    /// Who asks, as messages and statuses name it.
    pub fn name(&self) -> Name {
        self.key.name.clone()
    }

    /// A page of a list that is held in memory, in the order of a name that each item has. It ends where it
    /// would pass a megabyte, but holds at least one item.
    ///
    /// # Errors
    /// A wrong `limit`.
    pub fn page<T: Serialize>(&self, items: Vec<T>, name_of: impl Fn(&T) -> Cow<'_, str>) -> Result<Reply, Problem> {
        #[derive(Serialize)]
        struct Page {
            items: Vec<Box<RawValue>>,
            next: Option<String>,
            /// How many there are in all, on this page and others.
            total: usize,
        }
        let limit = usize::from(list_limit(self.query.text("limit")).map_err(Problem::bad_request)?);
        let after = self.query.text("after").unwrap_or_default();
        let first = items.partition_point(|item| name_of(item).as_ref() <= after);
        let rest = items.get(first..).unwrap_or_default();
        let (mut shown, mut bytes) = (Vec::new(), 0);
        for item in rest.iter().take(limit) {
            let item = to_raw_value(item).map_err(|_| Problem::internal("the answer cannot be written"))?;
            bytes += item.get().len() + 1;
            if bytes > PAGE_BYTES_MAX && !shown.is_empty() {
                break;
            }
            shown.push(item);
        }
        let last = rest.get(..shown.len()).and_then(<[T]>::last).filter(|_| shown.len() < rest.len());
        let next = last.map(|last| name_of(last).into_owned());
        json(StatusCode::OK, &Page { items: shown, next, total: items.len() })
    }
}
