//! `X-Forwarded-For`: what proxies say of where a request came from.
//!
//! Each proxy appends the address that it was asked from, so what stands on the right was said by the nearest.
//! What a trusted proxy said is believed, and nothing beyond the first address that is not trusted: that client
//! may have written the rest itself.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whether an address is one of a trusted proxy.
pub fn is_trusted(proxies: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    proxies.iter().any(|network| network.contains(&address))
}

/// Where a request came from that `peer` sent.
pub fn client_of(proxies: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut client = peer;
    let lines: Vec<&str> = headers.get_all(X_FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or("")).collect();
    let mut said = lines.iter().rev().flat_map(|line| line.rsplit(','));
    while is_trusted(proxies, client) {
        // Who says nothing, or nonsense, has to answer for the request itself.
        let Some(address) = said.next().and_then(|text| address(text.trim())) else { break };
        client = address;
    }
    client
}

/// An address, with or without a port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, lines: &[&str]) -> String {
        let proxies = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        client_of(&proxies, peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_right_most_address_that_is_not_trusted_is_the_clients() {
        assert_eq!(client("10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(client("10.0.0.1", &["192.0.2.7, 10.1.1.1, 10.2.2.2"]), "192.0.2.7");
        assert_eq!(client("::ffff:10.0.0.1", &["192.0.2.7:4711"]), "192.0.2.7");
        assert_eq!(client("2001:db8::1", &["2001:db9::7, 2001:db8::2"]), "2001:db9::7");
        assert_eq!(client("10.0.0.1", &["[2001:db9::7]:443"]), "2001:db9::7");
        assert_eq!(client("10.0.0.1", &["[2001:db9::7]"]), "2001:db9::7");
    }

    #[test]
    fn a_client_that_writes_the_header_itself_is_not_believed() {
        assert_eq!(client("192.0.2.7", &["203.0.113.1"]), "192.0.2.7", "it is no proxy");
        assert_eq!(client("10.0.0.1", &["203.0.113.1, 192.0.2.7"]), "192.0.2.7", "the proxy saw this one");
        assert_eq!(client("10.0.0.1", &["203.0.113.1", "192.0.2.7"]), "192.0.2.7", "in a header of its own");
        assert_eq!(client("10.0.0.1", &["10.9.9.9, 192.0.2.7"]), "192.0.2.7", "as if there were a proxy between");
    }

    #[test]
    fn a_proxy_that_says_nothing_answers_for_itself() {
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["192.0.2.7, ,10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &["10.0.0.3"]), "10.0.0.3");
    }
}
