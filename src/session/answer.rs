//! What the store said to a [`Call`], and what the client is told of it.

use std::time::{Duration, Instant};

use crate::attrs::Attrs;
use crate::ids::{MessageId, Name};
use crate::message::{Membership, Origin};
use crate::protocol::{Close, CloseCode, ErrorCode, Item, Login, Presence, Ref, ServerOp};
use crate::session::window::Window;
use crate::session::{Action, Call, Grant, Identity, LoggedIn, Phase, Session};

/// What came of a [`Call`].
#[derive(Debug)]
pub enum Answer {
    /// The login holds.
    Welcome(Box<Welcome>),
    /// The message is stored, or the signal sent.
    Accepted {
        id: Option<MessageId>,
        is_duplicate: bool,
    },
    /// The status is set.
    Dealt {
        id: MessageId,
        status: Name,
    },
    Messages {
        items: Vec<Item>,
        next: Option<MessageId>,
    },
    Presence(Vec<Presence>),
    Attrs(Attrs),
    /// It is done, and there is nothing to tell of it.
    Done,
    /// What came of an operator's word on a legacy connection: what it asked for, where it asked.
    Admin(Result<Option<Vec<u8>>, Box<Failure>>),
    /// The op was refused.
    Failed(Box<Failure>),
}

/// A login that holds.
#[derive(Debug)]
pub struct Welcome {
    pub login: Login,
    pub grant: Grant,
    /// When the grant ends, by the clock that does not jump.
    pub expires_at: Option<Instant>,
    /// As of the head.
    pub membership: Membership,
    pub cursor: MessageId,
    pub head: MessageId,
    pub server_time_ms: u64,
}

/// An op that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: ErrorCode,
    pub message: String,
    pub retry_after: Option<Duration>,
    /// Of a conflict: the present status, and who set it.
    pub present: Option<(Name, Option<Origin>)>,
}

impl Failure {
    /// A refusal that a retry would not change.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), retry_after: None, present: None }
    }

    /// A refusal that may be gone after a wait.
    pub fn retry_after(mut self, wait: Duration) -> Failure {
        self.retry_after = Some(wait);
        self
    }

    pub(super) fn op(&self, reference: Option<Ref>) -> ServerOp<'_> {
        let (status, by) = match &self.present {
            Some((status, by)) => (Some(status), by.as_ref()),
            None => (None, None),
        };
        ServerOp::Error {
            reference,
            code: self.code,
            message: &self.message,
            retry_after_ms: self.retry_after.map(|wait| (wait.as_millis() as u64).max(1)),
            status,
            by,
        }
    }
}

impl Call {
    /// Splits off what has to come back with the answer.
    pub fn into_parts(self) -> (Option<Ref>, crate::session::CallOp) {
        (self.reference, self.op)
    }
}

impl Session {
    /// The store answered the call that bore this `ref`.
    pub fn on_answer(
        &mut self,
        reference: Option<Ref>,
        answer: Answer,
        now: Instant,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) {
        if let Some(clock) = &mut self.legacy {
            (clock.now, clock.now_ms) = (now, now_ms);
        }
        let op = match &answer {
            Answer::Welcome(welcome) => return self.on_welcome(reference, welcome, out),
            Answer::Admin(Ok(Some(told))) => return out.push(Action::Send(told.clone())),
            Answer::Admin(Ok(None)) => {
                return out.extend(self.legacy.as_ref().map(|clock| Action::Send(clock.answer(true, "ok"))));
            }
            // It was no login that was refused: the connection stays.
            Answer::Admin(Err(failure)) => return self.fail(reference, failure.as_ref().clone(), out),
            Answer::Failed(failure) => {
                self.login_refused(now);
                self.fail(reference, failure.as_ref().clone(), out);
                // A legacy device hears nothing of a login that holds, so it would never try again here.
                let is_refused = failure.code == ErrorCode::Unauthorized || self.is_legacy();
                if is_refused && self.logged_in().is_none() {
                    out.push(Action::Close(Close::new(CloseCode::Unauthorized, "the login was refused")));
                }
                return;
            }
            // Success is not answered there.
            _ if self.is_legacy() => return,
            Answer::Accepted { id, is_duplicate } => {
                ServerOp::Accepted { reference, id: *id, duplicate: *is_duplicate }
            }
            Answer::Dealt { id, status } => ServerOp::Dealt { reference, id: *id, status },
            Answer::Messages { items, next } => ServerOp::Messages { reference, items, next: *next },
            Answer::Presence(devices) => ServerOp::Presence { reference, devices },
            Answer::Attrs(attrs) => ServerOp::Attrs { reference, attrs },
            Answer::Done => ServerOp::Ok { reference },
        };
        self.send(&op, out);
    }

    fn on_welcome(&mut self, reference: Option<Ref>, welcome: &Welcome, out: &mut Vec<Action>) {
        let login = &welcome.login;
        let op = ServerOp::Welcome {
            reference,
            conn: &self.conn,
            node: &self.node,
            shop: &login.shop,
            device: &login.device,
            role: login.role,
            cursor: welcome.cursor.non_zero(),
            head: welcome.head.non_zero(),
            server_time: welcome.server_time_ms,
            heartbeat_s: self.settings.heartbeat.as_secs(),
            window: self.settings.window,
            max_frame: self.settings.frame_bytes,
        };
        if !self.is_legacy() {
            self.send(&op, out);
        }
        self.phase = Phase::LoggedIn(Box::new(LoggedIn {
            identity: Identity {
                shop: login.shop.clone(),
                device: login.device.clone(),
                role: login.role,
                membership: welcome.membership.clone(),
            },
            member_as_of: welcome.head,
            grant: welcome.grant.clone(),
            expires_at: welcome.expires_at,
            ack: login.ack.unwrap_or_default(),
            window: Window::new(self.settings.window, welcome.cursor),
            owes_ping: false,
            was_rewound: false,
        }));
    }
}
