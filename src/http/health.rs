//! `shoprelay health`: asks a node, over its metrics listener, whether it is alive or ready.
//!
//! Owns the question of a container's health check, whose image has no other program to ask it with.
//! Never looks at a store, and never tries twice: whoever asks decides what one "no" means. Called by
//! `main`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long the node may take to answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// The longest answer that is read.
const ANSWER_BYTES: usize = 4096;

/// What is asked of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Whether the process runs. Says nothing of the store: a restart would not bring that back.
    Alive,
    /// Whether a device that logs in there now is served.
    Ready,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Question::Alive => "/healthz",
            Question::Ready => "/readyz",
        }
    }
}

/// Why a node is not known to be well.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    #[error("metrics_listen is none, so there is no listener to ask; give it an address")]
    NoListener,
    #[error("metrics_listen is {address:?}, which is no address: {cause}; give host:port")]
    Address { address: String, cause: std::io::Error },
    #[error("nothing answers on {address}: {cause}; is the node running, with the same metrics_listen?")]
    Unreachable { address: SocketAddr, cause: std::io::Error },
    #[error("{address} does not speak HTTP: {cause}; is metrics_listen another program's port?")]
    NoHttp { address: SocketAddr, cause: Box<dyn std::error::Error + Send + Sync> },
    #[error("no answer from {address} within {DEADLINE:?}")]
    TimedOut { address: SocketAddr },
    #[error("{path} answers {status}: {answer}")]
    Unwell { path: &'static str, status: StatusCode, answer: String },
}

/// Asks the node whose metrics listener is at `listen`, as its setting `metrics_listen` says it, and
/// gives the answer of one that is well. An address for every interface is asked on loopback.
///
/// # Errors
/// There is nobody to ask, nobody answers in time, or the answer is "no".
pub async fn ask(listen: &str, question: Question) -> Result<String, HealthError> {
    if listen == "none" {
        return Err(HealthError::NoListener);
    }
    let unusable = |cause| HealthError::Address { address: listen.to_owned(), cause };
    let mut address = lookup_host(listen)
        .await
        .and_then(|mut found| found.next().ok_or_else(|| std::io::ErrorKind::AddrNotAvailable.into()))
        .map_err(unusable)?;
    address.set_ip(match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    });
    match timeout(DEADLINE, get(address, question.path())).await {
        Ok(answer) => answer,
        Err(_) => Err(HealthError::TimedOut { address }),
    }
}

async fn get(address: SocketAddr, path: &'static str) -> Result<String, HealthError> {
    let stream = TcpStream::connect(address).await.map_err(|cause| HealthError::Unreachable { address, cause })?;
    let no_http = |cause| HealthError::NoHttp { address, cause };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|cause| no_http(cause.into()))?;
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|cause| no_http(cause.into()))?;
    let answer = async {
        let reply = sender.send_request(request).await.map_err(|cause| no_http(cause.into()))?;
        let status = reply.status();
        let body = Limited::new(reply.into_body(), ANSWER_BYTES).collect().await.map_err(no_http)?;
        let answer = String::from_utf8_lossy(&body.to_bytes()).trim().to_owned();
        match status {
            StatusCode::OK => Ok(answer),
            _ => Err(HealthError::Unwell { path, status, answer }),
        }
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answered = &mut answer => answered,
        // What the connection had to say is said; where it broke, so does the question.
        _ = connection => answer.await,
    }
}
