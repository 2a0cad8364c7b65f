//! What belongs to a device whether it is connected or not: its groups, user and attributes, its
//! place in the registry; and what it calls of the back end.

use std::time::Instant;

use tracing::info;

use crate::attrs::{Attrs, AttrsChange};
use crate::events::Events;
use crate::ids::{ConnId, DeviceId, Name, ShopId};
use crate::message::{Audience, Content, Listed, MembershipChange, Origin, Signal, Value};
use crate::protocol::{CallMethod, ErrorCode};
use crate::relay::Relay;
use crate::relay::failures::{no_such_device, not_connected};
use crate::session::{Failure, Identity};
use crate::store::{AttrsChanged, Device, Event, EventKind, Evicted, Forget, MembershipChanged, Online};

/// The wire's `type` of the last signal of a connection that an operator closes.
const CLOSE_SIGNAL: &str = "close";

/// A device's call of the back-end workers.
pub struct DeviceCall<'a> {
    pub identity: &'a Identity,
    pub conn: &'a ConnId,
    pub call: CallMethod,
    /// Its `ref`, as text.
    pub reference: Option<Box<str>>,
}

impl Relay {
    /// A registered device.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn device(&self, shop: &ShopId, device: &DeviceId) -> Result<Device, Failure> {
        self.store.device(shop, device).await?.ok_or_else(no_such_device)
    }

    /// Changes what devices are members of.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn change_membership(&self, shop: &ShopId, change: &MembershipChange) -> Result<(), Failure> {
        match self.store.change_membership(shop, change).await? {
            MembershipChanged::Changed(_) | MembershipChanged::Unchanged => Ok(()),
            MembershipChanged::NoSuchDevice => Err(no_such_device()),
            MembershipChanged::TooManyGroups => {
                let text = "the device is in as many groups as it may be (limits.device_groups)";
                Err(Failure::new(ErrorCode::BadRequest, text))
            }
        }
    }

    /// A device's attributes.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn attrs(&self, shop: &ShopId, device: &DeviceId) -> Result<Attrs, Failure> {
        self.store.attrs(shop, device).await?.ok_or_else(no_such_device)
    }

    /// Changes a device's attributes; what they are then.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn change_attrs(&self, shop: &ShopId, device: &DeviceId, change: &AttrsChange) -> Result<Attrs, Failure> {
        match self.store.change_attrs(shop, device, change).await? {
            AttrsChanged::Now(attrs) => Ok(attrs),
            AttrsChanged::NoSuchDevice => Err(no_such_device()),
            AttrsChanged::TooLarge { size } => {
                let limit = self.session.frame_bytes;
                let text = format!("the attributes would have {size} bytes, the limit is {limit} (limits.frame_bytes)");
                Err(Failure::new(ErrorCode::BadRequest, text))
            }
        }
    }

    /// Has a device's connection closed by an operator, after a last signal with this data; with a
    /// `conn` only that one.
    ///
    /// # Errors
    /// The [`Failure`] to answer: not found where it is not connected, or by a node that is gone.
    pub async fn evict(
        &self,
        shop: &ShopId,
        device: &DeviceId,
        conn: Option<&ConnId>,
        by: Name,
        data: Option<Value>,
    ) -> Result<(), Failure> {
        let last = data.map(|data| self.close_signal(device, by, data));
        let ghost = match conn {
            Some(_) => None,
            None => self.ghost(shop, device).await?,
        };
        match self.store.evict(shop, device, conn, last.as_ref()).await? {
            // It is gone from the store now, and nobody is there to be closed.
            Evicted::Closing(conn) if ghost.as_ref() == Some(&conn) => Err(not_connected()),
            Evicted::Closing(_) => Ok(()),
            Evicted::Away => Err(not_connected()),
        }
    }

    /// The connection that the store still shows of a device whose node is gone.
    async fn ghost(&self, shop: &ShopId, device: &DeviceId) -> Result<Option<ConnId>, Failure> {
        let online = self.store.online(shop).await?;
        let shown = online.into_iter().find(|online| online.device == *device);
        // A node that has just begun may not have been heard of; its logins show that it lives.
        let is_gone = |online: &Online| self.nodes.state_of(online, Instant::now(), self.store.now_ms()).is_none();
        Ok(shown.filter(is_gone).map(|online| online.conn))
    }

    fn close_signal(&self, device: &DeviceId, by: Name, data: Value) -> Signal {
        let content = Content {
            from: Origin::Api { name: by },
            to: Audience::Devices(vec![device.clone()].into()),
            except: Listed::from(Vec::new()),
            kind: Name::constant(CLOSE_SIGNAL),
            table: None,
            data: Some(data),
            user_info: None,
            legacy: None,
        };
        Signal { at_ms: self.store.now_ms(), content }
    }

    /// Bars a device, registered or not, for the back end of this name: closes its connection, after a last
    /// signal with this data, and lets it log in no more.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn bar(&self, shop: &ShopId, device: &DeviceId, by: Name, data: Option<Value>) -> Result<(), Failure> {
        let last = data.map(|data| self.close_signal(device, by.clone(), data));
        if self.store.bar(shop, device, &by, last.as_ref()).await? {
            info!(%shop, %device, %by, "barred");
        }
        Ok(())
    }

    /// Lets a barred device log in again.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn unbar(&self, shop: &ShopId, device: &DeviceId, by: Name) -> Result<(), Failure> {
        if self.store.unbar(shop, device).await? {
            info!(%shop, %device, %by, "barred no more");
        }
        Ok(())
    }

    /// Takes a device out of the registry, for an operator.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn forget(&self, shop: &ShopId, device: &DeviceId) -> Result<(), Failure> {
        match self.store.forget(shop, device, Forget::ByOperator).await? {
            true => Ok(()),
            false => Err(no_such_device()),
        }
    }

    /// Hands a device's call to the back-end workers; it is in the stream when this returns.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn call(&self, call: DeviceCall<'_>) -> Result<(), Failure> {
        if !self.events.is_on() {
            let text = "this deployment has no event stream; its operator can turn it on with --events";
            return Err(Failure::new(ErrorCode::Forbidden, text));
        }
        let DeviceCall { identity, conn, call, reference } = call;
        let kind = EventKind::Call { method: call.method, reference, data: call.data };
        let event = Event {
            conn: Some(conn.clone()),
            shop: Some(identity.shop.clone()),
            device: Some(identity.device.clone()),
            role: Some(identity.role),
            user: identity.membership.user.clone(),
            ..Events::event(kind, &self.node, self.store.now_ms())
        };
        Ok(self.events.add(event).await?)
    }
}
