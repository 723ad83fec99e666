//! The first frame of each side of a peer connection. Both ends check who the other is, so that a
//! wiped disk, a swapped address or another cluster's node is refused wherever it is noticed first.

use std::io;
use std::time::Duration;

use bincode::{Decode, Encode};
use futures::{SinkExt, StreamExt};
use quorate_state_machine::codec::Kind;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::book::{PeerBook, Stranger};
use super::frame::{PROTOCOL_FAILOVER, PROTOCOL_MAX, PROTOCOL_MIN, Purpose, decode, encode};
use super::framing::Framing;
use super::transport::BoxLink;

/// A peer that accepts and then says nothing is not waited for longer than this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

pub type Wire = Framed<BoxLink, Framing>;

#[derive(Debug, Encode, Decode)]
pub struct Hello {
    pub protocol_min: u32,
    pub protocol_max: u32,
    pub purpose: Purpose,
    pub cluster_id: Option<String>,
    pub from: u64,
    pub from_store: u128,
    pub to: u64,
    /// The store that the dialler knows under `to`.
    pub to_store: Option<u128>,
}

#[derive(Debug, Encode, Decode)]
pub enum Welcome {
    Accepted {
        protocol: u32,
        id: u64,
        store_id: u128,
        cluster_id: Option<String>,
        empty: bool,
    },
    Refused {
        reason: String,
        /// The store that the refusing side knows under the dialler's id, if it is another one.
        known_store: Option<u128>,
        /// The dialler was removed from this cluster.
        removed: bool,
    },
    /// Accepted, from version 3 of the protocol on: with the run of the process that answers.
    Met {
        protocol: u32,
        id: u64,
        store_id: u128,
        cluster_id: Option<String>,
        empty: bool,
        run: u128,
    },
}

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeted {
    pub id: u64,
    pub store_id: u128,
    pub cluster_id: Option<String>,
    /// The store has neither log nor vote.
    pub empty: bool,
    /// The version of the protocol that both speak.
    pub protocol: u32,
    /// Which run of the process answered; none before version 3.
    pub run: Option<u128>,
}

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the connection ended during the handshake")]
    Ended,
    #[error("no answer within {} ms", HANDSHAKE_TIMEOUT.as_millis())]
    Silence,
    #[error("node {0} answered where node {1} was expected")]
    OtherNode(u64, u64),
    #[error("the peer chose protocol version {0}, which this build does not speak")]
    Protocol(u32),
    #[error(transparent)]
    Stranger(#[from] Stranger),
    /// The other end says that this node is not who it must be, or speaks no common version.
    #[error("refused by the peer: {reason}")]
    Refused {
        reason: String,
        known_store: Option<u128>,
        removed: bool,
    },
}

/// The dialling side.
pub async fn greet(
    link: BoxLink,
    book: &PeerBook,
    to: u64,
    purpose: Purpose,
) -> Result<(Wire, Greeted), HandshakeError> {
    let mut wire = Framed::new(link, Framing::default());
    let hello = Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        purpose,
        cluster_id: book.cluster_id(),
        from: book.id,
        from_store: book.store_id,
        to,
        to_store: book.known_store(to),
    };
    wire.send(encode(Kind::PeerHello, &hello)).await?;
    let bytes = timeout(HANDSHAKE_TIMEOUT, wire.next())
        .await
        .map_err(|_| HandshakeError::Silence)?
        .ok_or(HandshakeError::Ended)??;
    let greeted = match decode(Kind::PeerHello, &bytes)? {
        Welcome::Refused {
            reason,
            known_store,
            removed,
        } => {
            return Err(HandshakeError::Refused {
                reason,
                known_store,
                removed,
            });
        }
        Welcome::Accepted {
            protocol,
            id,
            store_id,
            cluster_id,
            empty,
        } => Greeted {
            id,
            store_id,
            cluster_id,
            empty,
            protocol,
            run: None,
        },
        Welcome::Met {
            protocol,
            id,
            store_id,
            cluster_id,
            empty,
            run,
        } => Greeted {
            id,
            store_id,
            cluster_id,
            empty,
            protocol,
            run: Some(run),
        },
    };
    if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&greeted.protocol) {
        return Err(HandshakeError::Protocol(greeted.protocol));
    }
    if greeted.id != to {
        return Err(HandshakeError::OtherNode(greeted.id, to));
    }
    book.check(greeted.id, greeted.store_id, greeted.cluster_id.as_deref())?;
    Ok((wire, greeted))
}

/// What the accepting side found out about itself from a peer that knows better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiped {
    pub told_by: u64,
    pub known: u128,
}

