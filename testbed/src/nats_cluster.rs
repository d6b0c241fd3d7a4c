//! Three nats-servers that hold streams together.

use std::future::Future;

use async_nats::{ServerAddr, jetstream::Context};

use crate::{NatsServer, Port, wait::obtain};

const NODES: usize = 3;

/// A cluster of three on loopback, each with a file store of its own.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<NatsServer>,
    /// Where the nodes find each other.
    _routes: Vec<Port>,
}

impl NatsCluster {
    /// Starts three servers, and waits until they have found each other.
    ///
    /// # Panics
    /// When they don't start.
    pub async fn start() -> Self {
        let routes: Vec<Port> = (0..NODES).map(|_| Port::reserve()).collect();
        let urls: Vec<_> = routes.iter().map(|port| format!("nats://{}", port.address())).collect();
        let node = |index: usize| {
            let config = format!(
                "server_name: {}\ncluster {{\n  name: testbed\n  listen: \"{}\"\n  routes: {urls:?}\n}}",
                name(index),
                routes[index].address()
            );
            async move { NatsServer::with_config(&config).await }
        };
        let (first, second, third) = tokio::join!(node(0), node(1), node(2));
        Self {
            nodes: vec![first, second, third],
            _routes: routes,
        }
    }

    /// The URLs of all nodes, parted by commas.
    #[must_use]
    pub fn url(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(NatsServer::url).collect();
        urls.join(",")
    }

    /// JetStream by a client that knows all nodes.
    ///
    /// # Panics
    /// When it can't connect.
    pub async fn jetstream(&self) -> Context {
        let servers: Vec<ServerAddr> = self
            .nodes
            .iter()
            .map(|node| node.url().parse().expect("a server's address"))
            .collect();
        let client = async_nats::connect(servers).await.expect("a NATS client");
        async_nats::jetstream::new(client)
    }

    /// The node that leads the stream, as soon as there is one.
    ///
    /// # Panics
    /// When none is elected.
    pub async fn leader(&self, stream: &str) -> usize {
        let jetstream = self.jetstream().await;
        let elected = async || {
            let stream = jetstream.get_stream(stream).await.ok()?;
            let leader = stream.cached_info().cluster.as_ref()?.leader.clone()?;
            (0..NODES).find(|index| name(*index) == leader)
        };
        obtain("the stream has a leader", elected).await
    }

    /// The process ids of all nodes.
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        self.nodes.iter().map(NatsServer::id).collect()
    }

    /// Ends a node with SIGKILL.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Starts a node again, and waits until it has what the others have.
    ///
    /// # Panics
    /// When it doesn't start.
    pub fn restart(&mut self, node: usize) -> impl Future<Output = ()> {
        self.nodes[node].restart()
    }
}

fn name(index: usize) -> String {
    format!("node-{index}")
}
