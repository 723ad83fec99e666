//! The machines of an isolated cluster: for each place of a node a network namespace with an address on a
//! bridge. Real packets travel between them, so that real packets can be dropped.
//!
//! A namespace is a place, not a node: a node that takes over the addresses of another moves in there.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use super::addresses::LINK_PORT;
use super::command::run;

/// The bridge, at which this process has an address too: clients are on no node's machine.
const BRIDGE: &str = "quorate";
/// In the namespace of a node, links to the node at place n end at this port plus n, where the proxy is.
const PROXY_PORT: u16 = 8000;

#[derive(Debug)]
pub(super) struct Namespaces {
    /// Of clients, on the bridge.
    outside: IpAddr,
    /// The addresses of the places that there are. Held to look up or to make one.
    places: Mutex<BTreeMap<u64, IpAddr>>,
}

/// Which packets a place does not let in.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Refused {
    From(IpAddr),
    /// One of so many, at random, whoever sends it.
    Share(f64),
}

impl Namespaces {
    /// Makes the bridge, with this address.
    pub(super) fn new(outside: IpAddr) -> Result<Self> {
        run("ip", &["link", "add", BRIDGE, "type", "bridge"])?;
        let namespaces = Self {
            outside,
            places: Mutex::default(),
        };
        run("ip", &["addr", "add", &format!("{outside}/24"), "dev", BRIDGE])?;
        run("ip", &["link", "set", BRIDGE, "up"])?;
        Ok(namespaces)
    }

    pub(super) fn outside(&self) -> IpAddr {
        self.outside
    }

    /// Makes the place if it is not there.
    pub(super) fn make(&self, slot: u64, address: IpAddr) -> Result<()> {
        let mut places = self.places.lock().expect("no holder of this lock panics");
        if places.contains_key(&slot) {
            return Ok(());
        }
        let (name, near) = (name(slot), format!("veth-{slot}"));
        run("ip", &["netns", "add", &name])?;
        places.insert(slot, address);
        let words = format!("link add {near} type veth peer name eth0 netns {name}");
        run("ip", &words.split(' ').collect::<Vec<_>>())?;
        run("ip", &["link", "set", &near, "master", BRIDGE, "up"])?;
        for words in [
            format!("-n {name} addr add {address}/24 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
        ] {
            run("ip", &words.split(' ').collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Has connections from the one place to the links' port of the other end at a port of the one, which is
    /// answered with: there a proxy is to listen.
    pub(super) fn divert(&self, from: u64, to: u64, to_address: IpAddr) -> Result<u16> {
        let port = PROXY_PORT + u16::try_from(to).context("places are few")?;
        let rule = format!("-t nat -A OUTPUT -p tcp -d {to_address} --dport {LINK_PORT} -j REDIRECT --to-ports {port}");
        self.iptables(from, &rule)?;
        Ok(port)
    }

    /// The command that starts another one there.
    pub(super) fn enter(slot: u64) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net={}", path(slot).display())]
    }

    /// Moves the calling thread there: sockets that it makes from now on are of that place.
    pub(super) fn move_thread(slot: u64) -> Result<()> {
        let open = File::open(path(slot))?;
        setns(open, CloneFlags::CLONE_NEWNET).context("failed to enter a network namespace")
    }

    pub(super) fn refuse(&self, slot: u64, refused: &Refused) -> Result<()> {
        self.iptables(slot, &format!("-A INPUT {}", words(refused)))
    }

    /// Undoes one [`Namespaces::refuse`] of the same.
    pub(super) fn accept(&self, slot: u64, refused: &Refused) -> Result<()> {
        self.iptables(slot, &format!("-D INPUT {}", words(refused)))
    }

    /// Every place lets everything in again.
    pub(super) fn accept_all(&self) -> Result<()> {
        let slots: Vec<u64> = self
            .places
            .lock()
            .expect("no holder of this lock panics")
            .keys()
            .copied()
            .collect();
        slots.into_iter().try_for_each(|slot| self.iptables(slot, "-F INPUT"))
    }

    fn iptables(&self, slot: u64, rule: &str) -> Result<()> {
        let mut all = Self::enter(slot).split_off(1);
        all.extend(["iptables", "-w"].map(str::to_owned));
        all.extend(rule.split(' ').map(str::to_owned));
        run("nsenter", &all)?;
        Ok(())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // What fails here goes with the last process inside.
        for slot in self
            .places
            .get_mut()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .keys()
        {
            let _ = run("ip", &["netns", "del", &name(*slot)]);
            let _ = run("ip", &["link", "del", &format!("veth-{slot}")]);
        }
        let _ = run("ip", &["link", "del", BRIDGE]);
    }
}

fn words(refused: &Refused) -> String {
    // Not what a node sends to itself: on its way to the proxy of a link it goes over loopback.
    match refused {
        Refused::From(address) => format!("-i eth0 -s {address} -j DROP"),
        Refused::Share(share) => format!("-i eth0 -m statistic --mode random --probability {share:.4} -j DROP"),
    }
}

fn name(slot: u64) -> String {
    format!("place-{slot}")
}

fn path(slot: u64) -> PathBuf {
    PathBuf::from("/run/netns").join(name(slot))
}

/// Where a place's proxy for links to another listens.
pub(super) fn proxy_address(port: u16) -> SocketAddr {
    // A diverted connection ends at the loopback address.
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::cluster::isolation;

    const SOON: Duration = Duration::from_secs(10);
    const WAITED: Duration = Duration::from_millis(400);

    /// A listener at place 2 and a connection to it from here.
    fn places(name: &str) -> Option<(Namespaces, TcpListener, SocketAddr)> {
        isolation::inside_test(name)?;
        let namespaces = Namespaces::new(IpAddr::from([10, 77, 0, 254])).expect("root may make a bridge");
        for slot in [1, 2] {
            namespaces
                .make(slot, IpAddr::from([10, 77, 0, slot as u8]))
                .expect("root may make namespaces");
        }
        let address = SocketAddr::from(([10, 77, 0, 2], 4000));
        let listener = at(2, move || {
            TcpListener::bind(address).expect("the address is of that place")
        });
        Some((namespaces, listener, address))
    }

    fn at<T: Send + 'static>(slot: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(move || {
            Namespaces::move_thread(slot).expect("root may enter it");
            work()
        });
        thread.join().expect("the work is done")
    }

