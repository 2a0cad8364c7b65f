//! What a client's op asks of the relay, and the answer as the session takes it.

use std::sync::Arc;

use crate::auth::ClientCertificate;
use crate::hub::RoomGuard;
use crate::ids::ConnId;
use crate::message::MembershipChange;
use crate::protocol::{Deal, Encoding, ErrorCode, List, Presence};
use crate::relay::{
    Accepted, Dealer, DeviceCall, Listing, LoggedIn, OnlineAt, OnlineFilter, Relay, Seat, Viewer, Visitor, publish,
};
use crate::session::{Answer, CallOp, Failure, Identity, Welcome};

/// What came of a call.
pub enum Answered {
    Plain(Answer),
    /// A login that holds, with its room.
    LoggedIn(Box<Welcome>, Arc<RoomGuard>, Seat),
}

/// Who asks.
pub struct Caller {
    pub relay: Arc<Relay>,
    pub conn: ConnId,
    pub encoding: Encoding,
    pub is_legacy: bool,
    pub certificate: Option<Arc<ClientCertificate>>,
    /// None before the login.
    pub identity: Option<Identity>,
    pub room: Option<Arc<RoomGuard>>,
}

impl Caller {
    /// Does what the op asks for. Dropping the future may leave it done.
    pub async fn perform(self, op: CallOp) -> Answered {
        let op = match op {
            CallOp::Login(login) => {
                let Caller { conn, is_legacy, certificate, .. } = &self;
                let (conn, certificate) = (conn.clone(), certificate.clone());
                let visitor = Visitor { login, conn, is_legacy: *is_legacy, certificate };
                // Boxed as below.
                return match Box::pin(self.relay.log_in(visitor)).await {
                    Ok(LoggedIn { welcome, room, seat }) => Answered::LoggedIn(welcome, Arc::new(room), seat),
                    Err(failure) => Answered::Plain(failed(failure)),
                };
            }
            // Who has the key need not be a device.
            CallOp::Admin(admin) => {
                let told = Box::pin(self.relay.heed(admin)).await;
                return Answered::Plain(Answer::Admin(told.map_err(Box::new)));
            }
            op => op,
        };
        let Some((identity, room)) = self.identity.as_ref().zip(self.room.as_ref()) else {
            return Answered::Plain(failed(Failure::new(ErrorCode::NotLoggedIn, "log in first")));
        };
        Answered::Plain(self.ask(identity, room, op).await.unwrap_or_else(failed))
    }

    async fn ask(&self, identity: &Identity, room: &RoomGuard, op: CallOp) -> Result<Answer, Failure> {
        let relay = &self.relay;
        match op {
            CallOp::Publish(message, key) => relay.publish(room, &publish(*message, key)).await.map(accepted),
            CallOp::Signal(signal) => relay.signal(room, &signal).await.map(accepted),
            op => Box::pin(self.ask_else(identity, op)).await,
        }
    }

    /// Boxed by its caller, so that messages do not carry its size.
    async fn ask_else(&self, identity: &Identity, op: CallOp) -> Result<Answer, Failure> {
        let (relay, shop, device) = (&self.relay, &identity.shop, &identity.device);
        match op {
            CallOp::Deal(deal) => self.deal(identity, deal).await,
            CallOp::List(list) => self.list(identity, list).await,
            CallOp::Online(role) => {
                let online = relay.online(shop, &OnlineFilter { role, ..OnlineFilter::default() }).await?;
                let devices: Vec<Presence> = online.into_iter().map(|OnlineAt { presence, .. }| presence).collect();
                Ok(Answer::Presence(devices))
            }
            CallOp::Membership(step) => {
                let change = MembershipChange { device: Some(device.clone()), step };
                relay.change_membership(shop, &change).await.map(|()| Answer::Done)
            }
            CallOp::Attrs(None) => relay.attrs(shop, device).await.map(Answer::Attrs),
            CallOp::Attrs(Some(change)) => relay.change_attrs(shop, device, &change).await.map(Answer::Attrs),
            CallOp::Login(_) | CallOp::Admin(_) | CallOp::Publish(..) | CallOp::Signal(_) => {
                Err(Failure::new(ErrorCode::AlreadyLoggedIn, "this connection is logged in"))
            }
            CallOp::Call(call, reference) => {
                let call = DeviceCall { identity, conn: &self.conn, call, reference };
                relay.call(call).await.map(|()| Answer::Done)
            }
        }
    }

    async fn deal(&self, identity: &Identity, deal: Deal) -> Result<Answer, Failure> {
        let dealt = Answer::Dealt { id: deal.id, status: deal.status.clone() };
        self.relay.deal(&identity.shop, Dealer::Device(identity, &self.conn), deal).await.map(|()| dealt)
    }

    async fn list(&self, identity: &Identity, list: List) -> Result<Answer, Failure> {
        let viewer = Viewer::Device(identity, &self.conn);
        let listing = Listing { shop: &identity.shop, viewer, list, encoding: self.encoding };
        self.relay.list(listing).await.map(|(items, next)| Answer::Messages { items, next })
    }
}

fn accepted(accepted: Accepted) -> Answer {
    Answer::Accepted { id: accepted.id, is_duplicate: accepted.is_duplicate }
}

fn failed(failure: Failure) -> Answer {
    Answer::Failed(Box::new(failure))
}
