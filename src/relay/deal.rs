//! Dealing with a message: the first to do so wins, and the others are told by whom.

use crate::events::Events;
use crate::ids::{MessageId, ShopId};
use crate::message::{Entry, Origin};
use crate::protocol::{Deal, ErrorCode};
use crate::relay::Relay;
use crate::relay::failures::no_such_message;
use crate::session::Failure;
use crate::store::{EventKind, PageLimit, SetStatus, StatusSet, Stored};

impl Relay {
    /// Sets a message's status.
    ///
    /// # Errors
    /// The [`Failure`] to answer; a conflict carries the present status and who set it.
    pub async fn deal(&self, shop: &ShopId, by: Origin, deal: Deal) -> Result<(), Failure> {
        let Some(Stored { entry: Entry::Message(message), .. }) = self.entry(shop, deal.id).await? else {
            return Err(no_such_message());
        };
        let change = SetStatus {
            message: deal.id,
            status: deal.status,
            expect: deal.expect,
            by,
            initial: message.status,
            sender: message.content.from.device().cloned(),
        };
        match self.store.set_status(shop, &change).await? {
            StatusSet::Set(_) => {
                self.tell_dealt(shop, change);
                Ok(())
            }
            StatusSet::Unchanged => Ok(()),
            StatusSet::NotFound => Err(no_such_message()),
            StatusSet::Conflict { status, by } => {
                let mut failure =
                    Failure::new(ErrorCode::Conflict, format!("the present status is {:?}", status.as_str()));
                failure.present = Some((status, by));
                Err(failure)
            }
        }
    }

    /// The entry with this id, if the log holds it.
    pub(super) async fn entry(&self, shop: &ShopId, id: MessageId) -> Result<Option<Stored>, Failure> {
        let one = PageLimit { entries: 1, bytes: 1 };
        let page = self.store.read(shop, id.before(), one).await?;
        Ok(page.entries.into_iter().find(|stored| stored.id == id))
    }

    fn tell_dealt(&self, shop: &ShopId, change: SetStatus) {
        self.events.tell(|| {
            let (device, role, api) = match change.by {
                Origin::Device { device, role } => (Some(device), Some(role), None),
                Origin::Api { name } => (None, None, Some(name)),
            };
            let kind = EventKind::Dealt { message: change.message, status: change.status, api };
            let event = Events::event(kind, &self.node, self.store.now_ms());
            crate::store::Event { shop: Some(shop.clone()), device, role, ..event }
        });
    }
}