/// The accepting side: who dialled and what for. `empty` says whether this node's own store is, `run` which run of
/// the process this is. A refusal is sent to the dialler and returned as an error.
pub async fn welcome(
    link: BoxLink,
    book: &PeerBook,
    empty: bool,
    run: u128,
) -> Result<(Wire, Hello), (HandshakeError, Option<Wiped>)> {
    let mut wire = Framed::new(link, Framing::default());
    let hello = receive_hello(&mut wire).await.map_err(|error| (error, None))?;
    if hello.to == book.id {
        book.adopt_cluster_id(hello.cluster_id.as_deref(), hello.to_store);
    }
    // Told only by one that may be of this cluster, and believed only by a store that the log of this
    // node does not know: a stranger with an old address must not end a healthy node.
    let meant = hello.to == book.id && book.may_be_peer(hello.from, hello.cluster_id.as_deref());
    let wiped = hello
        .to_store
        .filter(|known| meant && *known != book.store_id && book.known_store(book.id) != Some(book.store_id))
        .map(|known| Wiped {
            told_by: hello.from,
            known,
        });
    let answer = match check_hello(&hello, book) {
        Ok(protocol) if protocol >= PROTOCOL_FAILOVER => Welcome::Met {
            protocol,
            id: book.id,
            store_id: book.store_id,
            cluster_id: book.cluster_id(),
            empty,
            run,
        },
        Ok(protocol) => Welcome::Accepted {
            protocol,
            id: book.id,
            store_id: book.store_id,
            cluster_id: book.cluster_id(),
            empty,
        },
        Err(reason) => {
            let known_store = book
                .known_store(hello.from)
                .filter(|known| meant && *known != hello.from_store);
            // Believed only by a node of the same cluster, which says so.
            let same_cluster = hello.cluster_id.is_some() && hello.cluster_id == book.cluster_id();
            Welcome::Refused {
                reason,
                known_store,
                removed: same_cluster && book.was_removed(hello.from),
            }
        }
    };
    wire.send(encode(Kind::PeerHello, &answer))
        .await
        .map_err(|error| (error.into(), wiped.clone()))?;
    match answer {
        Welcome::Accepted { .. } | Welcome::Met { .. } => Ok((wire, hello)),
        Welcome::Refused {
            reason,
            known_store,
            removed,
        } => Err((
            HandshakeError::Refused {
                reason,
                known_store,
                removed,
            },
            wiped,
        )),
    }
}

async fn receive_hello(wire: &mut Wire) -> Result<Hello, HandshakeError> {
    let bytes = timeout(HANDSHAKE_TIMEOUT, wire.next())
        .await
        .map_err(|_| HandshakeError::Silence)?
        .ok_or(HandshakeError::Ended)??;
    Ok(decode(Kind::PeerHello, &bytes)?)
}

/// The protocol version to speak, or why not.
fn check_hello(hello: &Hello, book: &PeerBook) -> Result<u32, String> {
    if hello.to != book.id {
        return Err(format!("this is node {}, not node {}", book.id, hello.to));
    }
    let protocol = hello.protocol_max.min(PROTOCOL_MAX);
    if protocol < hello.protocol_min.max(PROTOCOL_MIN) {
        return Err(format!(
            "no common protocol version: {}-{} here, {}-{} there",
            PROTOCOL_MIN, PROTOCOL_MAX, hello.protocol_min, hello.protocol_max
        ));
    }
    if let Some(known) = hello.to_store
        && known != book.store_id
    {
        return Err(Stranger::OtherStore {
            id: book.id,
            known,
            found: book.store_id,
        }
        .to_string());
    }
    book.check(hello.from, hello.from_store, hello.cluster_id.as_deref())
        .map_err(|stranger| stranger.to_string())?;
    Ok(protocol)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::config::InitialMember;

    fn book(id: u64) -> PeerBook {
        let members: Vec<_> = (1..=2)
            .map(|id| InitialMember {
                id,
                peer_addr: format!("p{id}"),
                client_url: format!("u{id}"),
            })
            .collect();
        PeerBook::new(id, u128::from(id) * 11, &members, None)
    }

    #[tokio::test]
    async fn whoever_answers_says_which_run_of_its_process_it_is() {
        let (near, far) = duplex(1 << 10);
        let (dialler, asked) = (book(1), book(2));
        let (greeted, welcomed) = tokio::join!(
            greet(Box::new(near), &dialler, 2, Purpose::Control),
            welcome(Box::new(far), &asked, false, 77)
        );
        let (_, greeted) = greeted.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((greeted.id, greeted.store_id, greeted.run), (2, 22, Some(77)));
        assert_eq!(greeted.protocol, PROTOCOL_MAX);
        assert!(welcomed.is_ok_and(|(_, hello)| hello.from == 1));
    }

    /// It cannot read an answer that its build does not know.
    #[tokio::test]
    async fn a_dialler_of_an_earlier_build_gets_the_answer_of_its_version() {
        let (near, far) = duplex(1 << 10);
        let asked = book(2);
        let earlier = async {
            let mut wire = Framed::new(Box::new(near) as BoxLink, Framing::default());
            let hello = Hello {
                protocol_min: 2,
                protocol_max: 2,
                purpose: Purpose::Control,
                cluster_id: None,
                from: 1,
                from_store: 11,
                to: 2,
                to_store: None,
            };
            wire.send(encode(Kind::PeerHello, &hello)).await.expect("it reads");
            let bytes = wire.next().await.expect("it answers").expect("it is a frame");
            decode::<Welcome>(Kind::PeerHello, &bytes).expect("it is an answer")
        };
        let (answer, welcomed) = tokio::join!(earlier, welcome(Box::new(far), &asked, true, 77));
        assert!(
            matches!(
                answer,
                Welcome::Accepted {
                    protocol: 2,
                    id: 2,
                    empty: true,
                    ..
                }
            ),
            "{answer:?}"
        );
        assert!(welcomed.is_ok());
    }
}
