//! The calls of the contract, one method each.

use bytes::Bytes;
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::attempt::{Request, decode};
use crate::client::Client;
use crate::error::Error;
use crate::path::{path, with_query};
use crate::wire::{
    Batch, BatchMessage, Change, Cluster, Member, MemberList, Message, MessageEdit, MessagePage, NewLeader, NewMessage,
    NewNode, NewRoom, NewSession, NewUser, PutMember, RevisionList, Role, Room, RoomList, Sent, SentBatch, Session,
    Transfer, User, UserList, Verification,
};

const JSON: &str = "application/json";

/// How fresh a read is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Level {
    /// Reflects every write that was acknowledged before it began.
    #[default]
    Linearizable,
    /// What the asked node has, without asking the others.
    Local,
}

impl Level {
    fn parameter(self) -> Option<String> {
        match self {
            Level::Linearizable => None,
            Level::Local => Some("local".to_owned()),
        }
    }
}

/// Which page of a room's history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PageFrom {
    #[default]
    Newest,
    /// The messages that follow this seq.
    After(u64),
    /// The messages that precede this seq.
    Before(u64),
    /// The page with this seq in its middle.
    Around(u64),
    /// From the first message at this time (RFC 3339) on.
    At(String),
}

/// What one node says at `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    pub endpoint: String,
    /// Why it is not ready, where it is not.
    pub ready: Result<(), String>,
}

/// Every call may end with any [`Error`]; reads never with [`Error::OutcomeUnknown`].
impl Client {
    pub async fn create_user(&self, user: &NewUser) -> Result<User, Error> {
        self.write(Method::POST, path(&["users"])?, Some(json(user))).await
    }

    pub async fn user(&self, user: &str) -> Result<User, Error> {
        self.read(path(&["users", user])?).await
    }

    /// One page, by name; `limit` 1 to 500.
    pub async fn users(&self, limit: u32, cursor: Option<&str>) -> Result<UserList, Error> {
        self.read(list(path(&["users"])?, limit, cursor)).await
    }

    /// Applies a JSON Merge Patch (RFC 7396).
    pub async fn update_user(&self, user: &str, patch: &serde_json::Value) -> Result<User, Error> {
        self.write(Method::PATCH, path(&["users", user])?, Some(json(patch)))
            .await
    }

    pub async fn delete_user(&self, user: &str) -> Result<(), Error> {
        self.write_silently(Method::DELETE, path(&["users", user])?).await
    }

    /// Signs in. Go on with [`Client::with_token`]. A token that this client has already must be a good one.
    pub async fn sign_in(&self, session: &NewSession) -> Result<Session, Error> {
        // Repeated, it makes another session, and the one whose token nobody has ends by itself.
        let request = Request::change(Method::POST, path(&["sessions"])?, Some(json(session)));
        decode(&self.execute(&request).await?, true)
    }

    /// Ends the session of this client's token.
    pub async fn sign_out(&self) -> Result<(), Error> {
        let request = Request::sign_out(path(&["sessions", "current"])?);
        self.execute(&request).await.map(drop)
    }

    pub async fn create_room(&self, room: &NewRoom) -> Result<Room, Error> {
        self.write(Method::POST, path(&["rooms"])?, Some(json(room))).await
    }

    pub async fn room(&self, room: &str) -> Result<Room, Error> {
        self.read(path(&["rooms", room])?).await
    }

    /// One page of the acting user's rooms (root: of all), by name; `limit` 1 to 500.
    pub async fn rooms(&self, limit: u32, cursor: Option<&str>) -> Result<RoomList, Error> {
        self.read(list(path(&["rooms"])?, limit, cursor)).await
    }

    /// Applies a JSON Merge Patch (RFC 7396).
    pub async fn update_room(&self, room: &str, patch: &serde_json::Value) -> Result<Room, Error> {
        self.write(Method::PATCH, path(&["rooms", room])?, Some(json(patch)))
            .await
    }

    pub async fn delete_room(&self, room: &str) -> Result<(), Error> {
        self.write_silently(Method::DELETE, path(&["rooms", room])?).await
    }

    /// One page of a room's members; `limit` 1 to 500.
    pub async fn members(&self, room: &str, limit: u32, cursor: Option<&str>) -> Result<MemberList, Error> {
        self.read(list(path(&["rooms", room, "members"])?, limit, cursor)).await
    }

    /// Adds a member, or gives him another role. Without a role: `member`, or what he is.
    pub async fn put_member(&self, room: &str, user: &str, role: Option<Role>) -> Result<Member, Error> {
        let body = json(&PutMember { role });
        self.write(Method::PUT, path(&["rooms", room, "members", user])?, Some(body))
            .await
    }

    pub async fn remove_member(&self, room: &str, user: &str) -> Result<(), Error> {
        self.write_silently(Method::DELETE, path(&["rooms", room, "members", user])?)
            .await
    }

    pub async fn send(&self, room: &str, message: &NewMessage) -> Result<Sent, Error> {
        self.write(Method::POST, path(&["rooms", room, "messages"])?, Some(json(message)))
            .await
    }

    /// Sends 1 to 1000 messages, all or none.
    pub async fn send_batch(&self, room: &str, messages: Vec<BatchMessage>) -> Result<SentBatch, Error> {
        let body = json(&Batch { messages });
        self.write(Method::POST, path(&["rooms", room, "messages", "batch"])?, Some(body))
            .await
    }

