//! Who does what: the habits of the devices, and whom a message is for.
//!
//! Pure: the same dice plan the same. The habits bring about by themselves what a relay is put to the
//! test by: coming back late, crashing before an acknowledgement, two connections of one device, windows
//! that are full, and clients that do not read.

use serde_json::{Value, json};

use crate::client::{Dice, Encoding};
use crate::message::Role;
use crate::prove::crew::{Crew, Mask, bit};

/// The group that every other device is in.
pub const GROUP: &str = "prove";

/// What a device does while messages flow, beside receiving and sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Nothing: it is always there. Latency and silence are measured where this is the habit.
    Steady,
    /// Goes away, with a word or without one, and comes back.
    Away,
    /// Does not acknowledge until its window is full for a while, or some time has passed.
    Holder,
    /// Loses its connection with entries that it has not acknowledged, and forgets these.
    Crasher,
    /// Logs in again while its connection is still there.
    Jumper,
    /// Does not read for a while.
    Sleeper,
}

/// How a device proves receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    Ack,
    Pong,
}

impl Proof {
    /// As the login says it.
    pub fn word(self) -> &'static str {
        match self {
            Proof::Ack => "client",
            Proof::Pong => "pong",
        }
    }
}

/// What a device is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    pub habit: Habit,
    pub proof: Proof,
    pub encoding: Encoding,
}

impl Manner {
    /// The first device of each role is steady; the others take the habits in turn.
    pub fn of(crew: Crew, device: u8) -> Manner {
        const MAINS: [Habit; 6] =
            [Habit::Steady, Habit::Crasher, Habit::Away, Habit::Holder, Habit::Jumper, Habit::Sleeper];
        const SUBS: [Habit; 6] =
            [Habit::Steady, Habit::Away, Habit::Jumper, Habit::Holder, Habit::Sleeper, Habit::Crasher];
        let (habits, place) = match crew.role(device) {
            Role::Main => (MAINS, device),
            Role::Sub => (SUBS, device - crew.mains),
        };
        let habit = habits.into_iter().cycle().nth(usize::from(place)).unwrap_or(Habit::Steady);
        // To hold an acknowledgement back is only possible where the device gives it itself.
        let may_pong = !matches!(habit, Habit::Holder | Habit::Crasher);
        let proof = if may_pong && place > 0 && !device.is_multiple_of(3) { Proof::Pong } else { Proof::Ack };
        let encoding = if device.is_multiple_of(2) { Encoding::Json } else { Encoding::MsgPack };
        Manner { habit, proof, encoding }
    }
}

/// A message that is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// As on the wire.
    pub to: Value,
    pub except: Vec<String>,
    /// Who is to get it.
    pub due: Mask,
    pub is_signal: bool,
    /// Whether the mains are to deal with it.
    pub deal: bool,
    /// Whether the sender sends it a second time although it was accepted, as after a lost answer.
    pub is_repeated: bool,
}

impl Draft {
    /// To all devices, less the sender.
    pub fn to_all(crew: Crew, from: u8) -> Draft {
        let due = crew.all() & !bit(from);
        Draft { to: json!("all"), except: Vec::new(), due, is_signal: false, deal: false, is_repeated: false }
    }

    /// Whatever the dice say.
    pub fn any(crew: Crew, from: u8, dice: &mut Dice) -> Draft {
        let lot = dice.below(100);
        let others = !bit(from);
        let (to, due) = match (crew.role(from), lot) {
            (Role::Main, 0..10) => {
                let due = crew.of(Role::Sub) & others;
                return Draft { to: json!("subs"), is_signal: true, due, ..Draft::to_all(crew, from) };
            }
            (Role::Main, 10..30) => (json!("subs"), crew.of(Role::Sub) & others),
            (Role::Sub, 0..40) | (Role::Main, 30..45) => (json!("mains"), crew.mains() & others),
            (_, 45..60) => {
                let named = (0..3).map(|_| bit(any_device(crew, dice))).fold(0, |mask, one| mask | one);
                // Who is named gets it, the sender too.
                (json!({"devices": crew.names(named)}), named)
            }
            (_, 60..75) => (json!({"group": GROUP}), crew.group() & others),
            _ => (json!("all"), crew.all() & others),
        };
        let everyone = Draft::to_all(crew, from);
        let draft = if due == 0 { everyone } else { Draft { to, due, ..everyone } };
        draft.with_whims(crew, dice)
    }

    /// Leaves devices out now and then, and says what else is special about the message.
    fn with_whims(mut self, crew: Crew, dice: &mut Dice) -> Draft {
        if dice.one_in(4) {
            let left_out = bit(any_device(crew, dice));
            if self.due & !left_out != 0 {
                self.due &= !left_out;
                self.except = crew.names(left_out);
            }
        }
        self.deal = self.due & crew.mains() != 0 && dice.one_in(5);
        self.is_repeated = dice.one_in(12);
        self
    }
}

fn any_device(crew: Crew, dice: &mut Dice) -> u8 {
    u8::try_from(dice.below(u64::from(crew.size()))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_shop_has_every_habit_and_both_proofs_and_encodings() {
        let crew = Crew { mains: 3, subs: 5 };
        let manners: Vec<Manner> = crew.devices().map(|device| Manner::of(crew, device)).collect();
        for habit in [Habit::Steady, Habit::Away, Habit::Holder, Habit::Crasher, Habit::Jumper, Habit::Sleeper] {
            assert!(manners.iter().any(|manner| manner.habit == habit), "{habit:?}");
        }
        assert!(manners.iter().any(|manner| manner.proof == Proof::Pong));
        assert!(manners.iter().any(|manner| manner.encoding == Encoding::MsgPack));
        assert_eq!(manners[0], Manner { habit: Habit::Steady, proof: Proof::Ack, encoding: Encoding::Json });
    }

    #[test]
    fn a_message_is_for_somebody_and_not_for_its_sender_unless_named() {
        let mut dice = Dice::new(11);
        for crew in [Crew { mains: 1, subs: 1 }, Crew { mains: 3, subs: 5 }] {
            for from in crew.devices().cycle().take(2_000) {
                let draft = Draft::any(crew, from, &mut dice);
                assert_eq!(draft.due & !crew.all(), 0, "{draft:?}");
                let is_named = draft.to["devices"].is_array();
                assert!(is_named || draft.due & bit(from) == 0, "{draft:?}");
                assert_ne!(draft.due, 0, "{draft:?}");
                for name in &draft.except {
                    assert!(!crew.names(draft.due).contains(name), "{draft:?}");
                }
            }
        }
    }
}
