//! Pages of a shop's messages, with what has become of each.

use crate::ids::{ConnId, MessageId, ShopId};
use crate::message::{Entry, Role};
use crate::protocol::{Encoding, Item, List, ListStatus};
use crate::relay::Relay;
use crate::relay::failures::no_such_message;
use crate::session::{Failure, Identity};
use crate::store::{Device, PageLimit, Stored};

/// How much of a log is read at once for a list.
const LIST_PAGE: PageLimit = PageLimit { entries: 500, bytes: 1 << 20 };
/// Entries and pages of the log that one list looks at, at most.
const LIST_SCAN_MAX: usize = 5000;
const LIST_PAGES_MAX: usize = 10;
/// Largest page of a list, in bytes, less what stands around its items.
const LIST_BYTES_MAX: usize = (1 << 20) - 512;

/// Whose list it is.
#[derive(Clone, Copy)]
pub enum Viewer<'a> {
    /// A back end sees every message.
    BackEnd,
    /// A main does too; a sub sees what it sent and what it was meant to get.
    Device(&'a Identity, &'a ConnId),
}

/// What is asked of a list.
pub struct Listing<'a> {
    pub shop: &'a ShopId,
    pub viewer: Viewer<'a>,
    pub list: List,
    /// The encoding whose bytes are counted.
    pub encoding: Encoding,
}

impl Relay {
    /// A page of messages, and where the next one begins.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn list(&self, listing: Listing<'_>) -> Result<(Vec<Item>, Option<MessageId>), Failure> {
        let Listing { shop, viewer, list, encoding } = listing;
        let devices = self.store.devices(shop).await?;
        let (mut after, mut scanned, mut pages, mut bytes) = (list.after, 0, 0, 0);
        let _permit = self.pages.permit().await;
        let mut items = Vec::new();
        loop {
            let page = self.store.read(shop, after, LIST_PAGE).await?;
            let last = page.entries.last().map(|stored| stored.id);
            for stored in page.entries {
                let id = stored.id;
                scanned += 1;
                if let Some(item) = item(viewer, &list.status, &devices, stored) {
                    bytes += item.encoded_len(encoding);
                    if bytes > LIST_BYTES_MAX && !items.is_empty() {
                        return Ok((items, Some(after)));
                    }
                    items.push(item);
                }
                after = id;
                if items.len() >= list.limit {
                    let is_last = page.is_end && last == Some(id);
                    return Ok((items, (!is_last).then_some(after)));
                }
            }
            after = page.last;
            if page.is_end {
                return Ok((items, None));
            }
            pages += 1;
            if scanned >= LIST_SCAN_MAX || pages >= LIST_PAGES_MAX {
                return Ok((items, Some(after)));
            }
        }
    }

    /// One message, as a back end sees it.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn message(&self, shop: &ShopId, id: MessageId) -> Result<Item, Failure> {
        let Some(stored) = self.entry(shop, id).await? else { return Err(no_such_message()) };
        let devices = self.store.devices(shop).await?;
        item(Viewer::BackEnd, &ListStatus::All, &devices, stored).ok_or_else(no_such_message)
    }
}

/// The entry as the list shows it; None where it does not.
fn item(viewer: Viewer<'_>, wanted: &ListStatus, devices: &[Device], stored: Stored) -> Option<Item> {
    let Entry::Message(message) = stored.entry else {
        return None;
    };
    if let Viewer::Device(identity, conn) = viewer {
        let is_own = message.content.from.device() == Some(&identity.device);
        if identity.role == Role::Sub && !is_own && !message.content.is_for(identity.recipient(conn)) {
            return None;
        }
    }
    let status = stored.dealt.as_ref().map_or(&message.status, |dealt| &dealt.status);
    let is_wanted = match wanted {
        ListStatus::All => true,
        ListStatus::Open => stored.dealt.is_none(),
        ListStatus::Is(name) => name == status,
    };
    if !is_wanted {
        return None;
    }
    let delivered = devices
        .iter()
        .filter(|device| device.registered_at < stored.id && message.content.is_for(device.recipient()))
        .map(|device| {
            let has_it = device.cursor >= stored.id && !stored.unseen_by.contains(&device.device);
            (device.device.clone(), has_it)
        })
        .collect();
    Some(Item { id: stored.id, message, dealt: stored.dealt.map(|dealt| (dealt.status, dealt.by)), delivered })
}
