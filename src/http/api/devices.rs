//! Devices: the registry, who is connected, attributes, and what an operator does to them.

use std::borrow::Cow;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::attrs::{Attrs, AttrsChange};
use crate::http::Reply;
use crate::http::api::ask::Ask;
use crate::http::api::problem::{Problem, json, no_content};
use crate::ids::{ConnId, DeviceId, MessageId, Name, ShopId};
use crate::message::Role;
use crate::protocol::{Presence, body, list_limit};
use crate::relay::{ConnectionsPlace, OnlineAt, OnlineFilter};
use crate::store::{Barred, Device};

/// A registered device, as the registry shows it.
#[derive(Serialize)]
struct Registered {
    device: DeviceId,
    role: Role,
    groups: Vec<Name>,
    user: Option<Name>,
    meta: Option<Box<RawValue>>,
    first_seen: u64,
    last_seen: u64,
    cursor: Option<MessageId>,
}

impl From<Device> for Registered {
    fn from(device: Device) -> Registered {
        let mut groups = device.membership.groups;
        groups.sort();
        Registered {
            device: device.device,
            role: device.role,
            groups,
            user: device.membership.user,
            // It was checked when it came in.
            meta: device.meta.and_then(|meta| RawValue::from_string(meta.into()).ok()),
            first_seen: device.first_seen_ms,
            last_seen: device.last_seen_ms,
            cursor: device.cursor.non_zero(),
        }
    }
}

/// A connected device.
#[derive(Serialize)]
struct Connected<'a> {
    #[serde(flatten)]
    presence: &'a Presence,
    node: &'a str,
}

/// `GET /v1/shops/{shop}/devices`
pub async fn list(ask: Ask) -> Result<Reply, Problem> {
    let shop: ShopId = ask.path.required("shop")?;
    let devices = ask.relay.store.devices(&shop).await.map_err(crate::session::Failure::from)?;
    let registered: Vec<Registered> = devices.into_iter().map(Registered::from).collect();
    ask.page(registered, |device| Cow::Borrowed(device.device.as_str()))
}

/// `GET /v1/shops/{shop}/devices/{device}`
pub async fn get(ask: Ask) -> Result<Reply, Problem> {
    let (shop, device): (ShopId, DeviceId) = (ask.path.required("shop")?, ask.path.required("device")?);
    json(StatusCode::OK, &Registered::from(ask.relay.device(&shop, &device).await?))
}

/// `DELETE /v1/shops/{shop}/devices/{device}`
pub async fn forget(ask: Ask) -> Result<Reply, Problem> {
    let (shop, device): (ShopId, DeviceId) = (ask.path.required("shop")?, ask.path.required("device")?);
    ask.relay.forget(&shop, &device).await?;
    Ok(no_content())
}

/// `GET /v1/shops/{shop}/online`
pub async fn online(ask: Ask) -> Result<Reply, Problem> {
    let shop: ShopId = ask.path.required("shop")?;
    let filter = OnlineFilter {
        role: ask.query.optional("role")?,
        group: ask.query.optional("group")?,
        user: ask.query.optional("user")?,
        node: ask.query.optional("node")?,
    };
    let online = ask.relay.online(&shop, &filter).await?;
    let connected = online.iter().map(|OnlineAt { presence, node }| Connected { presence, node: node.as_str() });
    ask.page(connected.collect(), |connected| Cow::Borrowed(connected.presence.device.as_str()))
}

/// `POST /v1/shops/{shop}/devices/{device}/close`
pub async fn close(ask: Ask) -> Result<Reply, Problem> {
    let (shop, device): (ShopId, DeviceId) = (ask.path.required("shop")?, ask.path.required("device")?);
    let data = body::close(&ask.body).map_err(Problem::bad_request)?;
    ask.relay.evict(&shop, &device, None, ask.name(), data).await?;
    Ok(no_content())
}

/// A device that may not log in.
#[derive(Serialize)]
struct BarredDevice {
    device: DeviceId,
    since: u64,
    by: Name,
}

impl From<Barred> for BarredDevice {
    fn from(barred: Barred) -> BarredDevice {
        BarredDevice { device: barred.device, since: barred.since_ms, by: barred.by }
    }
}

/// `GET /v1/shops/{shop}/barred`
pub async fn list_barred(ask: Ask) -> Result<Reply, Problem> {
    let barred = barred(&ask).await?;
    ask.page(barred.into_iter().map(BarredDevice::from).collect(), |barred| Cow::Borrowed(barred.device.as_str()))
}

/// `GET /v1/shops/{shop}/devices/{device}/bar`
pub async fn get_bar(ask: Ask) -> Result<Reply, Problem> {
    let device: DeviceId = ask.path.required("device")?;
    let found = barred(&ask).await?.into_iter().find(|barred| barred.device == device);
    let found = found.ok_or_else(|| Problem::not_found("this device is not barred"))?;
    json(StatusCode::OK, &BarredDevice::from(found))
}

