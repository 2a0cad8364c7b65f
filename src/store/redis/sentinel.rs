//! Whether the primary that is connected to is still the one that the sentinels name.
//!
//! Owns a connection to each sentinel of the address. fred asks a sentinel when a connection breaks, and
//! only then; but a primary that was stopped, or cut off from the others, and wakes up deposed, breaks
//! nothing: until a sentinel tells it so it takes writes that are thrown away. So the sentinels are asked
//! each second, and where most of those that answer name another, all connections are made anew. Never
//! chooses a primary itself. Run as one task by [`super`], and only where there are sentinels.

use std::sync::Arc;
use std::time::Duration;

use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand, Value};
use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::store::redis::client::{Maker, Shard, Visit};
use crate::store::redis::reply;

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a sentinel may take to answer, and to be connected to.
const ANSWER_MAX: Duration = Duration::from_millis(800);
/// How long new connections have before they are looked at.
const RENEWED_WAIT: Duration = Duration::from_secs(2);

/// See the module.
pub struct Watch {
    maker: Maker,
    shard: Arc<Shard>,
    sentinels: Vec<Sentinel>,
}

/// A sentinel of the address, and the connection to it while there is one.
struct Sentinel {
    place: Server,
    visit: Option<Visit>,
}

impl Watch {
    /// Watches over the one primary there is; None where the address names no sentinels.
    pub fn new(maker: Maker, shard: Arc<Shard>) -> Option<Watch> {
        let places = maker.sentinels()?;
        let sentinels = places.iter().map(|place| Sentinel { place: place.clone(), visit: None }).collect();
        Some(Watch { maker, shard, sentinels })
    }

    /// Watches, until it is dropped.
    pub async fn run(mut self) {
        let mut ticks = interval(ASK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let maker = &self.maker;
            let named = join_all(self.sentinels.iter_mut().map(|sentinel| sentinel.primary(maker))).await;
            let named: Vec<Server> = named.into_iter().flatten().collect();
            let connected = self.shard.commands.active_connections();
            if !connected.is_empty() && is_another(&named, &connected) {
                self.shard.demoted.notify_one();
                sleep(RENEWED_WAIT).await;
            }
        }
    }
}

/// Whether most name a server that is not the one that is connected to.
fn is_another(named: &[Server], connected: &[Server]) -> bool {
    named.iter().any(|server| {
        let voices = named.iter().filter(|other| *other == server).count();
        voices * 2 > named.len() && !connected.contains(server)
    })
}

impl Sentinel {
    /// Whom it names; None where it does not answer.
    async fn primary(&mut self, maker: &Maker) -> Option<Server> {
        let asking = async {
            let visit = match self.visit.take() {
                Some(visit) => visit,
                None => maker.visit_sentinel(&self.place).await?,
            };
            let server = ask(&visit, maker.service()).await?;
            Ok::<_, Error>((server, visit))
        };
        let answer = timeout(ANSWER_MAX, asking).await.ok()?;
        let (server, visit) = answer
            .inspect_err(|error| tracing::debug!(sentinel = %self.place, %error, "a sentinel does not answer"))
            .ok()?;
        self.visit = Some(visit);
        Some(server)
    }
}

async fn ask(visit: &Visit, service: &str) -> Result<Server, Error> {
    let command = CustomCommand::new_static("SENTINEL", ClusterHash::FirstKey, false);
    let told: Value = visit.client.custom(command, vec!["GET-MASTER-ADDR-BY-NAME", service]).await?;
    let nonsense = || Error::new(ErrorKind::Sentinel, "a sentinel names no primary");
    let told = told.into_array();
    let [host, port] = told.as_slice() else { return Err(nonsense()) };
    let port = reply::text(port).and_then(|port| port.parse().ok()).ok_or_else(nonsense)?;
    Ok(Server::new(reply::text(host).ok_or_else(nonsense)?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_primary_is_one_that_most_of_those_who_answer_name() {
        let at = |port| Server::new("h", port);
        assert!(is_another(&[at(2), at(2), at(1)], &[at(1)]));
        assert!(!is_another(&[at(2), at(1), at(1)], &[at(1)]));
        assert!(!is_another(&[at(2), at(1)], &[at(1)]), "a draw");
        assert!(is_another(&[at(2)], &[at(1)]));
        assert!(!is_another(&[], &[at(1)]));
    }
}
