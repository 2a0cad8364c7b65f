//! What the guests of the simulated restaurant order.
//!
//! Owns the dishes and the dice. Pure; the same seed orders the same. Called by the handhelds, and by
//! the tills for how long they take.

use std::time::Duration;

const DISHES: [&str; 14] = [
    "ramen",
    "gyoza",
    "miso soup",
    "edamame",
    "udon",
    "tempura",
    "katsu curry",
    "salmon roll",
    "green tea",
    "sake",
    "beer",
    "mochi",
    "iced coffee",
    "tofu bowl",
];
const TABLES: u64 = 24;

/// Small, even and repeatable; nothing here needs to be unpredictable.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64, by Steele, Lea and Flood.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// Whether one of `chances` came up.
    pub fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    /// A time between the two.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span = u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(0);
        from + Duration::from_millis(self.below(span + 1))
    }
}

/// What a handheld sends: the wire's `table`, `type` and `data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub table: String,
    pub kind: &'static str,
    pub text: String,
}

impl Order {
    /// Some table wants something.
    pub fn any(dice: &mut Dice) -> Order {
        let table = (dice.below(TABLES) + 1).to_string();
        let (kind, text) = match dice.below(8) {
            0 => ("bill", "the bill, please".to_owned()),
            1 => ("extra", format!("another {}", dish(dice))),
            _ => ("order", dishes(dice)),
        };
        Order { table, kind, text }
    }
}

fn dish(dice: &mut Dice) -> &'static str {
    let index = usize::try_from(dice.below(DISHES.len() as u64)).unwrap_or(0);
    DISHES.get(index).copied().unwrap_or("tea")
}

fn dishes(dice: &mut Dice) -> String {
    let first = dish(dice);
    let mut text = format!("{} {first}", dice.below(3) + 1);
    let second = dish(dice);
    if second != first && !dice.one_in(3) {
        text.push_str(&format!(", {} {second}", dice.below(2) + 1));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_dice_order_the_same_and_stay_within_the_house() {
        let mut dice = Dice::new(7);
        let orders: Vec<Order> = (0..200).map(|_| Order::any(&mut dice)).collect();
        let mut again = Dice::new(7);
        assert!(orders.iter().all(|order| *order == Order::any(&mut again)));
        for order in &orders {
            assert!((1..=TABLES).contains(&order.table.parse().unwrap()), "{order:?}");
            assert!(order.text.len() <= 30, "{order:?}");
        }
        assert!(orders.iter().any(|order| order.kind == "bill") && orders.iter().any(|order| order.kind == "extra"));
        let wait = Dice::new(1).between(Duration::from_secs(1), Duration::from_secs(2));
        assert!((Duration::from_secs(1)..=Duration::from_secs(2)).contains(&wait));
    }
}
