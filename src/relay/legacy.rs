//! What only legacy peers ask for: numbers for messages, and what an operator says on a connection.

use std::collections::HashSet;
use std::time::Instant;

use tracing::info;

use crate::auth::Scope;
use crate::ids::{ConnId, MessageId, Name, NodeId, ShopId};
use crate::message::{Audience, Content, Message, Origin, STATUS_OPEN};
use crate::protocol::legacy::{Admin, AdminOp, LegacyNotify};
use crate::protocol::{Deal, Encoding, ErrorCode, Item, List, ListStatus};
use crate::relay::failures::no_such_message;
use crate::relay::{Accepted, Dealer, Listing, Relay, Viewer};
use crate::session::Failure;
use crate::store::{LegacyText, Publish};

/// Most messages of a legacy list.
const LIST_MAX: usize = 500;
/// The name of an API key that legacy HTTP goes by.
const API_NAME: &str = "legacy";

impl Relay {
    /// Heeds an operator's word; gives what it asked for, where it asked.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn heed(&self, admin: Admin) -> Result<Option<Vec<u8>>, Failure> {
        let is_allowed = !self.gate.api.is_open()
            && self
                .gate
                .api
                .check_key(Some(&admin.key))
                .is_ok_and(|key| key.may(Scope::Operate) && key.has_all_shops());
        if !is_allowed {
            return Err(Failure::new(ErrorCode::Unauthorized, "unauthorized"));
        }
        match admin.op {
            AdminOp::GetConnections => {
                let conns = self.store.legacy_conns().await?;
                let live: HashSet<NodeId> = self.nodes.live(Instant::now()).into_iter().map(|live| live.node).collect();
                let here = conns.iter().filter(|conn| conn.node().is_some_and(|node| live.contains(&node)));
                let names: Vec<&str> = here.map(ConnId::as_str).collect();
                Ok(Some(serde_json::to_vec(&names).unwrap_or_default()))
            }
            AdminOp::SendMessages { content, to } => {
                // Whoever is no connection is gone.
                let conns = to.iter().filter_map(|conn| conn.parse().ok()).collect();
                self.store.send_text(&LegacyText { conns, text: content.into() }).await?;
                Ok(None)
            }
            AdminOp::Reload => {
                info!("an operator asked for the keys to be read anew");
                // It logs what came of it.
                let reloaded = self.gate.reload().await;
                reloaded.map_err(|_| Failure::new(ErrorCode::Internal, "the keys could not be read"))?;
                Ok(None)
            }
            AdminOp::Unknown => {
                Err(Failure::new(ErrorCode::UnknownOp, "op is get_connections, send_messages or reload"))
            }
        }
    }

    /// The shop's open messages, the oldest first, each with its number.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn legacy_list(&self, shop: &ShopId) -> Result<Vec<(u64, Item)>, Failure> {
        let mut items: Vec<Item> = Vec::new();
        let mut after = Some(MessageId::ZERO);
        while let Some(from) = after.filter(|_| items.len() < LIST_MAX) {
            let list = List { status: ListStatus::Open, after: from, limit: LIST_MAX - items.len() };
            let listing = Listing { shop, viewer: Viewer::BackEnd, list, encoding: Encoding::Json };
            let (page, next) = self.list(listing).await?;
            items.extend(page);
            after = next;
        }
        let ids: Vec<MessageId> = items.iter().map(|item| item.id).collect();
        let numbers = self.store.numbers(shop, &ids).await?;
        Ok(numbers.into_iter().zip(items).collect())
    }

    /// The message that has this number.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn legacy_message(&self, number: u64) -> Result<(ShopId, MessageId), Failure> {
        self.store.numbered(number).await?.ok_or_else(no_such_message)
    }

    /// Deals with a message over legacy HTTP.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn legacy_deal(&self, shop: &ShopId, id: MessageId, status: Name) -> Result<(), Failure> {
        let by = Name::constant(API_NAME);
        self.deal(shop, Dealer::BackEnd(&by), Deal { id, status, expect: None }).await
    }

    /// Takes a notify to the mains over legacy HTTP.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn legacy_notify(&self, shop: &ShopId, notify: LegacyNotify) -> Result<Accepted, Failure> {
        let room = self.hub.enter(shop);
        let content = Content {
            from: Origin::Api { name: Name::constant(API_NAME) },
            to: Audience::Mains,
            except: Vec::new().into(),
            kind: notify.kind,
            table: notify.table,
            data: notify.data,
            user_info: notify.user_info,
            legacy: Some(notify.kept_of_message),
        };
        let status = notify.status.unwrap_or_else(|| Name::constant(STATUS_OPEN));
        let message = Message { content, status, ttl: None, receipt: false };
        self.publish(&room, &Publish { message, key: None }).await
    }
}
