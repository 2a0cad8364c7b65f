//! Health, readiness and metrics.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tracing::debug;

use crate::http::{Reply, reply, text};
use crate::metrics::{self, Scrape};
use crate::relay::Intake;
use crate::store::Store;

/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the probes look at.
pub struct Probes {
    pub scrape: Scrape,
    pub store: Arc<dyn Store>,
    pub intake: Arc<Intake>,
    /// Whether the store answered the last heartbeat.
    pub is_store_up: AtomicBool,
    pub is_stopping: AtomicBool,
}

impl Probes {
    /// Whether a device that logs in here now is served; the reason where it is not.
    fn readiness(&self) -> Result<(), &'static str> {
        if self.is_stopping.load(Ordering::Relaxed) {
            return Err("stopping\n");
        }
        if !self.is_store_up.load(Ordering::Relaxed) {
            return Err("the store does not answer\n");
        }
        if !self.store.is_hearing() {
            return Err("what other nodes publish does not arrive\n");
        }
        if !self.intake.has_room() {
            return Err("no room for another connection\n");
        }
        Ok(())
    }

    fn answer(&self, request: &Request<Incoming>) -> Reply {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "ask with GET\n");
        }
        match request.uri().path() {
            // Liveness never looks at the store: a restart of the node would not bring it back.
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.readiness() {
                Ok(()) => text(StatusCode::OK, "ready\n"),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
            },
            "/metrics" => {
                metrics::ready(self.readiness().is_ok());
                reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.scrape.render())
            }
            _ => text(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n"),
        }
    }
}

/// Serves one connection of the metrics listener.
pub async fn serve_probe(probes: Arc<Probes>, stream: TcpStream) {
    serve(stream, move |request| probes.answer(&request)).await;
}

async fn serve(stream: TcpStream, answer: impl Fn(Request<Incoming>) -> Reply) {
    let service = service_fn(|request| {
        let reply = answer(request);
        async { Ok::<_, Infallible>(reply) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "an HTTP connection failed");
    }
}
