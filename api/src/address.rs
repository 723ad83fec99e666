//! How a node is named and reached: the forms that the contract allows. Nothing is trimmed or guessed.

use std::net::Ipv6Addr;

/// Ids stand in JSON, whose numbers are exact below 2^53.
pub const NODE_ID_MAX: u64 = (1 << 53) - 1;

/// `host:port`, an IPv6 address in brackets.
///
/// # Errors
/// Quotes the text and says what it should have been.
pub fn check_peer_addr(text: &str) -> Result<(), String> {
    if is_host_and_port(text) {
        Ok(())
    } else {
        Err(format!("{text:?} is not HOST:PORT"))
    }
}

/// `http://host:port`.
///
/// # Errors
/// Quotes the text and says what it should have been.
pub fn check_client_url(text: &str) -> Result<(), String> {
    match authority(text) {
        Some(authority) if is_host_and_port(authority) => Ok(()),
        _ => Err(format!("{text:?} is not http://HOST:PORT")),
    }
}

/// The `host:port` of a client URL.
pub(crate) fn authority(client_url: &str) -> Option<&str> {
    client_url.strip_prefix("http://")
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host_is_plain = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        }
    };
    let port_is_plain = port.bytes().all(|byte| byte.is_ascii_digit());
    host_is_plain && port_is_plain && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port_and_nothing_more() {
        for text in ["127.0.0.1:7201", "node-3.example:1", "[::1]:65535", "a_b:80"] {
            assert_eq!(check_peer_addr(text), Ok(()), "{text}");
            assert_eq!(check_client_url(&format!("http://{text}")), Ok(()), "{text}");
        }
        for text in [
            "", ":1", "a", "a:", "a:0", "a:65536", "a:+1", "a b:1", "a:1/", "a/b:1", "u@a:1", "::1:1", "[::g]:1",
            "[]:1",
        ] {
            assert!(check_peer_addr(text).is_err(), "{text:?}");
            assert!(check_client_url(&format!("http://{text}")).is_err(), "{text:?}");
        }
        for url in ["127.0.0.1:7101", "https://a:1", "HTTP://a:1", "http:a:1", " http://a:1"] {
            assert!(check_client_url(url).is_err(), "{url:?}");
        }
    }
}
