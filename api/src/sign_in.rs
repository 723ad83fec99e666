//! How often somebody may try to sign in. A password that can be tried without end will be found; and each try
//! takes a core for some 30 ms.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use http::request::Parts;
use http::{HeaderValue, header};
use quorate_state_machine::Code;

use crate::problem::{Kind, Problem};
use crate::rate_limit::{Rate, RateLimiter};

pub(crate) const ROUTE: &str = "/v1/sessions";

/// Tries from one address for one user: ten at once for slips, then one a second. By address too, so that nobody
/// can lock another out from elsewhere.
const PER_USER: (u32, u32) = (1, 10);
/// Tries from one address, behind which many may sit.
const PER_ADDRESS: (u32, u32) = (20, 100);

/// Whoever opened the connection that a request came by; a router without sockets has none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

pub(crate) struct SignIns {
    by_user: RateLimiter<(IpAddr, Box<str>)>,
    by_address: RateLimiter<IpAddr>,
}

impl SignIns {
    pub(crate) fn new() -> Self {
        Self {
            by_user: RateLimiter::new(rate(PER_USER)),
            by_address: RateLimiter::new(rate(PER_ADDRESS)),
        }
    }

    /// 429 for one try too many.
    pub(crate) fn check(&self, parts: &Parts, user: &str) -> Result<(), Problem> {
        let address = address(parts);
        // Who is refused by his address must not fill the other table with users that he invents.
        let by_address = self.by_address.check(&address).retry_after_s();
        let by_user = || self.by_user.check(&(address, user.into())).retry_after_s();
        match by_address.or_else(by_user) {
            None => Ok(()),
            Some(seconds) => Err(Problem::new(
                Kind::Refused(Code::RateLimited),
                "too many attempts to sign in from this address",
            )
            .with_header(header::RETRY_AFTER, HeaderValue::from(seconds))),
        }
    }
}

fn rate((per_s, burst): (u32, u32)) -> Rate {
    let positive = |number| NonZeroU32::new(number).expect("no rate here is zero");
    Rate {
        per_s: positive(per_s),
        burst: positive(burst),
    }
}

/// Of IPv6 the network: a host has as many addresses in it as it likes.
fn address(parts: &Parts) -> IpAddr {
    match parts.extensions.get::<Peer>().map(|Peer(peer)| peer.ip()) {
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Some(IpAddr::V6(address)) if address.to_ipv4_mapped().is_none() => {
            IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64))
        }
        Some(address) => address.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Parts {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts
            .extensions
            .insert(Peer(SocketAddr::new(address.parse().unwrap(), 1)));
        parts
    }

    #[test]
    fn one_user_is_not_locked_out_for_another_or_from_elsewhere() {
        let sign_ins = SignIns::new();
        for _ in 0..PER_USER.1 {
            sign_ins.check(&from("10.0.0.1"), "ann").unwrap();
        }
        assert_eq!(
            sign_ins.check(&from("10.0.0.1"), "ann").unwrap_err().code(),
            "rate_limited"
        );
        sign_ins.check(&from("10.0.0.1"), "bob").unwrap();
        sign_ins.check(&from("10.0.0.2"), "ann").unwrap();
    }

    #[test]
    fn an_address_tries_only_so_many_users() {
        let sign_ins = SignIns::new();
        let mut user = (0..).map(|n| format!("user-{n}"));
        let mut try_from = |address: &str| sign_ins.check(&from(address), &user.next().unwrap());
        let refused = (0..2 * PER_ADDRESS.1).filter(|n| try_from(&format!("2001:db8::{n:x}")).is_err());
        assert!(refused.count() > 0, "hosts of one network are one");
        try_from("2001:db8:0:1::1").unwrap();
        try_from("::ffff:10.0.0.1").unwrap();
    }
}
