//! Messages and signals on their way into the store.

use std::time::Instant;

use crate::hub::RoomGuard;
use crate::ids::{MessageId, Name, OnceKey, ShopId};
use crate::message::{Audience, Broadcast, Content, Message, Origin, STATUS_OPEN, Signal};
use crate::metrics::{self, Source};
use crate::planted::{self, Fault};
use crate::protocol::{ErrorCode, Notify};
use crate::relay::Relay;
use crate::relay::failures::FULL_WAIT;
use crate::session::Failure;
use crate::store::{Publish, Published, Signalled};

/// What came of a notify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// None for a signal.
    pub id: Option<MessageId>,
    pub is_duplicate: bool,
}

impl Relay {
    /// Takes a back end's notify.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn notify(&self, shop: &ShopId, from: Name, notify: Notify) -> Result<Accepted, Failure> {
        let room = self.hub.enter(shop);
        let to = notify.to.unwrap_or(Audience::Mains);
        let is_durable = notify.durable.unwrap_or(!matches!(to, Audience::Conns(_)));
        let content = Content {
            from: Origin::Api { name: from },
            to,
            except: notify.except,
            kind: notify.kind,
            table: notify.table,
            data: notify.data,
            user_info: notify.user_info,
            legacy: None,
        };
        if !is_durable {
            return self.signal(&room, &Signal { at_ms: self.store.now_ms(), content }).await;
        }
        let status = notify.status.unwrap_or_else(|| Name::constant(STATUS_OPEN));
        // Nobody is there to get a receipt.
        let message = Message { content, status, ttl: notify.ttl, receipt: false };
        self.publish(&room, &publish(message, notify.key)).await
    }

    /// Stores a message.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn publish(&self, room: &RoomGuard, publish: &Publish) -> Result<Accepted, Failure> {
        if planted::strikes(Fault::AcceptUnstored) {
            let id = MessageId { ms: self.store.now_ms(), n: u64::MAX };
            return Ok(Accepted { id: Some(id), is_duplicate: false });
        }
        let published = self.store_message(room, publish).await;
        let accepted = published.and_then(|published| accepted(published, source(&publish.message.content)));
        accepted.inspect_err(|failure| metrics::publish_refused(failure.code))
    }

    async fn store_message(&self, room: &RoomGuard, publish: &Publish) -> Result<Published, Failure> {
        self.take_publish(room).await?;
        let mut published = self.store.publish(room.shop(), publish).await?;
        if published == Published::BacklogFull {
            // Boxed, so that the others do not carry its size.
            published = Box::pin(self.make_room_for(room, publish)).await?;
        }
        Ok(published)
    }

    async fn make_room_for(&self, room: &RoomGuard, publish: &Publish) -> Result<Published, Failure> {
        let shop = room.shop();
        // One at a time: whoever waited here finds the room that the one before made.
        let _turn = room.trimming.lock().await;
        let mut published = self.store.publish(shop, publish).await?;
        if published == Published::BacklogFull && self.retention.make_room(shop).await? {
            published = self.store.publish(shop, publish).await?;
        }
        Ok(published)
    }

    /// Sends a signal to whoever is there.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn signal(&self, room: &RoomGuard, signal: &Signal) -> Result<Accepted, Failure> {
        let sent = async {
            self.take_publish(room).await?;
            match self.store.signal(room.shop(), signal).await? {
                Signalled::Sent => Ok(Accepted { id: None, is_duplicate: false }),
                Signalled::NoSuchDevice => Err(nobody_registered()),
            }
        };
        let sent: Result<Accepted, Failure> = sent.await;
        match &sent {
            Ok(_) => metrics::signalled(),
            Err(failure) => metrics::publish_refused(failure.code),
        }
        sent
    }

    /// Sends a signal to every connected device of every shop.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn broadcast(&self, broadcast: &Broadcast) -> Result<(), Failure> {
        self.store.broadcast(broadcast).await?;
        metrics::signalled();
        Ok(())
    }

    async fn take_publish(&self, room: &RoomGuard) -> Result<(), Failure> {
        let taken = room.take_publish(Instant::now());
        if room.has_few_publishes() {
            // What other nodes publish counts too, and is heard of only where the shop is listened to.
            // Where it can't be heard of now, this node's own share still holds. Boxed as above.
            let _heard = Box::pin(self.feed.listen_to(room)).await;
        }
        taken.map_err(|wait| {
            Failure::new(ErrorCode::RateLimited, "the shop sends too much; slow down").retry_after(wait)
        })
    }
}

/// What is asked of the store for a message.
pub fn publish(message: Message, key: Option<OnceKey>) -> Publish {
    Publish { message, key: key.filter(|_| !planted::strikes(Fault::IgnoreKey)) }
}

fn source(content: &Content) -> Source {
    match &content.from {
        Origin::Device { .. } => Source::Device,
        Origin::Api { .. } => Source::Api,
    }
}

fn accepted(published: Published, source: Source) -> Result<Accepted, Failure> {
    match published {
        Published::Stored(id) => {
            metrics::published(source);
            Ok(Accepted { id: Some(id), is_duplicate: false })
        }
        Published::Duplicate(id) => Ok(Accepted { id: Some(id), is_duplicate: true }),
        Published::NoMainDevice => {
            Err(Failure::new(ErrorCode::NoMainDevice, "no main device has ever logged in to this shop"))
        }
        Published::NoSuchDevice => Err(nobody_registered()),
        Published::BacklogFull => {
            let text = "the shop's log is full of what some device has not received yet";
            Err(Failure::new(ErrorCode::BacklogFull, text).retry_after(FULL_WAIT))
        }
    }
}

fn nobody_registered() -> Failure {
    Failure::new(ErrorCode::NotFound, "none of these devices is registered in this shop")
}
