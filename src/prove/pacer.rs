//! How fast messages are to be sent, and by whom.
//!
//! Owns the rate. Every so often a device is to send many at once, for which the others then wait. A
//! device whose queue is full, because it is away or answers come late, misses its turn.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::client::Dice;
use crate::prove::crew::Crew;
use crate::prove::plan::Draft;
use crate::prove::shop::Order;

/// Of so many turns one is a burst.
const BURST_ONE_IN: u64 = 40;
/// Most messages of a burst.
const BURST_MAX: u64 = 40;

/// The ways to the devices of each shop.
pub type Ways = Vec<Vec<mpsc::Sender<Order>>>;

/// See the module.
pub struct Pacer {
    crew: Crew,
    ways: Ways,
    dice: Dice,
    rate: u32,
    /// Messages that are due; below 0 after a burst.
    due: f64,
}

impl Pacer {
    /// `rate` messages a second, over all shops.
    pub fn new(crew: Crew, ways: Ways, rate: u32, dice: Dice) -> Pacer {
        Pacer { crew, ways, dice, rate, due: 0.0 }
    }

    /// So much time has passed: orders what is due. The shops whose devices missed a turn.
    pub fn pass(&mut self, elapsed: Duration) -> Vec<usize> {
        // After a long pause of this process there is no more to make up for than a second's worth.
        self.due = (self.due + elapsed.as_secs_f64() * f64::from(self.rate)).min(f64::from(self.rate));
        let mut missed = Vec::new();
        while self.due >= 1.0 {
            let shop = self.dice.below(self.ways.len() as u64) as usize;
            let from = self.dice.below(u64::from(self.crew.size())) as u8;
            let is_burst = self.dice.one_in(BURST_ONE_IN);
            let count = if is_burst { u64::from(self.rate / 4).clamp(1, BURST_MAX) } else { 1 };
            self.due -= count as f64;
            let Some(way) = self.ways.get(shop).and_then(|shop| shop.get(usize::from(from))) else { continue };
            for _ in 0..count {
                let draft = Draft::any(self.crew, from, &mut self.dice);
                if way.try_send(Order::Send(draft)).is_err() {
                    missed.push(shop);
                }
            }
        }
        missed
    }

    /// Orders one message to everybody, from this device of each shop.
    pub fn call_roll(&self, from: u8) {
        for shop in &self.ways {
            order(shop, from, Order::Send(Draft::to_all(self.crew, from)));
        }
    }

    /// Orders a list from the first device of these shops.
    pub fn order_lists(&self, shops: &[usize]) {
        for shop in shops.iter().filter_map(|shop| self.ways.get(*shop)) {
            order(shop, 0, Order::List);
        }
    }
}

fn order(shop: &[mpsc::Sender<Order>], device: u8, order: Order) {
    if let Some(way) = shop.get(usize::from(device)) {
        // A device whose queue is full has not been served for long, and its shop is not settled: the
        // verdict says so without the list.
        let _ = way.try_send(order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_whatever_the_bursts_and_full_queues_are_told() {
        let crew = Crew { mains: 1, subs: 2 };
        let (ways, mut orders): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::channel(10_000)).unzip();
        let mut pacer = Pacer::new(crew, vec![ways], 200, Dice::new(3));
        for _ in 0..1_000 {
            assert!(pacer.pass(Duration::from_millis(10)).is_empty());
        }
        let mut sent = 0;
        for orders in &mut orders {
            while orders.try_recv().is_ok() {
                sent += 1;
            }
        }
        assert!((1_950..=2_050).contains(&sent), "{sent}");
        drop(orders);
        assert!(!pacer.pass(Duration::from_secs(1)).is_empty());
    }
}
