//! Who gets in, and how many at once: connections of the node, of an address and of a shop, handshakes and
//! logins a second, and the state of the node's memory.
//!
//! Owns the counts and the queues; every bound is a setting. Knows no request and no frame: what a refusal
//! looks like to the client is the business of `http` and [`super::login`]. A connection counts from the moment
//! it is accepted, whatever it does after that.

mod logins;
mod pace;
mod queue;
mod tally;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub use logins::{LoginLimits, Logins};
pub use queue::spread;
use queue::{Full, Queue};
use tally::{Share, Tally};

use crate::ids::ShopId;
use crate::metrics::{self, Refusal};

/// Connections that are only told that there is no room; beyond these they are dropped without a word.
const REFUSING_MAX: usize = 1024;
/// When to try again where there is no room: a place is free when somebody leaves, which nobody can foretell.
const FULL_WAIT: Duration = Duration::from_secs(5);
/// A node that was full is not ready again before a share of its places is free, so that a balancer is not
/// sent to and fro.
const READY_SHARE: usize = 20;

/// The bounds; see the settings of these names.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub connections: usize,
    /// None for no bound.
    pub address_connections: Option<usize>,
    pub shop_connections: usize,
    pub handshakes_per_s: u32,
    pub handshake_queue: usize,
    pub logins: LoginLimits,
}

/// See the module.
pub struct Intake {
    bounds: Bounds,
    connections: AtomicUsize,
    refusing: AtomicUsize,
    is_full: AtomicBool,
    is_short_of_memory: AtomicBool,
    addresses: Arc<Tally<IpAddr>>,
    shops: Arc<Tally<ShopId>>,
    handshakes: Queue,
    pub logins: Arc<Logins>,
}

/// A connection's place on the node, given back when dropped: among those that are served, or, where it is
/// refused, among those that are only told so.
pub struct Place {
    intake: Arc<Intake>,
    address: Option<Share<IpAddr>>,
    refused: Option<Turned>,
}

/// Why a connection is not served, and when it may try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turned {
    pub why: Refusal,
    pub retry_after: Duration,
}

/// A session's place in its shop, given back when dropped.
pub type Seat = Share<ShopId>;

impl Intake {
    /// Nobody is in.
    pub fn new(bounds: Bounds) -> Arc<Intake> {
        Arc::new(Intake {
            connections: AtomicUsize::new(0),
            refusing: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
            is_short_of_memory: AtomicBool::new(false),
            addresses: Tally::new(),
            shops: Tally::new(),
            handshakes: Queue::new(bounds.handshakes_per_s, bounds.handshake_queue),
            logins: Logins::new(&bounds.logins),
            bounds,
        })
    }

    /// How many connections there are, logged in or not.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// A place for a connection that was accepted, which may be one of those that are refused; None where
    /// there are too many even of these.
    pub fn arrive(self: &Arc<Self>) -> Option<Place> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        metrics::connection_opened();
        let mut place = Place { intake: self.clone(), address: None, refused: None };
        let refused = match before {
            before if before >= self.bounds.connections => {
                self.is_full.store(true, Ordering::Relaxed);
                Some(Refusal::Node)
            }
            _ if self.is_short_of_memory.load(Ordering::Relaxed) => Some(Refusal::Memory),
            _ => None,
        };
        match refused {
            Some(why) => place.refuse(why).then_some(place),
            None => Some(place),
        }
    }

    /// Waits for the turn of a connection that asks for its WebSocket; says how long that took.
    ///
    /// # Errors
    /// One of the queues before it is full.
    pub async fn shake_hands(&self) -> Result<Duration, Turned> {
        let turned = |why| move |Full { retry_after }| Turned { why, retry_after };
        // Whoever could not log in anyway would only take a place.
        self.logins.check_room().map_err(turned(Refusal::LoginQueue))?;
        let waiting = self.handshakes.enter().map_err(turned(Refusal::HandshakeQueue))?;
        let began = Instant::now();
        waiting.turn().await;
        Ok(began.elapsed())
    }

    /// The longest that [`Intake::shake_hands`] can take, as long as nobody holds up the clock.
    pub fn handshake_wait_max(&self) -> Duration {
        let queue = u32::try_from(self.bounds.handshake_queue).unwrap_or(u32::MAX);
        Duration::from_secs(1) / self.bounds.handshakes_per_s.max(1) * queue
    }

    /// A place for a session in its shop; None where that has as many on this node as it may. A device that
    /// takes over from a connection here needs no place of its own: the older one is about to go.
    pub fn seat(&self, shop: &ShopId, takes_over: bool) -> Option<Seat> {
        let max = self.bounds.shop_connections + usize::from(takes_over);
        self.shops.take(shop, max)
    }

    /// Whether new connections are let in, but for the queues, which are over in seconds.
    pub fn has_room(&self) -> bool {
        if self.is_short_of_memory.load(Ordering::Relaxed) {
            return false;
        }
        let free = self.bounds.connections.saturating_sub(self.connections());
        if self.is_full.load(Ordering::Relaxed) && free > self.bounds.connections / READY_SHARE {
            self.is_full.store(false, Ordering::Relaxed);
        }
        free > 0 && !self.is_full.load(Ordering::Relaxed)
    }

    /// Whether the node's memory is so short that nobody new is let in.
    pub fn set_short_of_memory(&self, is_short: bool) {
        self.is_short_of_memory.store(is_short, Ordering::Relaxed);
    }
}

