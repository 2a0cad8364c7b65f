//! Lists and counts while a thousand devices come and go.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};

use super::of_shop;
use crate::harness::{RawSocket, SOON, Seed, World, eventually, unique};

const DEVICES: usize = 1000;
const WAVES: usize = 10;
const GROUPS: usize = 5;

/// A device that should be there.
struct Present {
    socket: RawSocket,
    role: &'static str,
}

/// What should be true.
struct Crowd<'a> {
    world: &'a World,
    shop: String,
    present: BTreeMap<String, Present>,
    /// Who is a member of which group, connected or not.
    members: BTreeMap<String, BTreeSet<usize>>,
}

impl Crowd<'_> {
    /// Logs a device in, on one of the nodes.
    async fn log_in(&self, n: usize, at: usize) -> (String, Present) {
        let name = format!("d{n:04}");
        let role = if n.is_multiple_of(10) { "main" } else { "sub" };
        let mut socket = RawSocket::open(&self.world.url(at)).await;
        socket.send_op(&json!({"op": "login", "shop": self.shop, "device": name, "role": role})).await;
        socket.expect("welcome").await;
        let group = n % GROUPS;
        socket.send_op(&json!({"op": "join", "group": format!("g{group}")})).await;
        socket.expect("ok").await;
        (name, Present { socket, role })
    }

    async fn let_in(&mut self, numbers: impl Iterator<Item = usize>) {
        let came = join_all(numbers.map(|n| self.log_in(n, n / 3))).await;
        for (name, present) in came {
            let n: usize = name[1..].parse().expect("its number");
            self.members.insert(name.clone(), [n % GROUPS].into());
            self.present.insert(name, present);
        }
    }

    /// Has a device leave in one of the ways in which devices leave.
    async fn leave(&mut self, name: &str, how: usize) {
        let mut present = self.present.remove(name).expect("it is there");
        let api = self.world.api(how);
        match how % 5 {
            0 => drop(present),
            1 => {
                present.socket.send_op(&json!({"op": "logout"})).await;
                assert_eq!(present.socket.close_code().await.0, 1000);
            }
            2 => {
                let path = of_shop(&self.shop, &format!("/devices/{name}/close"));
                let closed = api.send(hyper::Method::POST, &path, None).await;
                assert_eq!(closed.status, 204, "{}", closed.text);
                assert_eq!(present.socket.close_code().await.0, 4005);
            }
            3 => {
                let forgotten = api.delete(&of_shop(&self.shop, &format!("/devices/{name}"))).await;
                assert_eq!(forgotten.status, 204);
                assert_eq!(present.socket.close_code().await.0, 4005);
                self.members.remove(name);
            }
            _ => {
                // It comes back by another node at once, which is no leaving at all.
                let n: usize = name[1..].parse().expect("its number");
                let (name, newer) = self.log_in(n, n / 3 + 1).await;
                assert_eq!(present.socket.close_code().await.0, 4000);
                self.present.insert(name, newer);
            }
        }
    }

    /// Waits until every node tells what is true.
    async fn assert_true(&self) {
        let online: Vec<&str> = self.present.keys().map(String::as_str).collect();
        let mains = self.present.values().filter(|present| present.role == "main").count();
        for n in 0..2 {
            let api = self.world.api(n);
            let path = of_shop(&self.shop, "/online");
            let what = format!("{} to be online on node {n}", online.len());
            eventually(SOON, &what, async || api.get(&path).await.json["total"] == online.len()).await;
            assert_eq!(self.all(n, "/online", "device").await, online);
            let by_role = api.get(&format!("{path}?role=main&limit=1")).await;
            assert_eq!(by_role.json["total"], mains);
            let registered: Vec<&str> = self.members.keys().map(String::as_str).collect();
            assert_eq!(self.all(n, "/devices", "device").await, registered);
            for group in 0..GROUPS {
                let wanted = self.members.iter().filter(|(_, groups)| groups.contains(&group));
                let wanted: Vec<&str> = wanted.map(|(name, _)| name.as_str()).collect();
                assert_eq!(self.all(n, &format!("/groups/g{group}"), "").await, wanted, "g{group}");
                let here = self.present.keys().filter(|name| self.members[*name].contains(&group)).count();
                let filtered = api.get(&format!("{path}?group=g{group}&limit=1")).await;
                assert_eq!(filtered.json["total"], here);
            }
            let sessions = json!({"main": mains, "sub": online.len() - mains});
            let stats = json!({"shops": 1, "nodes": 2, "connections": online.len(), "sessions": sessions});
            let what = format!("{stats} on node {n}");
            eventually(SOON, &what, async || api.get("/v1/stats").await.json == stats).await;
            let nodes = api.get("/v1/nodes").await;
            let sum =
                |role: &str| nodes.items().iter().map(|node| node["sessions"][role].as_u64().unwrap()).sum::<u64>();
            assert_eq!((sum("main"), sum("sub")), (mains as u64, (online.len() - mains) as u64), "{}", nodes.text);
            assert_eq!(api.get(&of_shop(&self.shop, "/stats")).await.json["online"], sessions);
        }
    }

    /// Every item of a list, page by page; a field of each, or all of it.
    async fn all(&self, n: usize, path: &str, field: &str) -> Vec<String> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.world.api(n).get(&of_shop(&self.shop, &format!("{path}?limit=300{after}"))).await;
            all.extend(page.items().iter().map(|item| {
                let name: &Value = if field.is_empty() { item } else { &item[field] };
                name.as_str().expect("a name").to_owned()
            }));
            let Some(next) = page.json["next"].as_str() else { return all };
            after = format!("&after={next}");
        }
    }
}

#[tokio::test]
async fn lists_and_counts_stay_right_while_a_thousand_devices_come_and_go() {
    let seed = Seed::chosen();
    let mut random = seed.random();
    let world = World::start(2).await;
    let mut crowd = Crowd { world: &world, shop: unique("shop"), present: BTreeMap::new(), members: BTreeMap::new() };
    let wave = DEVICES / WAVES;
    for number in 0..WAVES {
        crowd.let_in(number * wave..(number + 1) * wave).await;
        // The API moves some about while they are there.
        let mut names: Vec<String> = crowd.present.keys().cloned().collect();
        names.shuffle(&mut random);
        for name in names.iter().take(5) {
            let group = random.random_range(0..GROUPS);
            let path = of_shop(&crowd.shop, &format!("/groups/g{group}/devices/{name}"));
            assert_eq!(world.api(group).put(&path, json!({})).await.status, 204);
            crowd.members.get_mut(name).expect("a member").insert(group);
        }
        for name in names.iter().take(wave * 7 / 10) {
            crowd.leave(name, random.random_range(0..100)).await;
        }
        if number % 4 == 1 {
            crowd.assert_true().await;
        }
    }
    crowd.assert_true().await;
    assert!(crowd.present.len() > 100, "{}", crowd.present.len());
    let rest: Vec<String> = crowd.present.keys().cloned().collect();
    for name in rest {
        crowd.leave(&name, random.random_range(0..4)).await;
    }
    crowd.assert_true().await;
}
