//! The conversation of a legacy device: the old dialect, mapped onto the same session.
//!
//! What differs is said here: there is no login time-out, success is not answered, receipt is proven
//! by Pong, and what is no op is echoed.

use std::time::{Duration, Instant};

use crate::ids::Name;
use crate::message::{Audience, Content, Message, Origin, Role, STATUS_OPEN, Signal};
use crate::protocol::legacy::{self, Answer as Told, Frame, LegacyLogin, LegacyNotify};
use crate::protocol::{AckMode, Close, CloseCode, ErrorCode, FrameKind, Login};
use crate::session::{Action, Call, CallOp, Failure, Session};

/// What a legacy conversation remembers of the time.
#[derive(Debug)]
pub(super) struct Clock {
    /// When the last frame came.
    pub(super) asked_at: Instant,
    pub(super) now: Instant,
    pub(super) now_ms: u64,
}

impl Session {
    /// A data frame of a legacy device came in.
    pub(super) fn on_legacy_frame(
        &mut self,
        kind: FrameKind,
        frame: &[u8],
        now: Instant,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) {
        self.legacy = Some(Box::new(Clock { asked_at: now, now, now_ms }));
        if let Err(wait) = self.ops.take(now) {
            return self.rate_limited(None, wait, out);
        }
        self.rate_limited_in_row = 0;
        match legacy::read(kind, frame) {
            Frame::Login(login) => self.on_legacy_login(login, out),
            Frame::Notify(notify) => match *notify {
                Ok(notify) => self.on_legacy_notify(notify, now_ms, out),
                Err(problem) => self.fail(None, Failure::new(ErrorCode::BadRequest, problem), out),
            },
            Frame::Logout => out.push(Action::Close(Close::new(CloseCode::Logout, "logout"))),
            Frame::Raw(admin) => {
                out.push(Action::Echo(kind, frame.to_vec()));
                if let Some(admin) = admin {
                    out.push(Action::Call(Call { reference: None, op: CallOp::Admin(admin) }));
                }
            }
        }
    }

    fn on_legacy_login(&mut self, login: Result<LegacyLogin, String>, out: &mut Vec<Action>) {
        let refused = match (login, self.identity()) {
            (Err(problem), _) => Failure::new(ErrorCode::BadRequest, problem),
            (Ok(login), None) => {
                let LegacyLogin { shop, device, role, token } = login;
                let login = Login { shop, device, role, ack: Some(AckMode::Pong), token, meta: None };
                return out.push(Action::Call(Call { reference: None, op: CallOp::Login(login) }));
            }
            (Ok(login), Some(identity)) => {
                let (shop, device, role) = (&identity.shop, &identity.device, identity.role);
                if (&login.shop, &login.device, login.role) == (shop, device, role) {
                    return;
                }
                Failure::new(ErrorCode::AlreadyLoggedIn, "this connection is logged in as another device")
            }
        };
        out.push(Action::LoginRefused);
        self.fail(None, refused, out);
        out.push(Action::Close(Close::new(CloseCode::Unauthorized, "the login was refused")));
    }

    fn on_legacy_notify(&mut self, notify: LegacyNotify, now_ms: u64, out: &mut Vec<Action>) {
        let Some(identity) = self.identity() else {
            return self.fail(None, Failure::new(ErrorCode::NotLoggedIn, "log in first"), out);
        };
        if notify.shop.as_ref().is_some_and(|shop| *shop != identity.shop)
            || notify.device.as_ref().is_some_and(|device| *device != identity.device)
        {
            let failure = Failure::new(ErrorCode::Forbidden, "this connection is logged in as another device");
            return self.fail(None, failure, out);
        }
        if let Some(why) = self.logged_in().and_then(|login| login.grant.refusal("notify")) {
            return self.fail(None, Failure::new(ErrorCode::Forbidden, why), out);
        }
        let role = identity.role;
        let (to, kept) = match role {
            Role::Sub => (Audience::Mains, notify.kept_of_message),
            Role::Main => (Audience::Subs, notify.kept_of_signal),
        };
        let content = Content {
            from: Origin::Device { device: identity.device.clone(), role },
            to,
            except: Vec::new().into(),
            kind: notify.kind,
            table: notify.table,
            data: notify.data,
            user_info: notify.user_info,
            legacy: Some(kept),
        };
        let op = match role {
            Role::Sub => {
                let status = notify.status.unwrap_or_else(|| Name::constant(STATUS_OPEN));
                CallOp::Publish(Box::new(Message { content, status, ttl: None, receipt: false }), None)
            }
            Role::Main => CallOp::Signal(Box::new(Signal { at_ms: now_ms, content })),
        };
        out.push(Action::Call(Call { reference: None, op }));
    }

    /// The refusal in the old form.
    pub(super) fn legacy_refusal(clock: &Clock, failure: &Failure) -> Vec<u8> {
        let msg = match failure.code {
            ErrorCode::NoMainDevice => legacy::NO_MAIN_DEVICE,
            ErrorCode::Unauthorized => "unauthorized",
            ErrorCode::RateLimited => "rate_limited",
            _ => &failure.message,
        };
        clock.answer(false, msg)
    }
}

impl Clock {
    /// An answer in the old form, without data.
    pub(super) fn answer(&self, is_done: bool, msg: &str) -> Vec<u8> {
        let took: Duration = self.now.saturating_duration_since(self.asked_at);
        let told = Told { is_done, msg, data: (), at_ms: self.now_ms, took };
        // Texts can always be written.
        serde_json::to_vec(&told).unwrap_or_default()
    }
}
