//! Which server of a cluster holds which slot, as its servers tell.
//!
//! Owns the reading of `CLUSTER SLOTS`, and whom to believe where the servers disagree. Never talks to
//! Redis. Called by [`super::survey`].

use fred::types::Value;
use fred::types::config::Server;

use crate::store::redis::reply;

/// Slots of a cluster.
pub const SLOTS: usize = 16384;

/// The slot of a key.
pub fn slot_of(key: &str) -> u16 {
    fred::util::redis_keyslot(key.as_bytes())
}

/// What one server tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Who tells it.
    pub teller: Server,
    /// First and last slot, and the primary that holds them; in the order of the slots.
    ranges: Vec<(u16, u16, Server)>,
    /// Every server there is, replicas too.
    pub servers: Vec<Server>,
}

impl View {
    /// Reads the reply to `CLUSTER SLOTS`; None where it is none.
    pub fn read(teller: Server, reply: Value) -> Option<View> {
        let (mut ranges, mut servers) = (Vec::new(), Vec::new());
        for range in reply.into_array() {
            let mut range = range.into_array().into_iter();
            let (first, last) = (slot(&range.next()?)?, slot(&range.next()?)?);
            let mut nodes = range.map(|node| server(node, &teller));
            let primary = nodes.next()??;
            servers.extend(nodes.flatten());
            servers.push(primary.clone());
            ranges.push((first, last, primary));
        }
        ranges.sort_by_key(|(first, ..)| *first);
        servers.sort();
        servers.dedup();
        Some(View { teller, ranges, servers })
    }

    /// Who holds a slot, by this view.
    fn owner(&self, slot: u16) -> Option<&Server> {
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, server) = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= *last).then_some(server)
    }
}

fn slot(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|slot| u16::try_from(slot).ok()).filter(|slot| usize::from(*slot) < SLOTS)
}

/// A server that does not know by what name it is reached gives none: then it is that by which it was asked.
fn server(node: Value, teller: &Server) -> Option<Server> {
    let mut node = node.into_array().into_iter();
    let (host, port) = (node.next()?, node.next()?);
    let host = reply::text(&host).filter(|host| !host.is_empty() && *host != "?");
    let host = host.map_or_else(|| teller.host.clone(), Into::into);
    Some(Server::new(host, u16::try_from(port.as_u64()?).ok()?))
}

/// Who holds each slot, from what several servers tell; None for a slot that nobody holds.
///
/// A slot that moves is known to both ends of the move before it is known to everyone, and to who takes it
/// before it is known to who gives it. So a server is believed of its own slots, unless another claims one
/// too; then, and where nobody claims one, the most voices decide: who was away wakes up with old news.
pub fn agree(views: &[View]) -> Vec<Option<Server>> {
    let is_same = views.windows(2).all(|pair| matches!(pair, [a, b] if a.ranges == b.ranges));
    let views = if is_same { views.get(..1).unwrap_or_default() } else { views };
    (0..SLOTS as u16).map(|slot| agree_on(slot, views)).collect()
}

fn agree_on(slot: u16, views: &[View]) -> Option<Server> {
    let mut claims = views.iter().filter(|view| view.owner(slot) == Some(&view.teller));
    if let (Some(claim), None) = (claims.next(), claims.next()) {
        return Some(claim.teller.clone());
    }
    let named: Vec<&Server> = views.iter().filter_map(|view| view.owner(slot)).collect();
    let voices = |server: &Server| named.iter().filter(|named| **named == server).count();
    named.iter().max_by_key(|server| voices(server)).map(|server| (*server).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Server {
        Server::new("h", port)
    }

    fn view(teller: u16, ranges: &[(u16, u16, u16)]) -> View {
        let range = |(first, last, port): &(u16, u16, u16)| {
            let node = Value::Array(vec!["h".into(), Value::Integer(i64::from(*port)), "id".into()]);
            Value::Array(vec![Value::Integer(i64::from(*first)), Value::Integer(i64::from(*last)), node])
        };
        View::read(at(teller), Value::Array(ranges.iter().map(range).collect())).unwrap()
    }

    #[test]
    fn a_view_is_read_with_its_replicas_and_a_server_without_a_name_is_the_one_that_was_asked() {
        let node = |host: Value, port: i64| Value::Array(vec![host, Value::Integer(port), "id".into()]);
        let range = vec![Value::Integer(5), Value::Integer(7), node(Value::Null, 1), node("r".into(), 2)];
        let read = View::read(at(1), Value::Array(vec![Value::Array(range)])).unwrap();
        assert_eq!(read.servers, [at(1), Server::new("r", 2)]);
        assert_eq!(
            (read.owner(4), read.owner(5), read.owner(7), read.owner(8)),
            (None, Some(&at(1)), Some(&at(1)), None)
        );
        for bad in [Value::from("x"), Value::Array(vec![Value::Integer(1)])] {
            assert_eq!(View::read(at(1), bad), None);
        }
    }

    #[test]
    fn a_slot_that_moves_is_its_takers_once_the_giver_knows_though_the_others_do_not() {
        let others = [view(3, &[(0, 99, 1), (100, 199, 2), (200, 299, 3)]), view(4, &[(0, 99, 1), (100, 199, 2)])];
        let taker = view(2, &[(0, 49, 1), (50, 199, 2)]);
        let giver = |last| view(1, &[(0, last, 1), (100, 199, 2)]);
        let owner = |giver: View| agree(&[others[0].clone(), giver, taker.clone(), others[1].clone()])[60].clone();
        assert_eq!(owner(giver(99)), Some(at(1)), "two claim it, and the most say that it has not moved");
        assert_eq!(owner(view(1, &[(0, 49, 1), (50, 199, 2)])), Some(at(2)));
        assert_eq!(agree(&others)[250], Some(at(3)));
    }

    #[test]
    fn who_wakes_up_with_old_news_is_not_believed_and_a_dead_primary_is_believed_in_by_all() {
        let (old, new) = (&[(0, 99, 1), (100, 199, 2)], &[(0, 99, 9), (100, 199, 2)]);
        let owners = agree(&[view(1, old), view(9, new), view(2, new)]);
        assert_eq!((&owners[0], &owners[150], &owners[200]), (&Some(at(9)), &Some(at(2)), &None));
        assert_eq!(agree(&[view(2, old)])[0], Some(at(1)));
        assert!(agree(&[]).iter().all(Option::is_none));
    }
}
