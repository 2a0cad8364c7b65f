//! Who of a cluster holds which slot: asked each second, and whenever somebody finds the map wrong.
//!
//! Owns the primaries' connections from the first to the last. While no primary answers, every server that
//! was ever named is asked, replicas too: one of them may be the only one left that knows. Never moves a
//! channel; [`super::subscriptions`] does that when it sees the new map. Run as one task by [`super`], and
//! only for a cluster.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand, Value};
use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::store::redis::client::{Maker, START_MAX, Shard, StartError};
use crate::store::redis::fleet::{Fleet, Map};
use crate::store::redis::script::ensure_up;
use crate::store::redis::sentinel::Watch;
use crate::store::redis::slots::{View, agree};

/// Between two surveys that nobody asked for.
const SURVEY_EVERY: Duration = Duration::from_secs(1);
/// Between two surveys at least.
const SURVEY_REST: Duration = Duration::from_millis(20);
/// How long a server may take to tell.
const TELL_MAX: Duration = Duration::from_millis(400);
/// How long a server that is no primary so far may take to tell.
const VISIT_MAX: Duration = Duration::from_millis(1500);
/// Between two looks at whether the first connections are there.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// See the module.
pub struct Surveyor {
    maker: Maker,
    fleet: Arc<Fleet>,
    /// Servers to ask while no primary answers.
    places: Vec<Server>,
}

/// Who sees to it that the primaries which are connected to are those that there are.
pub enum Keeper {
    Surveyor(Surveyor),
    Watch(Watch),
}

impl Keeper {
    /// Does so, until it is dropped.
    pub async fn run(self) {
        match self {
            Keeper::Surveyor(surveyor) => surveyor.run().await,
            Keeper::Watch(watch) => watch.run().await,
        }
    }
}

/// Opens the store: the one primary there is, or those of a cluster, and who keeps the map of that.
///
/// # Errors
/// [`StartError`], within a few seconds.
pub async fn open(maker: Maker) -> Result<(Arc<Fleet>, Option<Keeper>), StartError> {
    let opening = async {
        if maker.seeds().is_empty() {
            let shard = maker.only().await.map_err(StartError::Unreachable)?;
            let fleet = Fleet::new(Map { shards: vec![shard.clone()], owners: None }, maker.deadline);
            return Ok::<_, StartError>((Arc::new(fleet), Watch::new(maker, shard).map(Keeper::Watch)));
        }
        let (fleet, surveyor) = open_cluster(maker).await?;
        Ok((fleet, Some(Keeper::Surveyor(surveyor))))
    };
    let silent = StartError::Silent { waited: START_MAX };
    let (fleet, keeper) = timeout(START_MAX, opening).await.map_err(|_| silent)??;
    for shard in &fleet.map().shards {
        if let Err(error) = shard.check().await {
            close(&fleet).await;
            return Err(error);
        }
    }
    Ok((fleet, keeper))
}

/// Closes every connection.
pub async fn close(fleet: &Fleet) {
    let map = fleet.map();
    join_all(map.shards.iter().map(|shard| shard.close())).await;
}

async fn open_cluster(maker: Maker) -> Result<(Arc<Fleet>, Surveyor), StartError> {
    let mut outcome = Err(Error::new(ErrorKind::Cluster, "no server of the cluster was named"));
    for server in maker.seeds() {
        outcome = visit(&maker, server).await;
        if outcome.is_ok() {
            break;
        }
    }
    let view = outcome.map_err(|error| match error.details().contains("cluster support disabled") {
        true => StartError::NoCluster,
        false => StartError::Unreachable(error),
    })?;
    let fleet = Arc::new(Fleet::new(Map { shards: Vec::new(), owners: Some(Vec::new()) }, maker.deadline));
    let mut surveyor = Surveyor { maker, fleet: fleet.clone(), places: Vec::new() };
    surveyor.take(&[view]).await;
    let map = fleet.map();
    if !map.is_whole() {
        close(&fleet).await;
        return Err(StartError::NotWhole);
    }
    while !map.shards.iter().all(|shard| shard.is_connected()) {
        sleep(LOOK_EVERY).await;
    }
    Ok((fleet, surveyor))
}

