//! Dealing with a message: the first to do so wins, and the others are told by whom.

use crate::events::Events;
use crate::ids::{ConnId, MessageId, Name, ShopId};
use crate::message::{Entry, Origin};
use crate::planted::{self, Fault};
use crate::protocol::{Deal, ErrorCode};
use crate::relay::Relay;
use crate::relay::failures::no_such_message;
use crate::session::{Failure, Identity};
use crate::store::{Event, EventKind, PageLimit, SetStatus, StatusSet, Stored};

/// Who deals with a message.
#[derive(Clone, Copy)]
pub enum Dealer<'a> {
    /// By the key of this name.
    BackEnd(&'a Name),
    Device(&'a Identity, &'a ConnId),
}

impl Dealer<'_> {
    fn origin(self) -> Origin {
        match self {
            Dealer::BackEnd(name) => Origin::Api { name: name.clone() },
            Dealer::Device(identity, _) => Origin::Device { device: identity.device.clone(), role: identity.role },
        }
    }
}

impl Relay {
    /// Sets a message's status.
    ///
    /// # Errors
    /// The [`Failure`] to answer; a conflict carries the present status and who set it.
    pub async fn deal(&self, shop: &ShopId, dealer: Dealer<'_>, deal: Deal) -> Result<(), Failure> {
        let Some(Stored { entry: Entry::Message(message), .. }) = self.entry(shop, deal.id).await? else {
            return Err(no_such_message());
        };
        let change = SetStatus {
            message: deal.id,
            status: deal.status,
            expect: deal.expect,
            by: dealer.origin(),
            initial: message.status,
            sender: message.content.from.device().cloned(),
        };
        match self.store.set_status(shop, &change).await? {
            StatusSet::Set(_) => {
                self.tell_dealt(shop, dealer, change);
                Ok(())
            }
            StatusSet::Unchanged => Ok(()),
            StatusSet::NotFound => Err(no_such_message()),
            StatusSet::Conflict { .. } if planted::strikes(Fault::TwoWinners) => Ok(()),
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

    fn tell_dealt(&self, shop: &ShopId, dealer: Dealer<'_>, change: SetStatus) {
        self.events.tell(|| {
            let kind = |api| EventKind::Dealt { message: change.message, status: change.status, api };
            let event =
                |kind| Event { shop: Some(shop.clone()), ..Events::event(kind, &self.node, self.store.now_ms()) };
            match dealer {
                Dealer::BackEnd(name) => event(kind(Some(name.clone()))),
                Dealer::Device(identity, conn) => Event {
                    conn: Some(conn.clone()),
                    device: Some(identity.device.clone()),
                    role: Some(identity.role),
                    user: identity.membership.user.clone(),
                    ..event(kind(None))
                },
            }
        });
    }
}
