//! The rooms and members that a workload needs: made before it, and taken away after it if that is asked for.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use quorate_client::wire::{BatchMessage, NewRoom, NewUser, RoomKind};
use quorate_client::{Client, Error};

use super::text::Texts;

/// Rooms of one run.
pub const ROOMS_MAX: usize = 100_000;
/// Members of each room.
pub const MEMBERS_MAX: usize = 100_000;
/// What is made is made so many at a time.
const AT_ONCE: usize = 32;
/// The contract's most members that a new room may name.
const NEW_ROOM_MEMBERS_MAX: usize = 1000;
/// A batch has at most so many messages, …
const BATCH_MESSAGES_MAX: usize = 1000;
/// … and so many bytes, well below what a request may have.
const BATCH_BYTES_MAX: usize = 2 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What the names of rooms and users begin with; a tag of the run follows, so that runs do not meet.
    pub prefix: String,
    pub rooms: usize,
    /// Users who are made, all of them members of every room, and whom the clients act as in turn. None:
    /// all is done as whoever the client is.
    pub members: usize,
    /// In each room before the load: message `seq` has text number `seq`.
    pub messages: u64,
    pub text_bytes: usize,
}

/// What was made.
#[derive(Debug)]
pub struct Stage {
    client: Client,
    tag: String,
    wanted: Wanted,
}

impl Stage {
    /// `say` is told what is made while it is made.
    ///
    /// # Errors
    /// For what cannot be meant, and what the cluster refuses. What was made until then stays.
    pub async fn build(client: &Client, wanted: Wanted, say: impl Fn(&str)) -> Result<Self> {
        ensure!((1..=ROOMS_MAX).contains(&wanted.rooms), "rooms: from 1 to {ROOMS_MAX}");
        ensure!(wanted.members <= MEMBERS_MAX, "members: at most {MEMBERS_MAX}");
        let stage = Self {
            client: client.clone(),
            tag: tag(&wanted.prefix),
            wanted,
        };
        if stage.wanted.members > 0 {
            say(&format!("making {} users", stage.wanted.members));
        }
        let users = 0..stage.wanted.members;
        each(users, |index| stage.make_user(index)).await?;
        say(&format!("making {} rooms named {}-…", stage.wanted.rooms, stage.tag));
        each(0..stage.wanted.rooms, |index| stage.make_room(index)).await?;
        if stage.wanted.messages > 0 {
            say(&format!("sending {} messages to each", stage.wanted.messages));
            each(0..stage.wanted.rooms, |index| stage.fill(index)).await?;
        }
        Ok(stage)
    }

    /// What another run has made, or what answers as if it had: nothing is made. `tag` is that of [`Stage::tag`].
    pub fn made_before(client: &Client, tag: &str, wanted: Wanted) -> Self {
        Self {
            client: client.clone(),
            tag: tag.to_owned(),
            wanted,
        }
    }

    /// Without rooms and users: only a tag for names.
    pub fn empty(client: &Client, prefix: &str) -> Self {
        Self {
            client: client.clone(),
            tag: tag(prefix),
            wanted: Wanted {
                prefix: prefix.to_owned(),
                rooms: 0,
                members: 0,
                messages: 0,
                text_bytes: 0,
            },
        }
    }

    /// What all names of this run begin with.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    pub fn rooms(&self) -> usize {
        self.wanted.rooms
    }

    /// In each room before the load.
    pub fn messages(&self) -> u64 {
        self.wanted.messages
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn texts(&self) -> Texts {
        Texts::new(self.wanted.text_bytes)
    }

    pub fn room(&self, index: usize) -> String {
        format!("{}-r{index}", self.tag)
    }

    /// A name that no other run has, for what is no room.
    pub fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.tag)
    }

    /// Whom this client acts as.
    pub(crate) fn user_of(&self, client: usize) -> Option<String> {
        match self.wanted.members {
            0 => None,
            members => Some(self.user(client % members)),
        }
    }

    /// How many different users clients act as, at least one.
    pub(crate) fn users(&self) -> usize {
        self.wanted.members.max(1)
    }

    /// What the cluster has more than before, for whoever is to take it away.
    pub fn left(&self) -> String {
        let users = match self.wanted.members {
            0 => String::new(),
            members => format!(", and {members} users {}-u…", self.tag),
        };
        format!("{} rooms {}-r…{users}", self.wanted.rooms, self.tag)
    }

    /// Deletes the rooms with their messages, and the users.
    ///
    /// # Errors
    /// When the cluster refuses one; the others are still there then.
    pub async fn clean_up(&self) -> Result<()> {
        each(0..self.wanted.rooms, |index| async move {
            gone(self.client.delete_room(&self.room(index)).await)
        })
        .await?;
        each(0..self.wanted.members, |index| async move {
            gone(self.client.delete_user(&self.user(index)).await)
        })
        .await
    }

    fn user(&self, index: usize) -> String {
        format!("{}-u{index}", self.tag)
    }

    async fn make_user(&self, index: usize) -> Result<(), Error> {
        let user = NewUser {
            user: self.user(index),
            ..NewUser::default()
        };
        self.client.create_user(&user).await.map(drop)
    }

    async fn make_room(&self, index: usize) -> Result<(), Error> {
        let first = self.wanted.members.min(NEW_ROOM_MEMBERS_MAX);
        let room = NewRoom {
            room: self.room(index),
            kind: RoomKind::Group,
            title: None,
            members: (0..first).map(|user| self.user(user)).collect(),
            attributes: None,
        };
        self.client.create_room(&room).await?;
        let name = &room.room;
        stream::iter(first..self.wanted.members)
            .map(|user| async move { self.client.put_member(name, &self.user(user), None).await })
            .buffer_unordered(AT_ONCE)
            .try_for_each(|_| async { Ok(()) })
            .await
    }

    async fn fill(&self, index: usize) -> Result<(), Error> {
        let texts = self.texts();
        let size = (BATCH_BYTES_MAX / (texts.bytes() + 16)).clamp(1, BATCH_MESSAGES_MAX) as u64;
        let room = self.room(index);
        let mut next = 1;
        while next <= self.wanted.messages {
            let end = (next + size).min(self.wanted.messages + 1);
            let messages = (next..end).map(|number| message(texts.text(number))).collect();
            self.client.send_batch(&room, messages).await?;
            next = end;
        }
        Ok(())
    }
}

/// No other run has it.
fn tag(prefix: &str) -> String {
    format!("{prefix}-{:08x}", rand::random::<u32>())
}

fn message(text: String) -> BatchMessage {
    BatchMessage {
        text,
        client_id: None,
        kind: None,
        reply_to: None,
        attributes: None,
        sender: None,
        sent_at: None,
    }
}

/// All of them, some at a time; the first that fails ends it.
async fn each<F>(range: Range<usize>, make: impl Fn(usize) -> F) -> Result<()>
where
    F: Future<Output = Result<(), Error>>,
{
    stream::iter(range)
        .map(make)
        .buffer_unordered(AT_ONCE)
        .try_for_each(|()| async { Ok(()) })
        .await
        .context("failed to prepare the rooms, or to take them away")
}

/// What is not there need not be deleted.
fn gone(deleted: Result<(), Error>) -> Result<(), Error> {
    match deleted {
        Err(error) if error.code() == Some("not_found") => Ok(()),
        other => other,
    }
}
