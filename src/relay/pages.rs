//! Reading logs for those who are behind, once for all who are behind by the same.
//!
//! Owns how many pages are read at once, and who shares one. After a restart every device of a shop comes back
//! and reads the same stretch of its log. Whoever asks for a stretch that is being read waits for that reading
//! to end, and then one reads it anew for all who waited: a page is never older than the question, so that a
//! session that reads up to what it heard of finds it there. Called by `socket` and by lists.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit};

use crate::hub::Push;
use crate::ids::{MessageId, ShopId};
use crate::metrics;
use crate::store::{PageLimit, Store, StoreError};

/// Pages that are read at the same time; each holds up to a megabyte.
const PAGES_MAX: usize = 256;
const PAGE_BYTES: usize = 512 * 1024;

/// A stretch of a shop's log, with the frames that were made of it so far.
pub struct LogStretch {
    pub pushes: Vec<Arc<Push>>,
    /// See [`crate::store::Page`], of both.
    pub last: MessageId,
    pub is_end: bool,
}

/// A shop, the id to read after, and how many entries.
type Stretch = (ShopId, MessageId, usize);

/// See the module.
pub struct Pages {
    permits: Semaphore,
    /// The stretches that somebody reads or waits for, and how many do.
    readings: Mutex<HashMap<Stretch, (usize, Arc<Reading>)>>,
}

/// Those who want the same stretch.
#[derive(Default)]
struct Reading {
    /// Held by whoever reads it.
    turn: AsyncMutex<()>,
    /// What comes of the next reading, for all who ask before it begins.
    next: Mutex<Arc<Outcome>>,
}

/// The page; None where the reading failed.
type Outcome = OnceLock<Option<Arc<LogStretch>>>;

impl Default for Pages {
    fn default() -> Pages {
        Pages { permits: Semaphore::new(PAGES_MAX), readings: Mutex::default() }
    }
}

impl Pages {
    /// Leave to read a page.
    pub async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed; without a permit there are just more pages at once.
        self.permits.acquire().await.ok()
    }

    /// Reads a stretch of a log, or shares in somebody else's reading of it that begins after this call.
    /// Cancel-safe: where the one who reads stops waiting, the next reads.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn read(
        &self,
        store: &dyn Store,
        shop: &ShopId,
        after: MessageId,
        entries: usize,
    ) -> Result<Arc<LogStretch>, StoreError> {
        let stretch = (shop.clone(), after, entries);
        let reader = self.reader(stretch);
        let outcome = reader.reading.next.lock().clone();
        let _turn = reader.reading.turn.lock().await;
        if let Some(outcome) = outcome.get() {
            metrics::catchup_shared();
            let failed = || StoreError::Unavailable("another session could not read it".into());
            return outcome.clone().ok_or_else(failed);
        }
        let _permit = self.permit().await;
        // Whoever asks from here on waits for another reading.
        *reader.reading.next.lock() = Arc::default();
        metrics::catchup_page();
        let read = store.read(shop, after, PageLimit { entries, bytes: PAGE_BYTES }).await;
        let read = read.map(|page| {
            let pushes = page.entries.into_iter().map(|stored| {
                let status = stored.dealt.map(|dealt| dealt.status);
                Arc::new(Push::new(stored.id, stored.entry, status, true))
            });
            Arc::new(LogStretch { pushes: pushes.collect(), last: page.last, is_end: page.is_end })
        });
        // Nobody else has set it: there is one turn.
        let _ = outcome.set(read.as_ref().ok().cloned());
        read
    }

    fn reader(&self, stretch: Stretch) -> Reader<'_> {
        let mut readings = self.readings.lock();
        let (readers, reading) = readings.entry(stretch.clone()).or_default();
        *readers += 1;
        let reading = reading.clone();
        drop(readings);
        Reader { pages: self, stretch, reading }
    }
}

/// One of those who want a stretch; with the last of them it is forgotten.
struct Reader<'a> {
    pages: &'a Pages,
    stretch: Stretch,
    reading: Arc<Reading>,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut readings = self.pages.readings.lock();
        if let Some((readers, _)) = readings.get_mut(&self.stretch) {
            *readers -= 1;
            if *readers == 0 {
                readings.remove(&self.stretch);
            }
        }
    }
}
