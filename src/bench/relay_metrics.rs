//! What a relay itself says was delivered.
//!
//! Owns the reading of one counter from a node's metrics page, so that a device's word for what it
//! acknowledged is held against the relay's. Called by [`mod@super::run`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Each message once for each device that proved its receipt.
const DELIVERED: &str = "shoprelay_messages_delivered_total ";
/// How long proofs may be on their way to the store.
const SETTLES_WITHIN: Duration = Duration::from_secs(3);
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// A node's metrics page.
#[derive(Debug, Clone)]
pub struct Page {
    pub address: SocketAddr,
    pub path: String,
}

/// Receipts that the nodes have counted as proven since they began.
///
/// # Errors
/// Which page cannot be read.
pub async fn delivered(pages: &[Page]) -> Result<f64, String> {
    let mut sum = 0.0;
    for page in pages {
        let text = fetch(page).await.map_err(|error| format!("--metrics-url {}: {error}", page.address))?;
        let value = text.lines().find_map(|line| line.strip_prefix(DELIVERED)?.trim().parse::<f64>().ok());
        sum += value.ok_or_else(|| format!("--metrics-url {}: these are not a relay's metrics", page.address))?;
    }
    Ok(sum)
}

/// The same, once it has grown by so much or time is over.
///
/// # Errors
/// As [`delivered`].
pub async fn settled(pages: &[Page], before: f64, growth: f64) -> Result<f64, String> {
    let begun = Instant::now();
    loop {
        let now = delivered(pages).await?;
        if now - before >= growth || begun.elapsed() > SETTLES_WITHIN {
            return Ok(now);
        }
        tokio::time::sleep(ASKED_EVERY).await;
    }
}

async fn fetch(page: &Page) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(page.address).await?;
    // After HTTP/1.0 the end of the connection is the end of the page.
    let request = format!("GET {} HTTP/1.0\r\nHost: {}\r\n\r\n", page.path, page.address);
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}
