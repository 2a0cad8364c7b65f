//! Which web pages may open a WebSocket: browsers ask for any page, whoever's it is, and say whose in `Origin`
//! (RFC 6455 §10.2). Who is no browser sends none, and passes.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};

use crate::config::Origins;

/// Whether the request may become a WebSocket. A page of another origin than the one it asks may only where it
/// is listed. On a loopback address the host's name proves nothing: any page's name can be made to lead there.
pub fn is_allowed(origins: &Origins, headers: &HeaderMap, is_local: bool) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    is_listed(origins, origin) || (is_same(origin, headers) && (!is_local || is_ours(headers)))
}

/// The same for the old server's clients, which were never asked: all are let in where none is listed.
pub fn is_allowed_legacy(origins: &Origins, headers: &HeaderMap) -> bool {
    let is_unset = matches!(origins, Origins::Only(origins) if origins.is_empty());
    is_unset || headers.get(ORIGIN).is_none_or(|origin| is_listed(origins, origin))
}

fn is_listed(origins: &Origins, origin: &HeaderValue) -> bool {
    match origins {
        Origins::Any => true,
        Origins::Only(origins) => {
            origins.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
        }
    }
}

/// Whether the page came from where it asks for the WebSocket. The scheme may differ: TLS may end before here.
fn is_same(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let Some((scheme, page)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else { return false };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let Some(asked) = host(headers) else { return false };
    let asked = asked.strip_suffix(default_port).unwrap_or(asked);
    !page.is_empty() && page.strip_suffix(default_port).unwrap_or(page).eq_ignore_ascii_case(asked)
}

/// Whether the host that is asked for is this machine by its very name.
fn is_ours(headers: &HeaderMap) -> bool {
    let Some(host) = host(headers) else { return false };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(listed: &[&str], origin: &str, host: &str, is_local: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().unwrap());
        headers.insert(HOST, host.parse().unwrap());
        let origins = Origins::Only(listed.iter().map(|origin| (*origin).to_owned()).collect());
        is_allowed(&origins, &headers, is_local)
    }

    #[test]
    fn a_page_of_the_same_origin_is_let_in_and_another_only_where_it_is_listed() {
        assert!(allowed(&[], "https://relay.example", "relay.example", false));
        assert!(allowed(&[], "https://relay.example", "relay.example:443", false));
        assert!(allowed(&[], "http://Relay.example:8080", "relay.example:8080", false));
        assert!(!allowed(&[], "https://relay.example:8080", "relay.example", false));
        assert!(!allowed(&[], "https://evil.example", "relay.example", false));
        assert!(!allowed(&[], "https://relay.example.evil.example", "relay.example", false));
        assert!(!allowed(&[], "null", "null", false));
        assert!(!allowed(&[], "https://", "", false));
        assert!(!allowed(&[], "file://relay.example", "relay.example", false));
        assert!(allowed(&["https://shop.example"], "https://shop.example", "relay.example", false));
        assert!(allowed(&["https://shop.example"], "https://relay.example", "relay.example", false));
        assert!(!allowed(&["https://shop.example"], "http://shop.example", "relay.example", false));
    }

    #[test]
    fn a_name_that_was_made_to_lead_to_this_machine_is_not_trusted() {
        assert!(!allowed(&[], "http://evil.example:8080", "evil.example:8080", true));
        assert!(allowed(&[], "http://localhost:8080", "localhost:8080", true));
        assert!(allowed(&[], "http://127.0.0.1:8080", "127.0.0.1:8080", true));
        assert!(allowed(&[], "http://[::1]:8080", "[::1]:8080", true));
        assert!(!allowed(&[], "http://evil.example", "localhost:8080", true));
    }

    #[test]
    fn who_sends_no_origin_is_no_browser() {
        assert!(is_allowed(&Origins::Only(Vec::new()), &HeaderMap::new(), true));
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, "https://till.example".parse().unwrap());
        assert!(is_allowed(&Origins::Any, &headers, true));
        assert!(is_allowed_legacy(&Origins::Only(Vec::new()), &headers), "the old clients were never asked");
        assert!(!is_allowed_legacy(&Origins::Only(vec!["https://a.example".into()]), &headers));
    }
}
