//! Who is connected, and where: presence is a lease that a dead node does not renew.

use std::collections::HashSet;
use std::time::Instant;

use crate::ids::{ConnId, DeviceId, Name, NodeId, ShopId};
use crate::message::Role;
use crate::protocol::Presence;
use crate::relay::Relay;
use crate::session::Failure;
use crate::store::Online;

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

impl Relay {
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

    /// Whether a node has no connections any more, for it was not heard of for too long.
    pub(super) fn is_node_gone(&self, node: &NodeId) -> bool {
        self.nodes.is_gone(node, Instant::now())
    }

    /// The presence as it is shown; None where its node is gone.
    fn at(&self, online: Online) -> Option<OnlineAt> {
        let state = self.nodes.state_of(&online, Instant::now(), self.store.now_ms())?;
        let Online { device, role, conn, node, since_ms } = online;
        Some(OnlineAt { presence: Presence { device, role, conn, since: since_ms, state }, node })
    }
}
