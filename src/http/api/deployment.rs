//! The deployment: its shops, its nodes, and how many there are of everything.

use std::borrow::Cow;
use std::time::Instant;

use hyper::StatusCode;
use serde::Serialize;

use crate::http::Reply;
use crate::http::api::ask::Ask;
use crate::http::api::problem::{Problem, json};
use crate::ids::{MessageId, ShopId};
use crate::message::Role;
use crate::protocol::PresenceState;
use crate::relay::OnlineFilter;
use crate::session::Failure;

/// How many there are of each role.
#[derive(Serialize, Default)]
struct ByRole {
    main: u64,
    sub: u64,
}

impl ByRole {
    fn of(roles: impl Iterator<Item = Role>) -> ByRole {
        let mut count = ByRole::default();
        for role in roles {
            match role {
                Role::Main => count.main += 1,
                Role::Sub => count.sub += 1,
            }
        }
        count
    }
}

/// `GET /v1/shops`
pub async fn shops(ask: Ask) -> Result<Reply, Problem> {
    let mut shops = ask.relay.store.shops().await.map_err(Failure::from)?;
    shops.sort();
    ask.page(shops, |shop| Cow::Borrowed(shop.as_str()))
}

/// `GET /v1/shops/{shop}/stats`
pub async fn shop_stats(ask: Ask) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Stats {
        shop: ShopId,
        devices: ByRole,
        online: ByRole,
        /// Messages and status changes in the log.
        entries: u64,
        head: Option<MessageId>,
    }
    let shop: ShopId = ask.path.required("shop")?;
    let store = &ask.relay.store;
    let devices = store.devices(&shop).await.map_err(Failure::from)?;
    let online = ask.relay.online(&shop, &OnlineFilter::default()).await?;
    let head = store.head(&shop).await.map_err(Failure::from)?;
    let stats = Stats {
        devices: ByRole::of(devices.iter().map(|device| device.role)),
        online: ByRole::of(online.iter().map(|online| online.presence.role)),
        entries: store.log_len(&shop).await.map_err(Failure::from)?,
        head: head.non_zero(),
        shop,
    };
    json(StatusCode::OK, &stats)
}

/// `GET /v1/nodes`
pub async fn nodes(ask: Ask) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Node {
        node: String,
        version: Box<str>,
        state: PresenceState,
        /// When it was last heard of, in milliseconds since 1970.
        seen: u64,
        connections: u64,
        sessions: ByRole,
        rooms: u64,
    }
    let live = ask.relay.nodes.live(Instant::now()).into_iter().map(|live| Node {
        node: live.node.to_string(),
        version: live.report.version,
        state: live.state,
        seen: live.seen_ms,
        connections: live.report.connections,
        sessions: ByRole { main: live.report.mains, sub: live.report.subs },
        rooms: live.report.rooms,
    });
    ask.page(live.collect(), |node| Cow::Borrowed(node.node.as_str()))
}

/// `GET /v1/stats`
pub async fn stats(ask: Ask) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Stats {
        shops: usize,
        nodes: usize,
        connections: u64,
        sessions: ByRole,
    }
    let live = ask.relay.nodes.live(Instant::now());
    let sum = |of: fn(&crate::store::NodeReport) -> u64| live.iter().map(|live| of(&live.report)).sum();
    let stats = Stats {
        shops: ask.relay.store.shops().await.map_err(Failure::from)?.len(),
        nodes: live.len(),
        connections: sum(|report| report.connections),
        sessions: ByRole { main: sum(|report| report.mains), sub: sum(|report| report.subs) },
    };
    json(StatusCode::OK, &stats)
}
