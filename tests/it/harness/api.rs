//! A back end that calls the HTTP API.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Who calls, and which node.
#[derive(Debug, Clone)]
pub struct Api {
    address: String,
    key: Option<String>,
    headers: Vec<(String, String)>,
}

/// What it was answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body as JSON; null where there is none.
    pub json: Value,
    pub text: String,
}

impl Reply {
    /// A header's text; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header of text"))
    }

    /// The items of a list.
    ///
    /// # Panics
    /// Where it is none.
    pub fn items(&self) -> &Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json["items"].as_array().unwrap_or_else(|| panic!("a list, not {}", self.text))
    }

    /// Checks that it is a problem with this status and code, told as RFC 9457 says.
    ///
    /// # Panics
    /// Where it is not.
    pub fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json["code"].as_str()), (status, Some(code)), "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.json["status"], status, "{}", self.text);
        assert!(self.json["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{}", self.text);
        assert!(!self.header("x-request-id").is_empty(), "every answer names its request");
        let is_retried = matches!(status, 429 | 503);
        assert_eq!(!self.header("retry-after").is_empty(), is_retried, "{:?}", self.headers);
    }
}

impl Api {
    /// A back end without a key, at `ip:port`.
    pub fn at(address: &str) -> Api {
        Api { address: address.into(), key: None, headers: Vec::new() }
    }

    /// The same with a key.
    pub fn key(&self, key: &str) -> Api {
        Api { key: Some(key.into()), ..self.clone() }
    }

    /// The same with one more header.
    pub fn header(&self, name: &str, value: &str) -> Api {
        let mut api = self.clone();
        api.headers.push((name.into(), value.into()));
        api
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(Method::POST, path, Some(body.to_string())).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.send(Method::PUT, path, Some(body.to_string())).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.send(Method::PATCH, path, Some(body.to_string())).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, None).await
    }

    /// Any request, with a body of any text.
    ///
    /// # Panics
    /// Without an answer within 10 s.
    pub async fn send(&self, method: Method, path: &str, body: Option<String>) -> Reply {
        let what = format!("{method} {path}");
        let sending = self.exchange(method, path, body);
        let reply = tokio::time::timeout(ANSWER_WITHIN, sending).await;
        reply.unwrap_or_else(|_| panic!("no answer to {what} in {ANSWER_WITHIN:?}"))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<String>) -> Reply {
        let stream = TcpStream::connect(&self.address).await.expect("the API listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        let driver = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.address);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        let has_type = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if body.is_some() && !has_type {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default()))).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let text = body.collect().await.expect("a whole body").to_bytes();
        driver.abort();
        let text = String::from_utf8(text.to_vec()).expect("a body of text");
        let json = match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|cause| panic!("{cause}: {text}")),
        };
        Reply { status: head.status.as_u16(), headers: head.headers, json, text }
    }
}
