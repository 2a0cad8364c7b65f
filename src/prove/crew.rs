//! The devices of a shop, by their numbers.
//!
//! Pure. Mains come first, then subs; a set of devices is a [`Mask`], which is what keeps the journal small.

use crate::message::Role;

/// Devices of a shop: bit `n` is device `n`.
pub type Mask = u64;

/// Most devices of a shop: the bits of a [`Mask`].
pub const CREW_MAX: usize = 64;

/// How many devices of each role a shop has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crew {
    pub mains: u8,
    pub subs: u8,
}

/// The mask of one device.
pub fn bit(device: u8) -> Mask {
    1_u64.checked_shl(u32::from(device)).unwrap_or(0)
}

impl Crew {
    pub fn size(self) -> u8 {
        self.mains + self.subs
    }

    /// The numbers of all devices.
    pub fn devices(self) -> std::ops::Range<u8> {
        0..self.size()
    }

    pub fn role(self, device: u8) -> Role {
        if device < self.mains { Role::Main } else { Role::Sub }
    }

    /// As the relay knows it.
    pub fn name(self, device: u8) -> String {
        match self.role(device) {
            Role::Main => format!("main-{}", device + 1),
            Role::Sub => format!("sub-{}", device - self.mains + 1),
        }
    }

    pub fn all(self) -> Mask {
        self.devices().map(bit).sum()
    }

    pub fn mains(self) -> Mask {
        self.of(Role::Main)
    }

    pub fn of(self, role: Role) -> Mask {
        self.devices().filter(|device| self.role(*device) == role).map(bit).sum()
    }

    /// The devices that are in the group: every other one.
    pub fn group(self) -> Mask {
        self.devices().filter(|device| device % 2 == 1).map(bit).sum()
    }

    /// The devices of a mask.
    pub fn members(self, mask: Mask) -> impl Iterator<Item = u8> {
        self.devices().filter(move |device| mask & bit(*device) != 0)
    }

    /// The names of the devices of a mask.
    pub fn names(self, mask: Mask) -> Vec<String> {
        self.members(mask).map(|device| self.name(device)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_names_agree_up_to_the_last_bit() {
        let crew = Crew { mains: 3, subs: 61 };
        assert_eq!(crew.all(), u64::MAX);
        assert_eq!(crew.mains(), 0b111);
        assert_eq!(crew.names(0b1001), ["main-1", "sub-1"]);
        assert_eq!((crew.name(0), crew.name(63)), ("main-1".into(), "sub-61".into()));
    }
}
