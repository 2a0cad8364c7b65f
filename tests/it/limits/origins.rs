//! Which web pages may open a WebSocket.

use crate::harness::{RawSocket, World};

async fn status_of(url: &str, origin: &str) -> u16 {
    RawSocket::handshake(url, &[("Origin", origin)]).await.0
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_with_403_and_a_device_that_sends_none_is_let_in() {
    let world = World::with(1, &[]).await;
    let url = world.url(0);
    assert_eq!(status_of(&url, "https://evil.example").await, 403);
    assert_eq!(status_of(&url, "null").await, 403);
    assert_eq!(status_of(&url, &format!("http://{}", world.nodes[0].listen())).await, 101, "the node's own origin");
    // A name that its owner made lead to this machine.
    let rebound = [("Host", "evil.example:8080"), ("Origin", "http://evil.example:8080")];
    assert_eq!(RawSocket::handshake(&url, &rebound).await.0, 403);
    assert_eq!(RawSocket::handshake(&url, &[]).await.0, 101);
    let refused = world.nodes[0].metrics().await;
    assert_eq!(refused.labelled("shoprelay_connections_refused_total", &[("reason", "origin")]), 3.0);
}

#[tokio::test]
async fn pages_of_listed_origins_are_let_in() {
    let world = World::with(1, &[("ORIGINS", "https://till.example, https://kds.example")]).await;
    assert_eq!(status_of(&world.url(0), "https://kds.example").await, 101);
    assert_eq!(status_of(&world.url(0), "https://kds.example:444").await, 403);
    let world = World::with(1, &[("ORIGINS", "*")]).await;
    assert_eq!(status_of(&world.url(0), "https://evil.example").await, 101);
}

#[tokio::test]
async fn the_old_servers_pages_are_let_in_until_origins_are_listed() {
    for (settings, status) in
        [(vec![("LEGACY", "true")], 101), (vec![("LEGACY", "true"), ("ORIGINS", "https://a.example")], 403)]
    {
        let world = World::with(1, &settings).await;
        let url = format!("ws://{}/", world.nodes[0].listen());
        assert_eq!(status_of(&url, "https://old.example").await, status);
    }
}
