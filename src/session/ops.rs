//! A client's frames: what it may ask for, and what it leaves out.

use std::time::{Duration, Instant};

use crate::ids::Name;
use crate::message::{Audience, Content, MembershipStep, Message, Origin, Role, STATUS_OPEN, Signal};
use crate::protocol::{self, ClientOp, Close, CloseCode, ErrorCode, FrameKind, Notify, Ref, Refused, ServerOp};
use crate::session::{Action, Call, CallOp, Failure, Session};

/// Consecutive `rate_limited` answers after which the connection is closed.
const RATE_LIMITED_MAX: u32 = 200;

impl Session {
    /// A data frame came in.
    pub fn on_frame(&mut self, kind: FrameKind, frame: &[u8], now: Instant, now_ms: u64, out: &mut Vec<Action>) {
        self.on_heard(now);
        if self.is_legacy() {
            return self.on_legacy_frame(kind, frame, now, now_ms, out);
        }
        if let Some(id) = protocol::plain_ack(self.encoding, kind, frame)
            && self.logged_in().is_some_and(|login| login.grant.refusal("ack").is_none())
        {
            self.faults.well_formed();
            return self.acknowledge(id, out);
        }
        let opening = protocol::open(self.encoding, kind, frame);
        // Acknowledgements are the answer to what the relay sends, so they are not the client's doing.
        let is_ack = opening.as_ref().is_ok_and(|opening| opening.op == "ack");
        if !is_ack && let Err(wait) = self.ops.take(now) {
            let reference = opening.ok().and_then(|opening| opening.reference);
            return self.rate_limited(reference, wait, out);
        }
        if !is_ack {
            self.rate_limited_in_row = 0;
        }
        let opening = match opening {
            Ok(opening) => opening,
            Err(refused) => return self.refused(refused, out),
        };
        self.faults.well_formed();
        let is_login = opening.op == "login";
        if self.logged_in().is_none() && !is_login && !matches!(opening.op.as_ref(), "ping" | "logout") {
            return self.fail(opening.reference, Failure::new(ErrorCode::NotLoggedIn, "log in first"), out);
        }
        if let Some(why) = self.logged_in().and_then(|login| login.grant.refusal(&opening.op)) {
            return self.fail(opening.reference, Failure::new(ErrorCode::Forbidden, why), out);
        }
        match protocol::decode(self.encoding, opening, frame) {
            Ok(frame) => {
                if is_login {
                    self.login_asked(now);
                }
                self.on_op(frame.reference, frame.op, now_ms, out);
            }
            Err(refused) => {
                if is_login {
                    out.push(Action::LoginRefused);
                }
                self.refused(refused, out);
            }
        }
    }

    /// A Ping came in: it is answered, and counts as an op does.
    pub fn on_ping(&mut self, payload: &[u8], now: Instant, out: &mut Vec<Action>) {
        self.on_heard(now);
        match self.ops.take(now) {
            Ok(()) => out.push(Action::Pong(payload.to_vec())),
            Err(wait) => self.rate_limited(None, wait, out),
        }
    }

    pub(super) fn rate_limited(&mut self, reference: Option<Ref>, wait: Duration, out: &mut Vec<Action>) {
        self.rate_limited_in_row += 1;
        if self.rate_limited_in_row > RATE_LIMITED_MAX {
            out.push(Action::Close(Close::new(CloseCode::RateLimit, "went on after it was told to slow down")));
            return;
        }
        let limit = self.settings.ops_per_s;
        let failure = Failure::new(ErrorCode::RateLimited, format!("more than {limit} ops a second; slow down"));
        self.fail(reference, failure.retry_after(wait), out);
    }

    fn refused(&mut self, refused: Refused, out: &mut Vec<Action>) {
        if !refused.malformed {
            self.faults.well_formed();
        } else if self.faults.malformed() {
            out.push(Action::Close(Close::new(CloseCode::Violation, "too many malformed frames")));
            return;
        }
        self.fail(refused.reference, Failure::new(refused.code, refused.message), out);
    }

    fn on_op(&mut self, reference: Option<Ref>, op: ClientOp, now_ms: u64, out: &mut Vec<Action>) {
        let op = match op {
            ClientOp::Ping => return self.send(&ServerOp::Pong { reference }, out),
            ClientOp::Logout => return out.push(Action::Close(Close::new(CloseCode::Logout, "logout"))),
            ClientOp::Ack(id) => return self.acknowledge(id, out),
            ClientOp::Login(_) if self.logged_in().is_some() => {
                let failure =
                    Failure::new(ErrorCode::AlreadyLoggedIn, "this connection is logged in; open another one");
                return self.fail(reference, failure, out);
            }
            ClientOp::Login(login) => CallOp::Login(login),
            ClientOp::Notify(notify) => return self.on_notify(reference, *notify, now_ms, out),
            ClientOp::Deal(_) if self.identity().is_some_and(|identity| identity.role == Role::Sub) => {
                let failure = Failure::new(ErrorCode::Forbidden, "only a main deals with messages");
                return self.fail(reference, failure, out);
            }
            ClientOp::Deal(deal) => CallOp::Deal(deal),
            ClientOp::List(list) => CallOp::List(list),
            ClientOp::Online(role) => CallOp::Online(role),
            ClientOp::Join(group) => CallOp::Membership(MembershipStep::Join(group)),
            ClientOp::Leave(group) => CallOp::Membership(MembershipStep::Leave(group)),
            ClientOp::Bind(user) => CallOp::Membership(MembershipStep::Bind(user)),
            ClientOp::Unbind => CallOp::Membership(MembershipStep::Unbind(None)),
            ClientOp::Attrs(change) => CallOp::Attrs(change),
            ClientOp::Call(call) => {
                let as_text = reference.as_ref().map(Ref::to_text);
                CallOp::Call(call, as_text)
            }
        };
        out.push(Action::Call(Call { reference, op }));
    }

    fn on_notify(&mut self, reference: Option<Ref>, notify: Notify, now_ms: u64, out: &mut Vec<Action>) {
        let Some(identity) = self.identity() else { return };
        let role = identity.role;
        let to = notify.to.unwrap_or(match role {
            Role::Main => Audience::Subs,
            Role::Sub => Audience::Mains,
        });
        let is_durable = notify.durable.unwrap_or(match &to {
            Audience::Conns(_) => false,
            Audience::Subs => role != Role::Main,
            _ => true,
        });
        let content = Content {
            from: Origin::Device { device: identity.device.clone(), role },
            to,
            except: notify.except,
            kind: notify.kind,
            table: notify.table,
            data: notify.data,
            user_info: notify.user_info,
            legacy: None,
        };
        let op = if is_durable {
            let status = notify.status.unwrap_or_else(|| Name::constant(STATUS_OPEN));
            CallOp::Publish(Box::new(Message { content, status, ttl: notify.ttl, receipt: notify.receipt }), notify.key)
        } else {
            CallOp::Signal(Box::new(Signal { at_ms: now_ms, content }))
        };
        out.push(Action::Call(Call { reference, op }));
    }
}
