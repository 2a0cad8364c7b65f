//! Room on the disk that is kept back.
//!
//! Owns the file that holds nothing. Never decides what is refused without it. Called by [`super::disk`] and
//! [`super::writer`].

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Kept back for what empties a full disk, and for what the changes in a journal take in the database.
const RESERVE_BYTES: usize = 16 << 20;
/// Between two attempts to get it back.
const RETRY: Duration = Duration::from_secs(1);

/// Room on the disk that is kept back: a file that holds nothing. Without it a full disk could not
/// even be told that everything on it has been delivered, for redb writes before it frees.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    is_spent: bool,
    tried_at: Instant,
}

impl Reserve {
    /// Keeps it back from now on, where there is so much room.
    pub fn take(path: PathBuf) -> Reserve {
        let mut reserve = Reserve { path, is_spent: false, tried_at: Instant::now() };
        let is_there = std::fs::metadata(&reserve.path).is_ok_and(|file| file.len() == RESERVE_BYTES as u64);
        if !is_there && let Err(error) = reserve.fill() {
            tracing::warn!(%error, "there is hardly any room on the store's disk; messages are refused until there is");
            reserve.is_spent = true;
        }
        reserve
    }

    fn fill(&self) -> io::Result<()> {
        let zeros = vec![0; 1 << 16];
        let filled = File::create(&self.path).and_then(|mut file| {
            for _ in 0..RESERVE_BYTES / zeros.len() {
                file.write_all(&zeros)?;
            }
            file.sync_data()
        });
        if filled.is_err() {
            // Half of it would be taken for all of it at no time, but would keep others from the room.
            let _ = std::fs::remove_file(&self.path);
        }
        filled
    }

    /// Gives the room free: there is none left elsewhere.
    pub fn spend(&mut self) {
        if !self.is_spent {
            tracing::warn!("the store's disk is full; messages are refused until there is room");
        }
        // What is not there has been given free already.
        let _ = std::fs::remove_file(&self.path);
        self.is_spent = true;
        self.tried_at = Instant::now();
    }

    /// Whether there is room, as far as is known; tries to get it back from time to time.
    pub fn is_there(&mut self) -> bool {
        if self.is_spent && self.tried_at.elapsed() >= RETRY {
            self.tried_at = Instant::now();
            self.is_spent = self.fill().is_err();
            if !self.is_spent {
                tracing::info!("there is room on the store's disk again");
            }
        }
        !self.is_spent
    }
}
