//! shoprelay: a push relay that gets every message of a shop's devices delivered, and proves it.
//!
//! This page is the architecture. Read it, then follow one message through the modules named below.
//!
//! # Words
//!
//! | word | meaning |
//! | --- | --- |
//! | shop | a tenant: the unit of routing, of order, and of Redis slot (hash tag `{shop}`) |
//! | device | a registered terminal of a shop, by an id unique in it; has a role, `main` or `sub` |
//! | connection | one WebSocket of one device; its `conn` is unique in the deployment and never re-issued |
//! | socket | the I/O of a connection: bytes, frames, deadlines |
//! | session | what the relay knows of a connection: identity, position, window of unproven entries |
//! | message | a durable entry of a shop's log; its id is the store's, `<milliseconds>-<n>` |
//! | signal | a message that is not stored: for who is online now, or for nobody |
//! | audience | whom a message is for: a role, devices, a group, a user, everyone; less exceptions |
//! | cursor | per device: the newest id whose receipt it has proven, or that was not for it |
//! | room | a node's view of one shop: its sessions, and how far the feed has come |
//! | feed | what the store tells of a shop as it happens |
//! | node | one relay process; its id is new at every start |
//!
//! # The one idea
//!
//! **A session is a cursor over its shop's log. A push is only a hint.** Every entry is announced
//! with the id of the entry before it, `prev`. A room that stands at `prev` takes the entry straight
//! from the feed; a room that stands anywhere else reads the log from where it stands. The same holds
//! for a session: live while it keeps up, reading pages of the log while it does not. Reconnects, lost
//! announcements, failovers, slow devices and first logins are one code path: *not at `prev`, so
//! read*. The log is the buffer, so a slow device costs a node no memory.
//!
//! # Invariants
//!
//! Each is a test of the same name in `tests/it/delivery/invariants.rs`, on one node and across two.
//!
//! 1. *Stored before accepted.* A sender sees `accepted` only after the entry is in the log.
//! 2. *Nothing skipped.* A device gets every entry that is for it above its cursor, in id order, at
//!    least once, until it proves receipt.
//! 3. *Cursors never go back*, whatever order the proofs of old and new connections arrive in.
//! 4. *No repeats on one connection.* A connection is sent an id at most once.
//! 5. *One connection per device.* The newest login wins, the older connection is closed as
//!    `replaced`, and its late clean-up does not remove the newer one's presence.
//! 6. *A retry is not a second message.* Publishing twice under one key stores one entry.
//! 7. *Refuse, never lose.* What cannot be stored is refused with an error that says whether to retry.
//!
//! Proof of receipt is an `ack`, or the Pong to a Ping that carries the id. A socket write that
//! returned proves nothing.
//!
//! # Layers
//!
//! A module uses only what stands in a row below its own; `tests/it/layers.rs` fails otherwise.
//!
//! ```text
//! properties                          what must hold of any bytes; for tests and fuzzing only
//! demo  prove  bench                  a shop of simulated devices, to look at; a deployment held to its promises; measured
//! client                              a device's side of the wire, for the first two
//! node                                builds the parts in order, stops them in order
//! http                                listeners, the way to a WebSocket, the API, health and metrics
//! socket                              a connection with its stream: the loop, reader, writer
//! relay                               what devices and back ends can ask for, in one place
//! feed  retention  check              the log into the rooms; what is kept and for how long; settings shown
//! proofs  nodes  events  auth         proofs and events on their way to the store; which nodes live; who may
//! session  hub  store                 a conversation, pure; the rooms; where messages live
//! metrics  config                     every metric; settings
//! protocol  rate  trust               the wire, pure; a token bucket; whose certificates a client believes
//! message  attrs                      messages, signals, audiences; attributes
//! ids  planted                        identifiers; faults for tests of the proof, in debug builds only
//! ```
//!
//! `session` and `protocol` never await, never log and never read a clock. `store` does not know that
//! sockets exist, `hub` does not know that Redis exists; they meet in [`feed`], inward, and in
//! [`socket`], outward.
//!
//! # The path of one message
//!
//! 1. A handheld's frame arrives: [`socket`]'s reader makes a whole message of bytes.
//! 2. [`session::Session::on_frame`] has [`protocol::decode`] read it, checks what the handheld may
//!    do, fills in the defaults, and asks for a call of the store.
//! 3. The socket hands it to [`relay::Relay::publish`], as the API does with a back end's message, and
//!    that to [`store::Store::publish`]: in Redis the script `lua/publish.lua`, which in one step checks
//!    the key and the bounds, adds the entry, swaps the head and announces the entry with its `prev` on
//!    the shop's channel. What other tasks ask of the script in the same turn of the runtime goes to
//!    Redis with it, in one call. The handheld is answered `accepted`.
//! 4. On every node with a socket of that shop the engine hears it and hands a
//!    [`store::FeedEvent::Entry`] to [`feed::Feed`], which finds the room.
//! 5. [`hub::Room::on_entry`] compares `prev` with its position and puts the entry into the outbox of
//!    each session in the audience. If they differ, the feed reads the log instead.
//! 6. The till's connection wakes and offers the entry to its session
//!    ([`session::Session::on_entry`]). The frame is encoded once a node and encoding, and written
//!    with whatever else waits in one system call. Where the window is full the entry is left to the
//!    log.
//! 7. The till acknowledges. The session says what that proves, [`proofs::Proofs`] merges it with what
//!    the shop's other devices prove, and one `mark_delivered` moves the cursors forward. Where the
//!    store says that a cursor moved, the delivery is counted, once in the whole deployment, and a
//!    receipt goes to the sender that asked for one.
//!
//! A push to a device on the same node takes the same way: there is one path. So does a change of a
//! device's groups or user: it is an entry of the log that is sent to nobody, and that each session of
//! the device heeds when it comes to it, in order with the messages.

pub mod attrs;
pub mod auth;
pub mod bench;
pub mod check;
pub mod client;
pub mod config;
pub mod demo;
pub mod events;
pub mod feed;
pub mod http;
pub mod hub;
pub mod ids;
pub mod message;
pub mod metrics;
pub mod node;
pub mod nodes;
pub mod planted;
pub mod proofs;
#[cfg(any(test, fuzzing))]
pub mod properties;
pub mod protocol;
pub mod prove;
pub mod rate;
pub mod relay;
pub mod retention;
pub mod session;
pub mod socket;
pub mod store;
pub mod trust;
