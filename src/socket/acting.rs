//! What the session wants done, done: frames on their way, calls begun, proofs passed on.

use crate::metrics::{self, FrameFault, LoginResult};
use crate::session::{Action, Call, CallOp};
use crate::socket::calls::Caller;
use crate::socket::connection::{Begun, Connection};
use crate::socket::writer;

impl Connection {
    /// Does what the session has asked for so far.
    pub(super) fn act(&mut self) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send(payload) => self.outgoing.push(writer::data_frame(self.session.encoding(), payload)),
                Action::Echo(kind, payload) => self.outgoing.push(writer::echo_frame(kind, payload)),
                Action::Ping(payload) => self.outgoing.push(writer::ping_frame(payload)),
                Action::Pong(payload) => self.outgoing.push(writer::pong_frame(payload)),
                Action::Call(call) => self.call(call),
                Action::Proven(proven) => {
                    if let Some(identity) = self.session.identity() {
                        self.relay.proofs.proven(&identity.shop, &identity.device, proven);
                    }
                }
                Action::LoginRefused => metrics::login(LoginResult::BadRequest),
                Action::Refused(code) => metrics::frame_rejected(FrameFault::Refused(code)),
                Action::Close(close) => {
                    self.close.get_or_insert(close);
                }
            }
        }
    }

    fn call(&mut self, call: Call) {
        let (reference, op) = call.into_parts();
        if let CallOp::Login(login) = &op {
            let trying = (login.shop.clone(), login.device.clone());
            if let Some((shop, device)) = self.tried.replace(trying.clone()).filter(|tried| *tried != trying) {
                // The earlier login may hold in the store although it was refused here.
                self.relay.proofs.departed(&shop, &device, self.session.conn(), None);
            }
        }
        let caller = Caller {
            relay: self.relay.clone(),
            conn: self.session.conn().clone(),
            encoding: self.session.encoding(),
            is_legacy: self.session.is_legacy(),
            certificate: self.certificate.clone(),
            identity: self.session.identity().cloned(),
            room: self.room.clone(),
        };
        self.answering = Some(Begun::new(async move { (reference, caller.perform(op).await) }));
    }
}
