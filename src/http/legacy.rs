//! The old server's HTTP routes, on the public listener.
//!
//! Owns how their parameters are found (in the path, the query or a form) and the form of their
//! answers, which always have the status 200. What they ask for is done by `relay`.

#[cfg(any(test, fuzzing))]
pub mod properties;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Request, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::Value as Json;
use serde_json::value::{RawValue, to_raw_value};

use crate::auth::{ApiKey, Scope};
use crate::http::{Reply, reply};
use crate::ids::{Name, ShopId, unix_ms};
use crate::message::Role;
use crate::protocol::ErrorCode;
use crate::protocol::legacy::{self, Answer, Listed};
use crate::relay::{OnlineFilter, Relay};
use crate::session::Failure;

/// What every path begins with.
const STEM: &str = "/api.php/index/index/";
/// How long a form may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The `data` of an answer, where it has some.
type Data = Option<Box<RawValue>>;

/// A route of the old server.
#[derive(Clone, Copy)]
enum Route {
    MessageList,
    Deal,
    CheckOnlineMain,
    NotifyMain,
}

/// Whether a request is for the old server.
pub fn is_route(path: &str) -> bool {
    path.starts_with(STEM)
}

/// Answers a request; `is_local` says that it came to a loopback address.
pub async fn answer(relay: Arc<Relay>, request: Request<Incoming>, is_local: bool) -> Reply {
    let began = Instant::now();
    let outcome = handle(&relay, request, is_local).await;
    let (is_done, msg, data) = match &outcome {
        Ok(data) => (true, "ok", data.as_ref()),
        Err(failure) => (false, message_of(failure), None),
    };
    let told = Answer { is_done, msg, data, at_ms: unix_ms(), took: began.elapsed() };
    // Values that came from JSON can be written as JSON.
    reply(StatusCode::OK, "application/json; charset=utf-8", serde_json::to_vec(&told).unwrap_or_default())
}

fn message_of(failure: &Failure) -> &str {
    match failure.code {
        ErrorCode::NoMainDevice => legacy::NO_MAIN_DEVICE,
        ErrorCode::Unauthorized | ErrorCode::Forbidden => "unauthorized",
        ErrorCode::RateLimited => "rate_limited",
        _ => &failure.message,
    }
}

async fn handle(relay: &Relay, request: Request<Incoming>, is_local: bool) -> Result<Data, Failure> {
    let path = request.uri().path().to_owned();
    let mut parts = path.strip_prefix(STEM).unwrap_or_default().split('/');
    let route = match parts.next().unwrap_or_default() {
        "messageList" => Route::MessageList,
        "deal" => Route::Deal,
        "check_online_main" => Route::CheckOnlineMain,
        "notify_main" => Route::NotifyMain,
        _ => return Err(Failure::new(ErrorCode::NotFound, "no such path")),
    };
    let key = request.headers().get(AUTHORIZATION).and_then(|text| text.to_str().ok()).map(str::to_owned);
    let mut params = Params::default();
    params.add_pairs(&mut parts)?;
    params.add_form(request.uri().query().unwrap_or_default().as_bytes());
    params.add_body(request, relay.session.frame_bytes).await?;
    let asking = Asking { relay, params, authorization: key, is_local };
    match route {
        Route::MessageList => asking.message_list().await,
        Route::Deal => asking.deal().await,
        Route::CheckOnlineMain => asking.check_online_main().await,
        Route::NotifyMain => asking.notify_main().await,
    }
}

/// The parameters of a request; what stands in the path counts before the query, and that before a form.
#[derive(Default)]
struct Params(HashMap<String, Json>);

impl Params {
    fn add(&mut self, name: String, value: Json) {
        self.0.entry(name).or_insert(value);
    }

    /// `name/value/name/value`
    fn add_pairs<'a>(&mut self, parts: &mut impl Iterator<Item = &'a str>) -> Result<(), Failure> {
        let decoded = |text: &str| match percent_decode_str(text).decode_utf8() {
            Ok(text) => Ok(text.into_owned()),
            Err(_) => Err(bad_request("the path is no UTF-8, percent-encoded")),
        };
        while let Some(name) = parts.next().filter(|name| !name.is_empty()) {
            let value = decoded(parts.next().unwrap_or_default())?;
            let name = decoded(name)?;
            self.add(name.clone(), unpacked(&name, value));
        }
        Ok(())
    }

    fn add_form(&mut self, form: &[u8]) {
        for (name, value) in form_urlencoded::parse(form) {
            let value = unpacked(&name, value.into_owned());
            self.add(name.into_owned(), value);
        }
    }

    /// A form, or a JSON object.
    async fn add_body(&mut self, request: Request<Incoming>, limit: usize) -> Result<(), Failure> {
        let reading = Limited::new(request.into_body(), limit).collect();
        let body = match tokio::time::timeout(BODY_TIMEOUT, reading).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return Err(bad_request(format!("the body has an end, and at most {limit} bytes"))),
            Err(_) => return Err(bad_request("the body did not come in time")),
        };
        self.add_bytes(&body);
        Ok(())
    }

    fn add_bytes(&mut self, body: &[u8]) {
        match serde_json::from_slice::<Json>(body) {
            Ok(Json::Object(members)) => members.into_iter().for_each(|(name, value)| self.add(name, value)),
            _ => self.add_form(body),
        }
    }

    /// A parameter's text; a number's is its digits.
    fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Json::String(text) if !text.is_empty() => Some(text.clone()),
            Json::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T, Failure> {
        let text = self.text(name).ok_or_else(|| bad_request(format!("{name} is missing")))?;
        text.parse().map_err(|problem| bad_request(format!("{name} {problem}")))
    }
}

