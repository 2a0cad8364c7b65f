//! The numbers by which legacy peers know messages.
//!
//! Owns how a number is given. It is unique in the deployment and its message's shop is a slot of its own, so
//! no one script can give it: numbers nobody has are drawn from a counter, each is made to lead to its
//! message, and only then are they offered to the messages, of which each takes its first. What a message
//! did not take is drawn for nothing. So a number that was shown leads back to its message, whatever fails
//! in between. What leads there ends by its time; that the message is still there is for the shop to say.
//! Called by [`super::engine`].

use std::time::Duration;

use crate::ids::{MessageId, ShopId};
use crate::store::StoreError;
use crate::store::redis::fleet::Ask;
use crate::store::redis::keys::ShopKeys;
use crate::store::redis::reply::{PIPELINE_MAX, unavailable};
use crate::store::redis::{RedisStore, hashes};

/// How much longer than its message a number leads there: retention may be late, or nobody at work.
const KEPT_LONGER: Duration = Duration::from_secs(2 * 86400);
/// Numbers that are passed over in each attempt to find some that nobody has. The first finds them, unless
/// the counter was put back by a failover, or by hand.
const LEAPS: [u64; 4] = [0, 100, 10_000, 1_000_000];

impl RedisStore {
    pub(super) async fn all_numbers(&self, shop: &ShopId, messages: &[MessageId]) -> Result<Vec<u64>, StoreError> {
        let keys = self.keys.shop(shop);
        let mut numbers = Vec::with_capacity(messages.len());
        for chunk in messages.chunks(PIPELINE_MAX) {
            let known = self.known_numbers(&keys, chunk).await?;
            let unknown = chunk.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(message, _)| *message);
            let unknown: Vec<MessageId> = unknown.collect();
            let mut given = self.give_numbers(shop, &keys, &unknown).await?.into_iter();
            numbers.extend(known.into_iter().filter_map(|known| known.or_else(|| given.next())));
        }
        Ok(numbers)
    }

    async fn known_numbers(&self, keys: &ShopKeys, messages: &[MessageId]) -> Result<Vec<Option<u64>>, StoreError> {
        let fields = messages.iter().map(MessageId::to_string);
        let mut reply = self.ask(Ask::new("HMGET", keys.numbers(), fields)).await?;
        messages.iter().map(|_| reply.parsed_or_nil()).collect()
    }

    /// One for each message.
    async fn give_numbers(
        &self,
        shop: &ShopId,
        keys: &ShopKeys,
        messages: &[MessageId],
    ) -> Result<Vec<u64>, StoreError> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let offers = self.draw_numbers(shop, messages).await?;
        let taken = self.scripts.number(keys, &offers).await?;
        let outcomes = || offers.iter().map(|(_, offered)| *offered).zip(&taken);
        let refused = outcomes().filter(|(offered, taken)| **taken != Some(*offered)).map(|(offered, _)| offered);
        self.drop_numbers(refused.collect()).await;
        Ok(outcomes().map(|(offered, taken)| taken.unwrap_or(offered)).collect())
    }

    /// Numbers that nobody has, each leading to its message already.
    async fn draw_numbers(&self, shop: &ShopId, messages: &[MessageId]) -> Result<Vec<(MessageId, u64)>, StoreError> {
        let count = messages.len() as u64;
        for leap in LEAPS {
            let counter = self.keys.newest_number();
            let newest = self.ask(Ask::new("INCRBY", counter, [(count + leap).to_string()])).await?.number()?;
            let first = u64::try_from(newest).ok().and_then(|newest| (newest + 1).checked_sub(count));
            let first = first.filter(|first| *first > 0);
            let nonsense = || StoreError::Nonsense { call: "incrby", seen: format!("the number {newest}") };
            let offers: Vec<(MessageId, u64)> = messages.iter().copied().zip(first.ok_or_else(nonsense)?..).collect();
            if self.reserve_numbers(shop, &offers).await? {
                return Ok(offers);
            }
        }
        Err(unavailable("the counter of legacy numbers was put back, and those after it are taken"))
    }

    /// Makes each number lead to its message; false where somebody has one of them, and then none does.
    async fn reserve_numbers(&self, shop: &ShopId, offers: &[(MessageId, u64)]) -> Result<bool, StoreError> {
        let kept_s = self.settings.message_retention.saturating_add(KEPT_LONGER).as_secs().to_string();
        let reserve = |(message, number): &(MessageId, u64)| {
            let text = hashes::numbered_text(shop, *message);
            Ask::new("SET", self.keys.numbered(*number), [&*text, "EX", &kept_s, "NX"])
        };
        let mut reply = self.ask_all("numbers", offers.iter().map(reserve).collect()).await?;
        let mut reserved = Vec::with_capacity(offers.len());
        for (_, number) in offers {
            if !reply.value()?.is_null() {
                reserved.push(*number);
            }
        }
        if reserved.len() == offers.len() {
            return Ok(true);
        }
        tracing::warn!("the counter of legacy numbers was put back; numbers that messages have are passed over");
        self.drop_numbers(reserved).await;
        Ok(false)
    }

    /// Numbers that were drawn for nothing lead nowhere any more.
    async fn drop_numbers(&self, numbers: Vec<u64>) {
        if numbers.is_empty() {
            return;
        }
        let asks = numbers.into_iter().map(|number| Ask::of("UNLINK", self.keys.numbered(number))).collect();
        if let Err(error) = self.ask_all("numbers", asks).await {
            tracing::debug!(%error, "numbers that no message has are kept until their time is over");
        }
    }

    pub(super) async fn find_numbered(&self, number: u64) -> Result<Option<(ShopId, MessageId)>, StoreError> {
        let noted: Option<String> = self.ask(Ask::of("GET", self.keys.numbered(number))).await?.parsed_or_nil()?;
        let Some((shop, message)) = noted.as_deref().and_then(hashes::numbered) else { return Ok(None) };
        let key = self.keys.shop(&shop).numbers();
        let held: Option<String> = self.ask(Ask::new("HGET", key, [message.to_string()])).await?.parsed_or_nil()?;
        Ok(held.filter(|held| *held == number.to_string()).map(|_| (shop, message)))
    }
}