    /// A page of a room's history, oldest first; `limit` 1 to 500.
    pub async fn history(&self, room: &str, from: &PageFrom, limit: u32, level: Level) -> Result<MessagePage, Error> {
        let position = match from {
            PageFrom::Newest => ("after", None),
            PageFrom::After(seq) => ("after", Some(seq.to_string())),
            PageFrom::Before(seq) => ("before", Some(seq.to_string())),
            PageFrom::Around(seq) => ("around", Some(seq.to_string())),
            PageFrom::At(time) => ("at", Some(time.clone())),
        };
        let parameters = [
            position,
            ("limit", Some(limit.to_string())),
            ("level", level.parameter()),
        ];
        self.read(with_query(path(&["rooms", room, "messages"])?, &parameters))
            .await
    }

    pub async fn message(&self, room: &str, seq: u64, level: Level) -> Result<Message, Error> {
        let path = path(&["rooms", room, "messages", &seq.to_string()])?;
        self.read(with_query(path, &[("level", level.parameter())])).await
    }

    /// Gives a message another text, and answers it. The earlier text stays among its revisions.
    pub async fn edit(&self, room: &str, seq: u64, text: &str) -> Result<Message, Error> {
        let path = path(&["rooms", room, "messages", &seq.to_string()])?;
        let body = json(&MessageEdit { text: text.to_owned() });
        self.write(Method::PATCH, path, Some(body)).await
    }

    /// Takes a message's content away, that of its revisions too.
    pub async fn redact(&self, room: &str, seq: u64) -> Result<(), Error> {
        let path = path(&["rooms", room, "messages", &seq.to_string()])?;
        self.write_silently(Method::DELETE, path).await
    }

    /// One page of a message's earlier texts, oldest first; `limit` 1 to 500.
    pub async fn revisions(
        &self,
        room: &str,
        seq: u64,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<RevisionList, Error> {
        let path = path(&["rooms", room, "messages", &seq.to_string(), "revisions"])?;
        self.read(list(path, limit, cursor)).await
    }

    /// The cluster as the first node that answers sees it. Teaches this client the nodes' URLs.
    pub async fn cluster(&self) -> Result<Cluster, Error> {
        let cluster: Cluster = self.read(path(&["cluster"])?).await?;
        self.shared.route().learn(&cluster);
        Ok(cluster)
    }

    /// Begins to add a node, or to put it in the place of another, and answers how far that is. To
    /// ask again for what is under way or done changes nothing.
    pub async fn add_node(&self, node: &NewNode) -> Result<Change, Error> {
        let request = Request::change(Method::POST, path(&["cluster", "nodes"])?, Some(json(node)));
        decode(&self.execute(&request).await?, true)
    }

    /// Removes a node; returns when that is committed.
    pub async fn remove_node(&self, id: u64) -> Result<(), Error> {
        let path = path(&["cluster", "nodes", &id.to_string()])?;
        let request = Request::change(Method::DELETE, path, None);
        self.execute(&request).await.map(drop)
    }

    /// Hands leadership to a voter (none: to the one whose log is furthest), and answers who leads.
    pub async fn transfer(&self, to: Option<u64>) -> Result<u64, Error> {
        let body = json(&Transfer { to });
        let request = Request::change(Method::POST, path(&["cluster", "transfer"])?, Some(body));
        let NewLeader { leader } = decode(&self.execute(&request).await?, true)?;
        Ok(leader)
    }

    /// Has this one node begin a snapshot. It is asked once: another could not do it for it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a node whose URL this client has not learnt (see [`Client::cluster`]).
    pub async fn snapshot(&self, node: u64) -> Result<(), Error> {
        let url = self.shared.route().url_of(node);
        let url = url.ok_or_else(|| Error::Invalid(format!("the URL of node {node} is not known")))?;
        let request = Request::change(Method::POST, path(&["cluster", "snapshot"])?, None);
        self.once(&url, &request).await.map(drop)
    }

    /// Has every node hash its state at one entry of the log, and compares. It takes as long as the
    /// slowest node needs for that: give [`Options::attempt`](crate::Options::attempt) the time.
    pub async fn verify(&self) -> Result<Verification, Error> {
        self.read(path(&["cluster", "verify"])?).await
    }

    /// Asks each known node once, side by side, whether it is ready. Never fails as a whole.
    pub async fn readyz(&self) -> Vec<Readiness> {
        let asked = self.endpoints().into_iter().map(|endpoint| async {
            let answer = self.once(&endpoint, &Request::read("/readyz".to_owned())).await;
            Readiness {
                ready: answer.map(drop).map_err(|error| error.to_string()),
                endpoint,
            }
        });
        futures::future::join_all(asked).await
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, path: String) -> Result<T, Error> {
        decode(&self.execute(&Request::read(path)).await?, false)
    }

    pub(crate) async fn write<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<T, Error> {
        decode(
            &self
                .execute(&Request::write(method, path, body, self.next_key()))
                .await?,
            true,
        )
    }

    /// A write whose answer has no body.
    pub(crate) async fn write_silently(&self, method: Method, path: String) -> Result<(), Error> {
        self.execute(&Request::write(method, path, None, self.next_key()))
            .await
            .map(drop)
    }

    /// A new key for each logical write, unless the caller chose one.
    pub(crate) fn next_key(&self) -> String {
        self.key.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string())
    }
}

pub(crate) fn json<T: Serialize>(value: &T) -> (&'static str, Bytes) {
    (
        JSON,
        serde_json::to_vec(value)
            .expect("wire types have no keys but strings")
            .into(),
    )
}

pub(crate) fn list(path: String, limit: u32, cursor: Option<&str>) -> String {
    with_query(
        path,
        &[
            ("limit", Some(limit.to_string())),
            ("cursor", cursor.map(str::to_owned)),
        ],
    )
}