/// A text of a path, a query or a form: an object or a list that was sent as JSON text is what it says.
fn unpacked(name: &str, text: String) -> Json {
    let may_be_json = matches!(name, "data" | "user_info") && text.starts_with(['{', '[']);
    let json = if may_be_json { serde_json::from_str(&text).ok() } else { None };
    json.unwrap_or(Json::String(text))
}

struct Asking<'a> {
    relay: &'a Relay,
    params: Params,
    authorization: Option<String>,
    is_local: bool,
}

impl Asking<'_> {
    /// The key, if it may do such things.
    fn key(&self, scope: Scope) -> Result<Arc<ApiKey>, Failure> {
        let api = &self.relay.gate.api;
        if api.is_open() && !self.is_local {
            return Err(unauthorized());
        }
        let key = match self.params.text("key") {
            Some(key) => api.check_key(Some(&key)),
            None => api.check(self.authorization.as_deref()),
        };
        key.ok().filter(|key| key.may(scope)).ok_or_else(unauthorized)
    }

    /// Whether the key may do such things in this shop.
    fn authorise(&self, scope: Scope, shop: &ShopId) -> Result<(), Failure> {
        if self.key(scope)?.may_enter(shop) { Ok(()) } else { Err(unauthorized()) }
    }

    async fn message_list(self) -> Result<Data, Failure> {
        let shop: ShopId = self.params.parsed("shop_id")?;
        self.authorise(Scope::Read, &shop)?;
        let listed = self.relay.legacy_list(&shop).await?;
        let mains = self.mains(&shop).await?;
        let items = listed.iter().map(|(number, item)| {
            let is_delivered = item.delivered.iter().all(|(device, has_it)| *has_it || !mains.contains(device));
            let status = item.dealt.as_ref().map_or(&item.message.status, |(status, _)| status);
            Listed { number: *number, id: item.id, status, message: &item.message, is_delivered }
        });
        data(&items.collect::<Vec<_>>())
    }

    /// The shop's registered mains.
    async fn mains(&self, shop: &ShopId) -> Result<std::collections::HashSet<crate::ids::DeviceId>, Failure> {
        let devices = self.relay.store.devices(shop).await?;
        Ok(devices.into_iter().filter(|known| known.role == Role::Main).map(|known| known.device).collect())
    }

    async fn deal(self) -> Result<Data, Failure> {
        let number: u64 = self.params.parsed("id")?;
        let status: Name = self.params.parsed("status")?;
        if status.as_str() == "all" {
            return Err(bad_request("no status is called \"all\""));
        }
        let key = self.key(Scope::Write)?;
        let (shop, id) = match self.relay.legacy_message(number).await {
            Ok((shop, id)) if key.may_enter(&shop) => (shop, id),
            // Whose shop it is not does not learn which numbers there are.
            Ok(_) => return Err(unauthorized()),
            Err(failure) if failure.code == ErrorCode::NotFound && !key.has_all_shops() => return Err(unauthorized()),
            Err(failure) => return Err(failure),
        };
        self.relay.legacy_deal(&shop, id, status).await?;
        Ok(None)
    }

    async fn check_online_main(self) -> Result<Data, Failure> {
        let shop: ShopId = self.params.parsed("shop_id")?;
        self.authorise(Scope::Read, &shop)?;
        let filter = OnlineFilter { role: Some(Role::Main), ..OnlineFilter::default() };
        let online = self.relay.online(&shop, &filter).await?;
        data(&online.iter().map(|online| online.presence.device.as_str()).collect::<Vec<_>>())
    }

    async fn notify_main(self) -> Result<Data, Failure> {
        let shop: ShopId = self.params.parsed("shop_id")?;
        self.authorise(Scope::Write, &shop)?;
        let object = written(&self.params.0)?;
        let notify = legacy::notify(object.get().as_bytes()).map_err(bad_request)?;
        self.relay.legacy_notify(&shop, notify).await?;
        Ok(None)
    }
}

fn data(value: &impl Serialize) -> Result<Data, Failure> {
    written(value).map(Some)
}

fn written(value: &impl Serialize) -> Result<Box<RawValue>, Failure> {
    to_raw_value(value).map_err(|_| Failure::new(ErrorCode::Internal, "it cannot be written as JSON"))
}

fn unauthorized() -> Failure {
    Failure::new(ErrorCode::Unauthorized, "unauthorized")
}

fn bad_request(detail: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::BadRequest, detail)
}
