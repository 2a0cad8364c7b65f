//! The smallest HTTP client that can ask a node how it is.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// `GET path`: the status and the body.
///
/// # Errors
/// Where there is no answer, or none within 10 s.
pub async fn get(address: &str, path: &str) -> Result<(u16, String), String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        // HTTP/1.0, so that the body ends with the connection and is never chunked.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(Duration::from_secs(10), exchange)
        .await
        .map_err(|_| format!("no answer to GET {path} in 10 s"))?
        .map_err(|cause| format!("GET {path}: {cause}"))?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no HTTP: {text}"))?;
    let status = status(head).ok_or_else(|| format!("no HTTP status: {head}"))?;
    Ok((status, body.to_owned()))
}

/// The status in the head of an answer.
pub fn status(head: &str) -> Option<u16> {
    head.split_ascii_whitespace().nth(1)?.parse().ok()
}
