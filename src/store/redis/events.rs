//! The event stream for back-end workers.
//!
//! Owns the fields of its entries: flat texts, and none for what does not apply. Never reads the stream.
//! Called by [`super::engine`].

use crate::store::redis::RedisStore;
use crate::store::redis::fleet::Ask;
use crate::store::redis::reply::PIPELINE_MAX;
use crate::store::{Event, EventKind, StoreError};

impl RedisStore {
    pub(super) async fn add_all_events(&self, events: &[Event]) -> Result<(), StoreError> {
        let key = self.keys.events();
        for chunk in events.chunks(PIPELINE_MAX) {
            let cap = self.settings.events_max.to_string();
            let add = |event| {
                let cap = ["MAXLEN", "~", &cap, "*"].map(str::to_owned);
                let fields = fields(event).into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
                Ask::new("XADD", key.as_str(), cap.into_iter().chain(fields))
            };
            self.ask_all("xadd", chunk.iter().map(add).collect()).await?;
        }
        Ok(())
    }
}

fn fields(event: &Event) -> Vec<(&'static str, String)> {
    let mut fields = vec![("event", name(&event.kind).to_owned()), ("at", event.at_ms.to_string())];
    let mut add = |name, value: Option<&str>| fields.extend(value.map(|value| (name, value.to_owned())));
    add("node", Some(event.node.as_str()));
    add("conn", event.conn.as_ref().map(|conn| conn.as_str()));
    add("shop", event.shop.as_ref().map(|shop| shop.as_str()));
    add("device", event.device.as_ref().map(|device| device.as_str()));
    add("role", event.role.map(|role| role.as_str()));
    add("user", event.user.as_ref().map(|user| user.as_str()));
    match &event.kind {
        EventKind::Connect | EventKind::Login => {}
        EventKind::Close { code } => add("code", Some(&code.to_string())),
        EventKind::Call { method, reference, data } => {
            add("method", Some(method.as_str()));
            add("ref", reference.as_deref());
            add("data", data.as_deref());
        }
        EventKind::Dealt { message, status, api } => {
            add("message", Some(&message.to_string()));
            add("status", Some(status.as_str()));
            add("api", api.as_ref().map(|api| api.as_str()));
        }
    }
    fields
}

fn name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Connect => "connect",
        EventKind::Login => "login",
        EventKind::Close { .. } => "close",
        EventKind::Call { .. } => "call",
        EventKind::Dealt { .. } => "dealt",
    }
}
