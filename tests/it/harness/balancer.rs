//! A TCP balancer before nodes: it asks each whether it is ready, and gives new connections to those
//! that are, in turn. Connections that are there stay where they are, as before Kubernetes' Services.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::http;
use super::node::NodeProcess;

/// Time between two looks at the readiness of all nodes.
const LOOK: Duration = Duration::from_millis(100);
/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

struct Backend {
    listen: String,
    metrics: String,
    is_ready: bool,
}

type Backends = Arc<Mutex<Vec<Backend>>>;

/// See the module. Its connections end when it is dropped.
pub struct Balancer {
    port: u16,
    backends: Backends,
    _tasks: JoinSet<()>,
}

impl Balancer {
    /// Stands before these nodes, which are ready.
    ///
    /// # Panics
    /// Without a free port.
    pub async fn before(nodes: &[NodeProcess]) -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let backends = Backends::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(look(backends.clone()));
        tasks.spawn(accept(listener, backends.clone()));
        let balancer = Balancer { port, backends, _tasks: tasks };
        nodes.iter().for_each(|node| balancer.add(node));
        balancer
    }

    /// Gives connections to this node too, which is ready.
    pub fn add(&self, node: &NodeProcess) {
        let backend =
            Backend { listen: node.listen().to_owned(), metrics: node.metrics_listen().to_owned(), is_ready: true };
        self.backends.lock().expect("no panic holds it").push(backend);
    }

    /// How many of the nodes are ready.
    pub fn ready(&self) -> usize {
        self.backends.lock().expect("no panic holds it").iter().filter(|backend| backend.is_ready).count()
    }

    /// Where devices connect.
    pub fn ws_url(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.port)
    }
}

/// Keeps up which nodes are ready; one that is gone is not.
async fn look(backends: Backends) {
    loop {
        let known: Vec<String> =
            backends.lock().expect("no panic holds it").iter().map(|backend| backend.metrics.clone()).collect();
        for metrics in known {
            let answer = timeout(ANSWER, http::get(&metrics, "/readyz")).await;
            let is_ready = answer.is_ok_and(|answer| answer.is_ok_and(|(status, _)| status == 200));
            let mut backends = backends.lock().expect("no panic holds it");
            let found = backends.iter_mut().find(|backend| backend.metrics == metrics);
            found.expect("none is ever taken away").is_ready = is_ready;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn accept(listener: TcpListener, backends: Backends) {
    let mut carried = JoinSet::new();
    let mut turn = 0;
    while let Ok((client, _)) = listener.accept().await {
        let ready: Vec<String> = {
            let backends = backends.lock().expect("no panic holds it");
            backends.iter().filter(|backend| backend.is_ready).map(|backend| backend.listen.clone()).collect()
        };
        turn += 1;
        // Where nobody is ready the client is sent away by the end of its connection.
        let Some(listen) = ready.get(turn % ready.len().max(1)).cloned() else { continue };
        carried.spawn(carry(client, listen));
        while carried.try_join_next().is_some() {}
    }
}

async fn carry(mut client: TcpStream, listen: String) {
    let Ok(mut node) = TcpStream::connect(&listen).await else { return };
    // Latency is the nodes' own, not what Nagle adds.
    let _ = (client.set_nodelay(true), node.set_nodelay(true));
    // An end is an end, whoever it comes from.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
}
