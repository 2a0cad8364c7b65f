//! Messages: sending, listing and dealing with them.

use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::http::Reply;
use crate::http::api::ask::Ask;
use crate::http::api::problem::{Problem, json, no_content};
use crate::ids::{MessageId, OnceKey, ShopId};
use crate::message::{Broadcast, Content, Listed, Origin, Role, Signal};
use crate::protocol::{Encoding, Item, List, Notify, body};
use crate::relay::{Dealer, Listing, Viewer};

/// The header that gives a notify its key.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// `POST /v1/shops/{shop}/messages`
pub async fn post(ask: Ask) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Posted {
        id: Option<MessageId>,
        duplicate: bool,
    }
    let shop: ShopId = ask.path.required("shop")?;
    let mut notify = body::notify(&ask.body).map_err(Problem::bad_request)?;
    notify.key = key(&ask, &notify)?;
    let accepted = ask.relay.notify(&shop, ask.name(), notify).await?;
    let status = match (accepted.id, accepted.is_duplicate) {
        (None, _) => StatusCode::ACCEPTED,
        (Some(_), true) => StatusCode::OK,
        (Some(_), false) => StatusCode::CREATED,
    };
    let mut reply = json(status, &Posted { id: accepted.id, duplicate: accepted.is_duplicate })?;
    if let Some(id) = accepted.id {
        let shop = utf8_percent_encode(shop.as_str(), NON_ALPHANUMERIC);
        if let Ok(place) = HeaderValue::from_str(&format!("/v1/shops/{shop}/messages/{id}")) {
            reply.headers_mut().insert(LOCATION, place);
        }
    }
    Ok(reply)
}

/// The notify's key, by header or field.
fn key(ask: &Ask, notify: &Notify) -> Result<Option<OnceKey>, Problem> {
    let mut headers = ask.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(header) = headers.next() else { return Ok(notify.key.clone()) };
    let wrong = |problem: &dyn std::fmt::Display| Problem::bad_request(format!("Idempotency-Key: {problem}"));
    let text = std::str::from_utf8(header.as_bytes()).map_err(|_| wrong(&"is no UTF-8"))?;
    let key = OnceKey::try_from(text.to_owned()).map_err(|problem| wrong(&problem))?;
    if headers.any(|other| other != header) || notify.key.as_ref().is_some_and(|field| *field != key) {
        return Err(wrong(&"is given twice, and the two differ"));
    }
    Ok(Some(key))
}

/// `GET /v1/shops/{shop}/messages`
pub async fn list(ask: Ask) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Page {
        items: Vec<Item>,
        next: Option<MessageId>,
    }
    let shop: ShopId = ask.path.required("shop")?;
    let query = &ask.query;
    let list = List::from_query(query.text("status"), query.text("after"), query.text("limit"));
    let list = list.map_err(Problem::bad_request)?;
    let listing = Listing { shop: &shop, viewer: Viewer::BackEnd, list, encoding: Encoding::Json };
    let (items, next) = ask.relay.list(listing).await?;
    json(StatusCode::OK, &Page { items, next })
}

/// `GET /v1/shops/{shop}/messages/{id}`
pub async fn get(ask: Ask) -> Result<Reply, Problem> {
    let (shop, id): (ShopId, MessageId) = (ask.path.required("shop")?, ask.path.required("id")?);
    json(StatusCode::OK, &ask.relay.message(&shop, id).await?)
}

/// `PUT /v1/shops/{shop}/messages/{id}/status`
pub async fn put_status(ask: Ask) -> Result<Reply, Problem> {
    let (shop, id): (ShopId, MessageId) = (ask.path.required("shop")?, ask.path.required("id")?);
    let deal = body::deal(id, &ask.body).map_err(Problem::bad_request)?;
    ask.relay.deal(&shop, Dealer::BackEnd(&ask.name()), deal).await?;
    Ok(no_content())
}

/// `POST /v1/broadcast`
pub async fn broadcast(ask: Ask) -> Result<Reply, Problem> {
    let body = body::broadcast(&ask.body).map_err(Problem::bad_request)?;
    let content = Content {
        from: Origin::Api { name: ask.name() },
        to: Role::audience(body.role),
        except: Listed::from(Vec::new()),
        kind: body.kind,
        table: body.table,
        data: body.data,
        user_info: None,
    };
    let signal = Signal { at_ms: ask.relay.store.now_ms(), content };
    ask.relay.broadcast(&Broadcast { signal, except: body.except.into() }).await?;
    json(StatusCode::ACCEPTED, &serde_json::json!({}))
}
