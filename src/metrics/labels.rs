//! The labels of metrics: every value there is of each.
//!
//! Owns the spelling of each value. Never holds what a shop, a device or a connection is called. Used through
//! [`super`].

use crate::protocol::{CloseCode, ErrorCode};

/// Where a message or a signal came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Device,
    Api,
}

/// What became of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginResult {
    Ok,
    BadRequest,
    Unauthorized,
    Barred,
    Unavailable,
    TimedOut,
    /// The shop has as many sessions on the node as it may.
    ShopFull,
    /// Too many others waited.
    Busy,
}

impl LoginResult {
    pub(super) fn label(self) -> &'static str {
        match self {
            LoginResult::Ok => "ok",
            LoginResult::BadRequest => "bad_request",
            LoginResult::Unauthorized => "unauthorized",
            LoginResult::Barred => "barred",
            LoginResult::Unavailable => "unavailable",
            LoginResult::TimedOut => "timed_out",
            LoginResult::ShopFull => "shop_full",
            LoginResult::Busy => "busy",
        }
    }
}

/// Why a connection was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The node has as many as it may.
    Node,
    /// Its address has.
    Address,
    /// The node's memory is short.
    Memory,
    /// Too many others wait for their handshake.
    HandshakeQueue,
    /// Too many others wait for their login.
    LoginQueue,
    /// It is a browser's, of an origin that is not allowed.
    Origin,
    /// Its PROXY header is missing, wrong, or of somebody who is not trusted.
    ProxyHeader,
    /// Its request did not come in time.
    Header,
}

impl Refusal {
    pub(super) fn label(self) -> &'static str {
        match self {
            Refusal::Node => "node",
            Refusal::Address => "address",
            Refusal::Memory => "memory",
            Refusal::HandshakeQueue => "handshake_queue",
            Refusal::LoginQueue => "login_queue",
            Refusal::Origin => "origin",
            Refusal::ProxyHeader => "proxy_header",
            Refusal::Header => "header",
        }
    }
}

/// What became of a TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsResult {
    Ok,
    /// The client broke it off, or is not one to take.
    Failed,
    /// The login time-out was over.
    TimedOut,
    /// It was slow while all places were taken and others waited, or waited too long itself.
    CrowdedOut,
}

impl TlsResult {
    pub(super) fn label(self) -> &'static str {
        match self {
            TlsResult::Ok => "ok",
            TlsResult::Failed => "failed",
            TlsResult::TimedOut => "timed_out",
            TlsResult::CrowdedOut => "crowded_out",
        }
    }
}

/// A file of TLS that expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFile {
    Certificate,
    ClientCa,
    ClientCrl,
}

impl TlsFile {
    pub(super) fn label(self) -> &'static str {
        match self {
            TlsFile::Certificate => "cert",
            TlsFile::ClientCa => "client_ca",
            TlsFile::ClientCrl => "client_crl",
        }
    }
}

/// A call of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOp {
    Publish,
    Signal,
    Receipts,
    MarkDelivered,
    Connect,
    Disconnect,
    Restore,
    SetStatus,
    Read,
    Heads,
    Devices,
    Online,
    Trim,
    Forget,
    Membership,
    Attrs,
    Evict,
    Bar,
    Locate,
    Broadcast,
    Events,
    Beat,
    Subscribe,
    Other,
}

impl StoreOp {
    pub(super) fn label(self) -> &'static str {
        match self {
            StoreOp::Publish => "publish",
            StoreOp::Signal => "signal",
            StoreOp::Receipts => "receipts",
            StoreOp::MarkDelivered => "mark_delivered",
            StoreOp::Connect => "connect",
            StoreOp::Disconnect => "disconnect",
            StoreOp::Restore => "restore",
            StoreOp::SetStatus => "set_status",
            StoreOp::Read => "read",
            StoreOp::Heads => "heads",
            StoreOp::Devices => "devices",
            StoreOp::Online => "online",
            StoreOp::Trim => "trim",
            StoreOp::Forget => "forget",
            StoreOp::Membership => "membership",
            StoreOp::Attrs => "attrs",
            StoreOp::Evict => "evict",
            StoreOp::Bar => "bar",
            StoreOp::Locate => "locate",
            StoreOp::Broadcast => "broadcast",
            StoreOp::Events => "events",
            StoreOp::Beat => "beat",
            StoreOp::Subscribe => "subscribe",
            StoreOp::Other => "other",
        }
    }
}

/// Why a data frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameFault {
    /// An error code answered it.
    Refused(ErrorCode),
    /// A close code answered it.
    Closed(CloseCode),
}