async fn barred(ask: &Ask) -> Result<Vec<Barred>, Problem> {
    let shop: ShopId = ask.path.required("shop")?;
    Ok(ask.relay.store.barred(&shop).await.map_err(crate::session::Failure::from)?)
}

/// `PUT /v1/shops/{shop}/devices/{device}/bar`
pub async fn bar(ask: Ask) -> Result<Reply, Problem> {
    let (shop, device): (ShopId, DeviceId) = (ask.path.required("shop")?, ask.path.required("device")?);
    let data = body::close(&ask.body).map_err(Problem::bad_request)?;
    ask.relay.bar(&shop, &device, ask.name(), data).await?;
    Ok(no_content())
}

/// `DELETE /v1/shops/{shop}/devices/{device}/bar`
pub async fn unbar(ask: Ask) -> Result<Reply, Problem> {
    let (shop, device): (ShopId, DeviceId) = (ask.path.required("shop")?, ask.path.required("device")?);
    ask.relay.unbar(&shop, &device, ask.name()).await?;
    Ok(no_content())
}

#[derive(Serialize)]
struct AttrsBody {
    attrs: Attrs,
}

/// `GET /v1/shops/{shop}/devices/{device}/attrs`
pub async fn attrs(ask: Ask) -> Result<Reply, Problem> {
    let (shop, device): (ShopId, DeviceId) = (ask.path.required("shop")?, ask.path.required("device")?);
    json(StatusCode::OK, &AttrsBody { attrs: ask.relay.attrs(&shop, &device).await? })
}

/// `PUT /v1/shops/{shop}/devices/{device}/attrs`
pub async fn set_attrs(ask: Ask) -> Result<Reply, Problem> {
    change_attrs(&ask, AttrsChange::Set).await.map(|_| no_content())
}

/// `PATCH /v1/shops/{shop}/devices/{device}/attrs`
pub async fn patch_attrs(ask: Ask) -> Result<Reply, Problem> {
    let attrs = change_attrs(&ask, AttrsChange::Patch).await?;
    json(StatusCode::OK, &AttrsBody { attrs })
}

async fn change_attrs(ask: &Ask, change: impl Fn(Attrs) -> AttrsChange) -> Result<Attrs, Problem> {
    let (shop, device): (ShopId, DeviceId) = (ask.path.required("shop")?, ask.path.required("device")?);
    let change = body::attrs(change, &ask.body).map_err(Problem::bad_request)?;
    Ok(ask.relay.change_attrs(&shop, &device, &change).await?)
}

/// A connected device of one shop among others.
#[derive(Serialize)]
struct Connection<'a> {
    shop: &'a ShopId,
    #[serde(flatten)]
    connected: Connected<'a>,
}

impl Connection<'_> {
    fn of((shop, OnlineAt { presence, node }): &(ShopId, OnlineAt)) -> Connection<'_> {
        Connection { shop, connected: Connected { presence, node: node.as_str() } }
    }
}

/// `GET /v1/connections`
pub async fn connections(ask: Ask) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Page<'a> {
        items: Vec<Connection<'a>>,
        next: Option<String>,
    }
    let limit = list_limit(ask.query.text("limit")).map_err(Problem::bad_request)?;
    let after: Option<ConnectionsPlace> = ask.query.optional("after")?;
    let filter = OnlineFilter {
        role: ask.query.optional("role")?,
        node: ask.query.optional("node")?,
        ..OnlineFilter::default()
    };
    let (found, next) = ask.relay.connections(&filter, after, usize::from(limit)).await?;
    let items = found.iter().map(Connection::of).collect();
    json(StatusCode::OK, &Page { items, next: next.map(|place| place.to_string()) })
}

/// `GET /v1/connections/{conn}`
pub async fn connection(ask: Ask) -> Result<Reply, Problem> {
    json(StatusCode::OK, &Connection::of(&located(&ask).await?))
}

/// `POST /v1/connections/{conn}/close`
pub async fn close_connection(ask: Ask) -> Result<Reply, Problem> {
    let data = body::close(&ask.body).map_err(Problem::bad_request)?;
    let (shop, OnlineAt { presence, .. }) = located(&ask).await?;
    ask.relay.evict(&shop, &presence.device, Some(&presence.conn), ask.name(), data).await?;
    Ok(no_content())
}

/// The connection in the path; whoever may not enter its shop learns no more than that it is not there.
async fn located(ask: &Ask) -> Result<(ShopId, OnlineAt), Problem> {
    let conn: ConnId = ask.path.required("conn")?;
    let located = ask.relay.connection(&conn).await?.filter(|(shop, _)| ask.key.may_enter(shop));
    located.ok_or_else(|| Problem::not_found("there is no such connection"))
}
