//! Who is connected, and where: presence is a lease that a dead node does not renew.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use crate::ids::{ConnId, DeviceId, IdError, Name, NodeId, ShopId};
use crate::message::Role;
use crate::protocol::Presence;
use crate::relay::Relay;
use crate::session::Failure;
use crate::store::Online;

/// Shops that one page of the deployment's connections looks at, at most.
const SHOPS_PER_PAGE_MAX: usize = 1000;

/// A connected device, and its node.
#[derive(Debug, Clone)]
pub struct OnlineAt {
    pub presence: Presence,
    pub node: NodeId,
}

/// Which of a shop's connected devices are asked for; what is None asks for all.
#[derive(Debug, Clone, Default)]
pub struct OnlineFilter {
    pub role: Option<Role>,
    pub group: Option<Name>,
    pub user: Option<Name>,
    pub node: Option<NodeId>,
}

/// Where a page of the deployment's connections ends: at this device of this shop, or at the shop's end.
/// As text `<shop>}<device>` or `<shop>`: no name holds a brace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionsPlace {
    shop: ShopId,
    device: Option<DeviceId>,
}

impl FromStr for ConnectionsPlace {
    type Err = IdError;
    fn from_str(text: &str) -> Result<ConnectionsPlace, IdError> {
        let (shop, device) = match text.split_once('}') {
            Some((shop, device)) => (shop, Some(device.parse()?)),
            None => (text, None),
        };
        Ok(ConnectionsPlace { shop: shop.parse()?, device })
    }
}

impl fmt::Display for ConnectionsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            Some(device) => write!(f, "{}}}{device}", self.shop),
            None => self.shop.fmt(f),
        }
    }
}

impl Relay {
    /// A page of the connected devices of all shops, in the order of their shops and devices, and where
    /// it ends if there may be more. It may be empty and have an end.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn connections(
        &self,
        filter: &OnlineFilter,
        after: Option<ConnectionsPlace>,
        limit: usize,
    ) -> Result<(Vec<(ShopId, OnlineAt)>, Option<ConnectionsPlace>), Failure> {
        let mut shops = self.store.shops().await?;
        shops.retain(|shop| match &after {
            Some(ConnectionsPlace { shop: last, device: None }) => shop > last,
            Some(ConnectionsPlace { shop: last, device: Some(_) }) => shop >= last,
            None => true,
        });
        shops.sort();
        let is_past = |shop: &ShopId, device: &DeviceId| {
            after.as_ref().is_some_and(|place| place.shop == *shop && place.device.as_ref() >= Some(device))
        };
        let mut found: Vec<(ShopId, OnlineAt)> = Vec::new();
        for shop in shops.iter().take(SHOPS_PER_PAGE_MAX) {
            let online = self.online(shop, filter).await?;
            for online in online.into_iter().filter(|online| !is_past(shop, &online.presence.device)) {
                if found.len() >= limit {
                    let end = found.last().map(|(shop, last)| ConnectionsPlace {
                        shop: shop.clone(),
                        device: Some(last.presence.device.clone()),
                    });
                    return Ok((found, end));
                }
                found.push((shop.clone(), online));
            }
        }
        let last = shops.get(SHOPS_PER_PAGE_MAX - 1).filter(|_| shops.len() > SHOPS_PER_PAGE_MAX);
        Ok((found, last.map(|shop| ConnectionsPlace { shop: shop.clone(), device: None })))
    }

    /// The connected devices of a shop, in the order of their ids.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn online(&self, shop: &ShopId, filter: &OnlineFilter) -> Result<Vec<OnlineAt>, Failure> {
        let members = self.members(shop, filter).await?;
        let online = self.store.online(shop).await?.into_iter().filter(|entry| {
            filter.role.is_none_or(|role| entry.role == role)
                && filter.node.as_ref().is_none_or(|node| entry.node == *node)
                && members.as_ref().is_none_or(|members| members.contains(&entry.device))
        });
        Ok(online.filter_map(|entry| self.at(entry)).collect())
    }

    /// Whose connection this is; None where it is gone.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn connection(&self, conn: &ConnId) -> Result<Option<(ShopId, OnlineAt)>, Failure> {
        let located = self.store.locate(conn).await?;
        Ok(located.and_then(|(shop, entry)| self.at(entry).map(|online| (shop, online))))
    }

    /// The devices that a filter by group or user leaves; None where it asks for neither.
    async fn members(&self, shop: &ShopId, filter: &OnlineFilter) -> Result<Option<HashSet<DeviceId>>, Failure> {
        if filter.group.is_none() && filter.user.is_none() {
            return Ok(None);
        }
        let members = self.store.devices(shop).await?.into_iter().filter(|known| {
            filter.group.as_ref().is_none_or(|group| known.membership.groups.contains(group))
                && filter.user.as_ref().is_none_or(|user| known.membership.user.as_ref() == Some(user))
        });
        Ok(Some(members.map(|known| known.device).collect()))
    }

    /// The presence as it is shown; None where its node is gone.
    fn at(&self, online: Online) -> Option<OnlineAt> {
        let state = self.nodes.state_of(&online, Instant::now(), self.store.now_ms())?;
        let Online { device, role, conn, node, since_ms } = online;
        Some(OnlineAt { presence: Presence { device, role, conn, since: since_ms, state }, node })
    }
}
