//! The names of keys and channels: the only place that spells them.
//!
//! Owns the prefix and the hash tag. Never talks to Redis. All keys of a shop, and its channel,
//! share the tag `{shop}`, so that one script touches one slot of a cluster. A shop's id holds no
//! braces, so its tag is the whole of it. Called by [`super`] and [`super::subscriptions`].

use crate::ids::{NodeId, OnceKey, ShopId};

/// Spells names under one prefix.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: Box<str>,
}

impl Keys {
    pub fn new(prefix: &str) -> Keys {
        Keys { prefix: prefix.into() }
    }

    /// The keys of a shop.
    pub fn shop(&self, shop: &ShopId) -> ShopKeys {
        ShopKeys { stem: self.channel(shop) }
    }

    /// The sharded channel of a shop.
    pub fn channel(&self, shop: &ShopId) -> String {
        [&self.prefix, "{", shop.as_str(), "}"].concat()
    }

    /// The shop whose channel this is.
    pub fn shop_of(&self, channel: &str) -> Option<ShopId> {
        channel.strip_prefix(&*self.prefix)?.strip_prefix('{')?.strip_suffix('}')?.parse().ok()
    }

    /// A sharded channel on which a node hears itself: of a cluster it needs one in a slot of each primary,
    /// and `turn` makes names until they fit. No shop's: a shop's ends with its tag.
    pub fn probe(&self, node: &NodeId, turn: u32) -> String {
        format!("{}{{probe-{node}-{turn}}}:probe", self.prefix)
    }

    /// Whether a channel is one on which some node hears itself.
    pub fn is_probe(&self, channel: &str) -> bool {
        channel.strip_prefix(&*self.prefix).is_some_and(|rest| rest.starts_with("{probe-") && rest.ends_with("}:probe"))
    }

    /// Hash: node → its last beat.
    pub fn nodes(&self) -> String {
        format!("{}nodes", self.prefix)
    }

    /// Hash: connection of the node → its shop and device.
    pub fn conns(&self, node: &NodeId) -> String {
        format!("{}conns:{node}", self.prefix)
    }

    /// Set: legacy connections of the node.
    pub fn legacy_conns(&self, node: &NodeId) -> String {
        format!("{}legacy-conns:{node}", self.prefix)
    }

    /// String: the newest number that any message was offered.
    pub fn newest_number(&self) -> String {
        format!("{}legacy:next", self.prefix)
    }

    /// String: the shop and the message that have this number.
    pub fn numbered(&self, number: u64) -> String {
        format!("{}legacy:{number}", self.prefix)
    }

    /// The sharded channel of what is for every shop. No shop's: it has no tag.
    pub fn all(&self) -> String {
        format!("{}all", self.prefix)
    }

    /// Stream: events for back-end workers.
    pub fn events(&self) -> String {
        format!("{}events", self.prefix)
    }

    /// Set: every shop ever seen.
    pub fn shops(&self) -> String {
        format!("{}shops", self.prefix)
    }

    /// String: the node that has a task.
    pub fn claim(&self, task: &str) -> String {
        format!("{}claim:{task}", self.prefix)
    }
}

/// Spells the keys of one shop.
#[derive(Debug, Clone)]
pub struct ShopKeys {
    stem: String,
}

impl ShopKeys {
    /// The sharded channel of the shop.
    pub fn channel(&self) -> String {
        self.stem.clone()
    }

    /// Stream: the entries.
    pub fn log(&self) -> String {
        self.named("log")
    }

    /// String: the id of the newest entry.
    pub fn head(&self) -> String {
        self.named("head")
    }

    /// Hash: device → record.
    pub fn devices(&self) -> String {
        self.named("devices")
    }

    /// Set: the registered mains.
    pub fn mains(&self) -> String {
        self.named("mains")
    }

    /// Hash: device → newest id proven received.
    pub fn cursors(&self) -> String {
        self.named("cursors")
    }

    /// Hash: device → its connection.
    pub fn online(&self) -> String {
        self.named("online")
    }

    /// Hash: message id → business status.
    pub fn status(&self) -> String {
        self.named("status")
    }

    /// Hash: message id → devices it expired for unseen.
    pub fn expired(&self) -> String {
        self.named("expired")
    }

    /// Hash: message id → the number by which legacy peers know it.
    pub fn numbers(&self) -> String {
        self.named("numbers")
    }

    /// Hash: device → attributes.
    pub fn attrs(&self) -> String {
        self.named("attrs")
    }

    /// Hash: barred device → since when, and by whom.
    pub fn barred(&self) -> String {
        self.named("barred")
    }

    /// String: the message id stored under an idempotency key.
    pub fn once(&self, key: &OnceKey) -> String {
        [&self.stem, ":once:", key.as_str()].concat()
    }

    fn named(&self, name: &str) -> String {
        [&self.stem, ":", name].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_that_operators_know() {
        let keys = Keys::new("sr:");
        let shop = keys.shop(&"s 1".parse().unwrap());
        let once: OnceKey = "k{1}".to_owned().try_into().unwrap();
        let spelled = [
            (shop.channel(), "sr:{s 1}"),
            (shop.log(), "sr:{s 1}:log"),
            (shop.head(), "sr:{s 1}:head"),
            (shop.devices(), "sr:{s 1}:devices"),
            (shop.mains(), "sr:{s 1}:mains"),
            (shop.cursors(), "sr:{s 1}:cursors"),
            (shop.online(), "sr:{s 1}:online"),
            (shop.status(), "sr:{s 1}:status"),
            (shop.expired(), "sr:{s 1}:expired"),
            (shop.numbers(), "sr:{s 1}:numbers"),
            (shop.attrs(), "sr:{s 1}:attrs"),
            (shop.barred(), "sr:{s 1}:barred"),
            (shop.once(&once), "sr:{s 1}:once:k{1}"),
            (keys.probe(&"n-1".parse().unwrap(), 7), "sr:{probe-n-1-7}:probe"),
            (keys.nodes(), "sr:nodes"),
            (keys.conns(&"n-1".parse().unwrap()), "sr:conns:n-1"),
            (keys.legacy_conns(&"n-1".parse().unwrap()), "sr:legacy-conns:n-1"),
            (keys.newest_number(), "sr:legacy:next"),
            (keys.numbered(17), "sr:legacy:17"),
            (keys.all(), "sr:all"),
            (keys.events(), "sr:events"),
            (keys.shops(), "sr:shops"),
            (keys.claim("trim"), "sr:claim:trim"),
        ];
        for (spelled, expected) in spelled {
            assert_eq!(spelled, expected);
        }
    }

    #[test]
    fn a_channel_leads_back_to_its_shop_and_one_that_is_no_shops_to_none() {
        let keys = Keys::new("other:");
        let shop: ShopId = "probe-n".parse().unwrap();
        assert_eq!(keys.shop_of(&keys.channel(&shop)), Some(shop));
        let probe = keys.probe(&"n".parse().unwrap(), 0);
        assert_eq!((keys.shop_of(&probe), keys.is_probe(&probe)), (None, true));
        assert!(!keys.is_probe(&keys.all()) && !keys.is_probe("other:{probe-n}"));
        assert_eq!(keys.shop_of(&keys.all()), None);
        assert_eq!(keys.shop_of("sr:{a}"), None);
    }
}