    fn dial_from(slot: u64, address: SocketAddr) -> bool {
        at(slot, move || TcpStream::connect_timeout(&address, WAITED).is_ok())
    }

    #[test]
    fn packets_of_one_place_are_refused_and_those_of_others_arrive() {
        let name = "cluster::namespaces::tests::packets_of_one_place_are_refused_and_those_of_others_arrive";
        let Some((namespaces, _listener, address)) = places(name) else {
            return;
        };
        assert!(dial_from(1, address));
        let refused = Refused::From(IpAddr::from([10, 77, 0, 1]));
        namespaces.refuse(2, &refused).expect("root may filter");
        assert!(!dial_from(1, address));
        TcpStream::connect_timeout(&address, SOON).expect("nobody refuses those from outside");
        namespaces
            .refuse(2, &Refused::From(namespaces.outside()))
            .expect("root may filter");
        TcpStream::connect_timeout(&address, WAITED).expect_err("outside is refused as well");
        namespaces.accept(2, &refused).expect("it was refused");
        assert!(dial_from(1, address));
        namespaces.accept_all().expect("root may filter");
        TcpStream::connect_timeout(&address, SOON).expect("nobody is refused");
    }

    #[test]
    fn all_packets_lost_are_no_connection() {
        let Some((namespaces, _listener, address)) =
            places("cluster::namespaces::tests::all_packets_lost_are_no_connection")
        else {
            return;
        };
        namespaces.refuse(2, &Refused::Share(1.0)).expect("root may filter");
        assert!(!dial_from(1, address));
        namespaces.accept(2, &Refused::Share(1.0)).expect("it was refused");
        assert!(dial_from(1, address));
    }

    #[test]
    fn a_link_is_diverted_to_the_proxy_of_its_place() {
        let Some((namespaces, _listener, address)) =
            places("cluster::namespaces::tests::a_link_is_diverted_to_the_proxy_of_its_place")
        else {
            return;
        };
        let port = namespaces.divert(1, 2, address.ip()).expect("root may divert");
        let proxy = at(1, move || {
            TcpListener::bind(proxy_address(port)).expect("the port is free")
        });
        let mut near = at(1, move || {
            TcpStream::connect_timeout(&SocketAddr::new(address.ip(), LINK_PORT), SOON).expect("the proxy listens")
        });
        let (mut far, _) = proxy.accept().expect("it was diverted here");
        near.write_all(b"x").expect("they are connected");
        let mut byte = [0];
        far.read_exact(&mut byte).expect("they are connected");
        assert_eq!(&byte, b"x");
    }
}
