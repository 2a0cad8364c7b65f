//! Error codes and close codes: the two ways in which the relay says no.

use std::borrow::Cow;

use serde::Serialize;

/// Why an op was refused, as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    BadRequest,
    UnknownOp,
    NotLoggedIn,
    AlreadyLoggedIn,
    Unauthorized,
    Forbidden,
    NoMainDevice,
    NotFound,
    Conflict,
    RateLimited,
    BacklogFull,
    Unavailable,
    Internal,
}

impl ErrorCode {
    /// The code as on the wire, and as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::BadRequest => "bad_request",
            ErrorCode::UnknownOp => "unknown_op",
            ErrorCode::NotLoggedIn => "not_logged_in",
            ErrorCode::AlreadyLoggedIn => "already_logged_in",
            ErrorCode::Unauthorized => "unauthorized",
            ErrorCode::Forbidden => "forbidden",
            ErrorCode::NoMainDevice => "no_main_device",
            ErrorCode::NotFound => "not_found",
            ErrorCode::Conflict => "conflict",
            ErrorCode::RateLimited => "rate_limited",
            ErrorCode::BacklogFull => "backlog_full",
            ErrorCode::Unavailable => "unavailable",
            ErrorCode::Internal => "internal",
        }
    }
}

/// Why the relay closes a connection; the number is what the peer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The device logged out.
    Logout = 1000,
    /// A legacy peer breaks RFC 6455; natively that is [`CloseCode::Violation`].
    ProtocolError = 1002,
    /// A legacy peer's text is no UTF-8; natively that is [`CloseCode::Violation`].
    InvalidText = 1007,
    /// A frame, or the fragments of one message together, is larger than the limit.
    TooBig = 1009,
    /// The node is restarting; log in again elsewhere.
    Restart = 1012,
    /// The node has no memory left for the connection; log in again elsewhere.
    Overloaded = 1013,
    /// The same device logged in on a newer connection.
    Replaced = 4000,
    /// The login was refused, came too late, or its token expired.
    Unauthorized = 4001,
    /// The peer does not speak the protocol.
    Violation = 4002,
    /// The device does not acknowledge, or does not read, in time.
    TooSlow = 4003,
    /// The device goes on after it was told to slow down.
    RateLimit = 4004,
    /// An operator closed the connection.
    Operator = 4005,
    /// Two heartbeats passed without a sign of life.
    Silent = 4006,
}

impl CloseCode {
    /// Every close code, for the metrics that are there from the start.
    pub const ALL: [CloseCode; 13] = [
        CloseCode::Logout,
        CloseCode::ProtocolError,
        CloseCode::InvalidText,
        CloseCode::TooBig,
        CloseCode::Restart,
        CloseCode::Overloaded,
        CloseCode::Replaced,
        CloseCode::Unauthorized,
        CloseCode::Violation,
        CloseCode::TooSlow,
        CloseCode::RateLimit,
        CloseCode::Operator,
        CloseCode::Silent,
    ];

    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }
}

/// A close code with the reason that goes into the close frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    pub code: CloseCode,
    /// At most 123 bytes, which is what a close frame holds.
    pub reason: Cow<'static, str>,
}

impl Close {
    /// A close with a fixed reason.
    pub fn new(code: CloseCode, reason: &'static str) -> Close {
        Close { code, reason: Cow::Borrowed(reason) }
    }

    /// Has the device log in again, here or elsewhere, after this wait.
    pub fn restart(wait: std::time::Duration) -> Close {
        Close { code: CloseCode::Restart, reason: Cow::Owned(format!("retry_after_ms={}", wait.as_millis())) }
    }
}