impl Place {
    /// Why the connection is not served, where it is not.
    pub fn refused(&self) -> Option<Turned> {
        self.refused
    }

    /// Counts the connection with those of its address, which is known now; says whether there is room for it,
    /// if only to be told that there is none.
    pub fn count_address(&mut self, address: IpAddr) -> bool {
        let Some(max) = self.intake.bounds.address_connections.filter(|_| self.refused.is_none()) else {
            return true;
        };
        self.address = self.intake.addresses.take(&whole(address), max);
        self.address.is_some() || self.refuse(Refusal::Address)
    }

    /// From now on the connection is only to be told why; false where there are too many of these.
    fn refuse(&mut self, why: Refusal) -> bool {
        metrics::connection_refused(why);
        metrics::connection_closed();
        self.intake.connections.fetch_sub(1, Ordering::Relaxed);
        let before = self.intake.refusing.fetch_add(1, Ordering::Relaxed);
        self.refused = Some(Turned { why, retry_after: FULL_WAIT + spread(FULL_WAIT) });
        before < REFUSING_MAX
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.refused.is_some() {
            self.intake.refusing.fetch_sub(1, Ordering::Relaxed);
        } else {
            metrics::connection_closed();
            self.intake.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What counts as one address: of IPv6 the first 64 bits, of which one customer has all the rest.
fn whole(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intake(connections: usize, address_connections: Option<usize>) -> Arc<Intake> {
        let second = Duration::from_secs(1);
        let logins = LoginLimits { per_s: 1000, queue: 10, at_once: 10, delay: second, wait: second };
        let (handshakes_per_s, handshake_queue) = (1000, 10);
        let shop_connections = 2;
        Intake::new(Bounds {
            connections,
            address_connections,
            shop_connections,
            handshakes_per_s,
            handshake_queue,
            logins,
        })
    }

    #[test]
    fn a_connection_too_many_is_told_so_and_takes_no_place() {
        let intake = intake(1, None);
        let first = intake.arrive().unwrap();
        assert!(first.refused().is_none() && !intake.has_room());
        let second = intake.arrive().unwrap();
        assert_eq!(second.refused().map(|turned| turned.why), Some(Refusal::Node));
        assert_eq!(intake.connections(), 1);
        drop((first, second));
        assert_eq!(intake.connections(), 0);
        assert!(intake.has_room());
        assert!(intake.arrive().unwrap().refused().is_none());
    }

    #[test]
    fn so_many_at_most_are_told_and_the_rest_are_dropped() {
        let intake = intake(1, None);
        let _first = intake.arrive().unwrap();
        let told: Vec<Place> = std::iter::from_fn(|| intake.arrive()).take(2 * REFUSING_MAX).collect();
        assert_eq!(told.len(), REFUSING_MAX);
        drop(told);
        assert!(intake.arrive().is_some());
    }

    #[test]
    fn an_address_has_its_share_and_ipv6_counts_by_its_first_half() {
        let intake = intake(100, Some(1));
        let arrive = |address: &str| {
            let mut place = intake.arrive().unwrap();
            assert!(place.count_address(address.parse().unwrap()));
            let is_refused = place.refused().is_some();
            (place, is_refused)
        };
        let (_first, is_refused) = arrive("192.0.2.1");
        assert!(!is_refused);
        assert!(arrive("192.0.2.1").1);
        assert!(arrive("::ffff:192.0.2.1").1, "the same address, mapped");
        assert!(!arrive("192.0.2.2").1);
        let (_one, is_refused) = arrive("2001:db8:0:1::1");
        assert!(!is_refused);
        assert!(arrive("2001:db8:0:1:ffff::2").1);
        assert!(!arrive("2001:db8:0:2::1").1);
    }

    #[test]
    fn a_shop_has_its_seats_and_a_takeover_needs_none() {
        let intake = intake(100, None);
        let shop: ShopId = "s".parse().unwrap();
        let _seats = [intake.seat(&shop, false).unwrap(), intake.seat(&shop, false).unwrap()];
        assert!(intake.seat(&shop, false).is_none());
        assert!(intake.seat(&shop, true).is_some());
        assert!(intake.seat(&"t".parse().unwrap(), false).is_some());
    }

    #[test]
    fn a_full_node_is_ready_again_when_a_share_of_it_is_free() {
        let intake = intake(100, None);
        let mut places: Vec<Place> = (0..101).map(|_| intake.arrive().unwrap()).collect();
        assert!(!intake.has_room());
        places.drain(..5);
        assert!(!intake.has_room());
        places.drain(..1);
        assert!(intake.has_room());
        intake.set_short_of_memory(true);
        assert!(!intake.has_room());
    }
}