impl Surveyor {
    /// Keeps the map, until it is dropped.
    pub async fn run(mut self) {
        let mut ticks = interval(SURVEY_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.fleet.doubted.notified() => {}
            }
            let views = self.views().await;
            if !views.is_empty() {
                self.take(&views).await;
            }
            self.fleet.surveys.send_modify(|count| *count += 1);
            sleep(SURVEY_REST).await;
        }
    }

    /// What the primaries tell, or where none does, the first other server that does.
    async fn views(&self) -> Vec<View> {
        let map = self.fleet.map();
        let asked = map.shards.iter().filter_map(|shard| Some((shard, shard.server.as_ref()?)));
        let told = join_all(asked.map(|(shard, server)| tell(&shard.commands, server))).await;
        let views: Vec<View> = told.into_iter().filter_map(Result::ok).collect();
        if !views.is_empty() {
            return views;
        }
        for server in self.places.iter().chain(self.maker.seeds()) {
            if let Ok(Ok(view)) = timeout(VISIT_MAX, visit(&self.maker, server)).await {
                return vec![view];
            }
        }
        tracing::debug!("no server of the cluster tells who holds which slot");
        Vec::new()
    }

    /// Puts in place what was told: connects to primaries that are new, and closes those that are none.
    async fn take(&mut self, views: &[View]) {
        self.places = views.iter().flat_map(|view| view.servers.iter().cloned()).collect();
        self.places.sort();
        self.places.dedup();
        let before = self.fleet.map();
        let mut shards: Vec<Arc<Shard>> = Vec::new();
        let mut owners = Vec::new();
        for server in agree(views) {
            let place = server.and_then(|server| self.place_of(&server, &mut shards, &before));
            owners.push(place);
        }
        let is_same =
            |a: &[Arc<Shard>], b: &[Arc<Shard>]| a.iter().map(|shard| shard.id).eq(b.iter().map(|shard| shard.id));
        if is_same(&shards, &before.shards) && before.owners.as_ref() == Some(&owners) {
            return;
        }
        let gone = before.shards.iter().filter(|old| shards.iter().all(|new| new.id != old.id));
        let gone: Vec<Arc<Shard>> = gone.cloned().collect();
        let primaries: Vec<String> =
            shards.iter().filter_map(|shard| Some(shard.server.as_ref()?.to_string())).collect();
        tracing::info!(?primaries, "slots of the cluster have moved");
        self.fleet.set_map(Map { shards, owners: Some(owners) });
        join_all(gone.iter().map(|shard| shard.close())).await;
    }

    /// The place of a primary among `shards`, where it is put if it is not there yet.
    fn place_of(&self, server: &Server, shards: &mut Vec<Arc<Shard>>, before: &Map) -> Option<u16> {
        let is_it = |shard: &&Arc<Shard>| shard.server.as_ref() == Some(server);
        // Slots come in ranges, so that it is most often the one that was looked for last.
        if let Some(place) = shards.iter().rposition(|shard| is_it(&shard)) {
            return u16::try_from(place).ok();
        }
        let shard = match before.shards.iter().find(is_it) {
            Some(shard) => shard.clone(),
            None => self
                .maker
                .member(server)
                .inspect_err(|error| tracing::warn!(%server, %error, "a primary cannot be connected to"))
                .ok()?,
        };
        shards.push(shard);
        u16::try_from(shards.len() - 1).ok()
    }
}

/// What a server tells that is not connected to.
async fn visit(maker: &Maker, server: &Server) -> Result<View, Error> {
    let visit = maker.visit(server).await?;
    tell(&visit.client, server).await
}

async fn tell(client: &Client, server: &Server) -> Result<View, Error> {
    ensure_up(client)?;
    let command = CustomCommand::new_static("CLUSTER", ClusterHash::FirstKey, false);
    let telling = client.custom::<Value, _>(command, vec!["SLOTS"]);
    let told =
        timeout(TELL_MAX, telling).await.map_err(|_| Error::new(ErrorKind::Timeout, "a server tells nothing"))??;
    View::read(server.clone(), told).ok_or_else(|| Error::new(ErrorKind::Protocol, "CLUSTER SLOTS was not understood"))
}
