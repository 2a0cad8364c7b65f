//! The seed of a random schedule, which says how to repeat it.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// Prints how to repeat the test, where it fails.
pub struct Seed(u64);

impl Seed {
    /// The one that `SHOPRELAY_TEST_SEED` names, or a new one.
    pub fn chosen() -> Seed {
        let named = std::env::var("SHOPRELAY_TEST_SEED").ok();
        let named = named.map(|seed| seed.parse().expect("SHOPRELAY_TEST_SEED is a number"));
        let seed = Seed(named.unwrap_or_else(rand::random));
        println!("SHOPRELAY_TEST_SEED={}", seed.0);
        seed
    }

    /// What it makes.
    pub fn random(&self) -> StdRng {
        StdRng::seed_from_u64(self.0)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat it with SHOPRELAY_TEST_SEED={}", self.0);
        }
    }
}
