//! A TCP proxy before Redis that cuts, refuses, delays, holds, swallows replies, and loses pushes
//! while everything else looks fine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::resp::{self, Push};

type Predicate = Box<dyn Fn(&Push<'_>) -> bool + Send>;

#[derive(Clone, Copy, Default)]
struct Faults {
    refuse: bool,
    swallow: bool,
    hold: bool,
    deaf: bool,
    delay: Duration,
    /// Grows with each cut; a connection of an older number ends.
    cuts: u64,
}

#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    dropped_pushes: AtomicU64,
    swallowed_replies: AtomicU64,
}

struct Shared {
    faults: watch::Sender<Faults>,
    /// How many of the pushes that fit are still to be dropped.
    loss: Mutex<Option<(u64, Predicate)>>,
    counters: Counters,
}

/// The way to Redis, under control. Its connections end when it is dropped.
pub struct RedisProxy {
    port: u16,
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
}

impl RedisProxy {
    /// Stands before the Redis on this port of this machine.
    ///
    /// # Panics
    /// Without a free port.
    pub async fn before(redis_port: u16) -> RedisProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let faults = watch::Sender::new(Faults::default());
        let shared = Arc::new(Shared { faults, loss: Mutex::new(None), counters: Counters::default() });
        let accept = tokio::spawn(accept(listener, redis_port, shared.clone()));
        RedisProxy { port, shared, accept }
    }

    /// What a node is given as its store.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends all present connections.
    pub fn cut(&self) {
        self.shared.faults.send_modify(|faults| faults.cuts += 1);
    }

    /// Ends new connections at once, or lets them in again.
    pub fn refuse(&self, refuse: bool) {
        self.shared.faults.send_modify(|faults| faults.refuse = refuse);
    }

    /// Makes every reply late.
    pub fn delay(&self, delay: Duration) {
        self.shared.faults.send_modify(|faults| faults.delay = delay);
    }

    /// Throws whole replies away: the commands are carried out. A connection that has lost one takes
    /// later replies for earlier commands, so [`RedisProxy::cut`] before replies are let through again.
    pub fn swallow_replies(&self, swallow: bool) {
        self.shared.faults.send_modify(|faults| faults.swallow = swallow);
    }

    /// Keeps everything in both directions, or lets it go on.
    pub fn hold(&self, hold: bool) {
        self.shared.faults.send_modify(|faults| faults.hold = hold);
    }

    /// Drops every push of a sharded channel, or no longer.
    pub fn deafen(&self, deaf: bool) {
        self.shared.faults.send_modify(|faults| faults.deaf = deaf);
    }

    /// Drops the next `count` pushes of channels that contain this text: a shop's name spares the
    /// probes of the nodes.
    pub fn drop_pushes(&self, count: u64, channel: &str) {
        let channel = channel.as_bytes().to_vec();
        self.drop_pushes_where(count, move |push| push.channel.windows(channel.len()).any(|part| part == channel));
    }

    /// Drops the next `count` pushes that fit.
    pub fn drop_pushes_where(&self, count: u64, fits: impl Fn(&Push<'_>) -> bool + Send + 'static) {
        *self.shared.loss.lock().expect("no panic holds it") = Some((count, Box::new(fits)));
    }

    /// How many pushes have been dropped, for whatever reason.
    pub fn dropped_pushes(&self) -> u64 {
        self.shared.counters.dropped_pushes.load(Ordering::SeqCst)
    }

    /// How many replies have been swallowed.
    pub fn swallowed_replies(&self) -> u64 {
        self.shared.counters.swallowed_replies.load(Ordering::SeqCst)
    }

    /// How many connections have been let in.
    pub fn connections(&self) -> u64 {
        self.shared.counters.connections.load(Ordering::SeqCst)
    }
}

impl Drop for RedisProxy {
    fn drop(&mut self) {
        self.accept.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, redis_port: u16, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if !shared.faults.borrow().refuse {
            shared.counters.connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(carry(client, redis_port, shared.clone()));
        }
    }
}

async fn carry(client: TcpStream, redis_port: u16, shared: Arc<Shared>) {
    let mut faults = shared.faults.subscribe();
    let cuts = faults.borrow().cuts;
    let Ok(server) = TcpStream::connect(("127.0.0.1", redis_port)).await else {
        return;
    };
    // Latency is what the test says, not what Nagle adds.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    // Either direction's end, or a cut, ends both.
    tokio::select! {
        _ = commands(client_read, server_write, shared.faults.subscribe()) => {}
        _ = replies(server_read, client_write, &shared) => {}
        _ = faults.wait_for(|faults| faults.cuts != cuts) => {}
    }
}

async fn commands(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut faults: watch::Receiver<Faults>) -> Option<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        faults.wait_for(|faults| !faults.hold).await.ok()?;
        to.write_all(&buffer[..count]).await.ok()?;
    }
}

async fn replies(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) -> Option<()> {
    let mut faults = shared.faults.subscribe();
    let mut buffer = Vec::new();
    let mut passed = Vec::new();
    loop {
        let count = from.read_buf(&mut buffer).await.ok()?;
        if count == 0 {
            return None;
        }
        let now = *faults.wait_for(|faults| !faults.hold).await.ok()?;
        if !now.delay.is_zero() {
            tokio::time::sleep(now.delay).await;
        }
        let mut at = 0;
        while let Some(len) = resp::reply_len(&buffer[at..]).filter(|len| *len > 0) {
            let reply = &buffer[at..at + len];
            if shared.lets_through(reply) {
                passed.extend_from_slice(reply);
            }
            at += len;
        }
        buffer.drain(..at);
        to.write_all(&passed).await.ok()?;
        passed.clear();
    }
}

impl Shared {
    fn lets_through(&self, reply: &[u8]) -> bool {
        let faults = *self.faults.borrow();
        if let Some(push) = resp::sharded_push(reply)
            && (faults.deaf || self.is_to_be_lost(&push))
        {
            self.counters.dropped_pushes.fetch_add(1, Ordering::SeqCst);
            return false;
        }
        if faults.swallow {
            self.counters.swallowed_replies.fetch_add(1, Ordering::SeqCst);
            return false;
        }
        true
    }

    fn is_to_be_lost(&self, push: &Push<'_>) -> bool {
        let mut loss = self.loss.lock().expect("no panic holds it");
        let Some((left, fits)) = loss.as_mut() else {
            return false;
        };
        if *left == 0 || !fits(push) {
            return false;
        }
        *left -= 1;
        true
    }
}
