//! Browsers: pages of other origins may call the API only where an operator lets them.

use hyper::Method;
use serde_json::json;

use super::of_shop;
use crate::harness::api::Reply;
use crate::harness::{Login, World, unique};

const PAGE: &str = "https://office.example";

/// The headers by which a browser decides.
fn cors(reply: &Reply) -> Vec<String> {
    let names = reply.headers.keys().map(|name| name.as_str().to_owned());
    names.filter(|name| name.starts_with("access-control-")).collect()
}

#[tokio::test]
async fn pages_may_not_call_where_nobody_lets_them() {
    let world = World::start(1).await;
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let page = world.api(0).header("Origin", PAGE);
    let read = page.get("/v1/shops").await;
    assert_eq!((read.status, cors(&read), read.header("vary")), (200, vec![], ""), "a browser does not show it");
    let preflight = page.header("Access-Control-Request-Method", "POST").send(Method::OPTIONS, "/v1/shops", None).await;
    assert_eq!((preflight.status, cors(&preflight)), (405, vec![]));
    // A browser sends these without asking first, and a keyless API on loopback would do them.
    let path = of_shop(&shop, "/messages");
    page.header("Content-Type", "text/plain").post(&path, json!({"type": "a"})).await.assert_problem(403, "forbidden");
    page.post("/v1/broadcast", json!({"type": "a"})).await.assert_problem(403, "forbidden");
    let close = of_shop(&shop, "/devices/till/close");
    page.send(Method::POST, &close, None).await.assert_problem(403, "forbidden");
    world.api(0).header("Origin", "null").send(Method::POST, &close, None).await.assert_problem(403, "forbidden");
    till.expect_nothing().await;
}

#[tokio::test]
async fn pages_of_the_origins_in_the_settings_may_call() {
    let world = World::with(1, &[("CORS_ORIGINS", "https://office.example, http://localhost:3000")]).await;
    let shop = unique("shop");
    let mut till = Login::main(&shop, "till").on(&world.url(0)).await;
    let path = of_shop(&shop, "/messages");
    for origin in [PAGE, "http://localhost:3000"] {
        let page = world.api(0).header("Origin", origin);
        let asked = page
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "authorization,content-type,idempotency-key");
        for path in [path.as_str(), "/openapi.json", "/v1/stats"] {
            let preflight = asked.send(Method::OPTIONS, path, None).await;
            assert_eq!((preflight.status, preflight.text.as_str()), (204, ""));
            assert_eq!(preflight.header("access-control-allow-origin"), origin);
            let methods = preflight.header("access-control-allow-methods");
            assert!(
                ["GET", "POST", "PUT", "PATCH", "DELETE"].iter().all(|method| methods.contains(method)),
                "{methods}"
            );
            let headers = preflight.header("access-control-allow-headers").to_ascii_lowercase();
            for header in ["authorization", "content-type", "idempotency-key", "x-request-id"] {
                assert!(headers.contains(header), "{headers}");
            }
        }
        let posted = page.post(&path, json!({"type": "a"})).await;
        assert_eq!((posted.status, posted.header("access-control-allow-origin")), (201, origin));
        assert_eq!(posted.header("vary"), "Origin");
        let exposed = posted.header("access-control-expose-headers").to_ascii_lowercase();
        assert!(["location", "retry-after", "x-request-id"].iter().all(|name| exposed.contains(name)), "{exposed}");
        let refused = page.get("/nowhere").await;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (404, origin), "problems too");
        till.expect("message").await;
    }
    for origin in ["https://evil.example", "http://office.example", "https://office.example:444", "null"] {
        let page = world.api(0).header("Origin", origin);
        page.post(&path, json!({"type": "a"})).await.assert_problem(403, "forbidden");
        let read = page.get("/v1/shops").await;
        assert_eq!((read.status, cors(&read), read.header("vary")), (200, vec![], "Origin"), "no cache mixes them up");
    }
    till.expect_nothing().await;
    let back_end = world.api(0).post(&path, json!({"type": "a"})).await;
    assert_eq!((back_end.status, cors(&back_end)), (201, vec![]));
}

#[tokio::test]
async fn pages_of_any_origin_may_call_where_the_setting_says_so() {
    let world = World::with(1, &[("CORS_ORIGINS", "*")]).await;
    let shop = unique("shop");
    let _till = Login::main(&shop, "till").on(&world.url(0)).await;
    let posted = world.api(0).header("Origin", PAGE).post(&of_shop(&shop, "/messages"), json!({"type": "a"})).await;
    assert_eq!((posted.status, posted.header("access-control-allow-origin")), (201, PAGE));
    assert_eq!(posted.header("access-control-allow-credentials"), "", "a key is sent by hand, never by the browser");
}
