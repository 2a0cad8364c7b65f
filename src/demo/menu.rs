//! What the guests of the simulated restaurant order.
//!
//! Owns the dishes. Pure; the same dice order the same. Called by the handhelds.

use crate::client::Dice;

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
    }
}
