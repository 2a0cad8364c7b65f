//! Counts a client's malformed frames.

/// Malformed frames: too many in a row or in all end the connection.
#[derive(Debug, Default)]
pub struct Faults {
    in_row: u32,
    in_all: u32,
}

impl Faults {
    const IN_ROW_MAX: u32 = 32;
    const IN_ALL_MAX: u32 = 100;

    /// Notes a malformed frame; says whether it was one too many.
    pub fn malformed(&mut self) -> bool {
        self.in_row += 1;
        self.in_all += 1;
        self.in_row > Self::IN_ROW_MAX || self.in_all > Self::IN_ALL_MAX
    }

    /// Notes a frame that was well formed.
    pub fn well_formed(&mut self) {
        self.in_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_33rd_malformed_frame_in_a_row_and_the_101st_in_all_are_too_many() {
        let mut faults = Faults::default();
        assert!((0..32).all(|_| !faults.malformed()));
        assert!(faults.malformed());
        let mut faults = Faults::default();
        for _ in 0..100 {
            assert!(!faults.malformed());
            faults.well_formed();
        }
        assert!(faults.malformed());
    }
}
