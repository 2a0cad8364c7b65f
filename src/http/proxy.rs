//! The PROXY protocol (haproxy.org, proxy-protocol.txt): a balancer's word on where a connection came from,
//! before its first own byte.
//!
//! Owns the reading of the header, off the bare TCP connection and not a byte further; parsing is `ppp`'s.
//! Versions 1 and 2 are told apart by their first bytes.

use std::io;
use std::net::SocketAddr;

use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What a header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The rest of its fixed part, of which the last two bytes say how much follows.
const FIXED_REST: usize = 4;
/// Most that may follow: addresses, and what balancers add to them.
const PAYLOAD_MAX: usize = 4096;
/// Longest header of version 1, which is a line of text.
const LINE_MAX: usize = 107;

/// Where the connection came from; None where the balancer speaks for itself, as it does to see whether the
/// node lives, or cannot tell. Not cancel-safe: what was read is gone.
///
/// # Errors
/// The connection failed, or does not begin with a header.
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_on(stream, &mut header, FIXED_REST).await?;
        let payload = header.last_chunk::<2>().map_or(0, |len| usize::from(u16::from_be_bytes(*len)));
        if payload > PAYLOAD_MAX {
            return Err(wrong());
        }
        read_on(stream, &mut header, payload).await?;
    } else if header.starts_with(b"PROXY ") {
        while !header.ends_with(b"\r\n") {
            if header.len() == LINE_MAX {
                return Err(wrong());
            }
            read_on(stream, &mut header, 1).await?;
        }
    } else {
        return Err(wrong());
    }
    match HeaderResult::parse(&header) {
        HeaderResult::V2(Ok(header)) if header.command == v2::Command::Local => Ok(None),
        HeaderResult::V2(Ok(header)) => Ok(match header.addresses {
            v2::Addresses::IPv4(ip) => Some((ip.source_address, ip.source_port).into()),
            v2::Addresses::IPv6(ip) => Some((ip.source_address, ip.source_port).into()),
            v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        }),
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(wrong()),
    }
}

async fn read_on(stream: &mut (impl AsyncRead + Unpin), header: &mut Vec<u8>, count: usize) -> io::Result<()> {
    let from = header.len();
    header.resize(from + count, 0);
    let Some(rest) = header.get_mut(from..) else { return Ok(()) };
    stream.read_exact(rest).await.map(|_| ())
}

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it does not begin with a header of the PROXY protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn header_of(bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, usize) {
        let mut rest = bytes;
        let header = read_header(&mut rest).await;
        (header, rest.len())
    }

    fn version_2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend((payload.len() as u16).to_be_bytes());
        header.extend(payload);
        header
    }

    const TCP4: u8 = 0x11;
    const TCP6: u8 = 0x21;

    #[tokio::test]
    async fn both_versions_name_the_source_and_nothing_after_the_header_is_read() {
        let four = [192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0x1f, 0x90];
        let mut with_more = four.to_vec();
        with_more.extend([0x04, 0, 1, 0]);
        let mut six = [0; 36];
        six[..2].copy_from_slice(&[0x20, 0x01]);
        six[15] = 9;
        let line = |source: &str| format!("PROXY {source} 12345 8080\r\n").into_bytes();
        for (mut header, expected) in [
            (version_2(1, TCP4, &four), "192.0.2.7:12345"),
            (version_2(1, TCP4, &with_more), "192.0.2.7:12345"),
            (version_2(1, TCP6, &six), "[2001::9]:0"),
            (line("TCP4 192.0.2.7 127.0.0.1"), "192.0.2.7:12345"),
            (line("TCP6 2001:db8::9 ::1"), "[2001:db8::9]:12345"),
        ] {
            header.extend(b"GET /ws");
            let (source, rest) = header_of(&header).await;
            assert_eq!((source.unwrap(), rest), (Some(expected.parse().unwrap()), 7), "{expected}");
        }
    }

    #[tokio::test]
    async fn a_balancer_may_speak_for_itself_or_not_know() {
        for header in
            [version_2(0, 0, &[]), version_2(0, TCP4, &[0; 12]), version_2(1, 0, &[]), b"PROXY UNKNOWN\r\n".to_vec()]
        {
            assert_eq!(header_of(&header).await.0.unwrap(), None, "{header:02x?}");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let mut long = b"PROXY TCP4 ".to_vec();
        long.extend([b'1'; 200]);
        let endless = version_2(1, TCP4, &[0; PAYLOAD_MAX + 1]);
        for bytes in [
            b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(),
            b"PROXY TCP4 192.0.2.7 127.0.0.1 x y\r\n",
            b"PROXY nonsense\r\n",
            &long,
            &endless,
            &version_2(1, TCP4, &[0; 3]),
            &version_2(7, TCP4, &[0; 12]),
            &SIGNATURE,
            b"",
        ] {
            assert!(header_of(bytes).await.0.is_err(), "{bytes:02x?}");
        }
    }
}
