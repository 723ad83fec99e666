//! `quorate room …`: rooms and their members.

use clap::{Subcommand, ValueEnum};
use quorate_client::Client;
use quorate_client::wire::{self, Attributes, MemberList, NewRoom, RoomList};
use serde_json::Value;

use super::exit::Failure;
use super::lists;
use super::output::Output;
use super::user::{attributes_row, parse_object, patch};

const EXAMPLES: &str = "Examples:
  quorate room create lobby
  quorate room create ops --kind group --member bob --as alice
  quorate room join lobby --as alice
  quorate room add ops carol --role moderator
  quorate room members ops";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Room {
    /// Create a room
    Create {
        room: String,
        /// public: for every user; group: for members; direct: for exactly two
        #[arg(long, value_enum, default_value_t = Kind::Public)]
        kind: Kind,
        #[arg(long)]
        title: Option<String>,
        /// A first member; may be repeated
        #[arg(long = "member", value_name = "USER")]
        members: Vec<String>,
        /// A JSON object
        #[arg(long, value_name = "JSON", value_parser = parse_object)]
        attributes: Option<Attributes>,
    },
    /// Show a room
    Show { room: String },
    /// List the acting user's rooms by name; root's are all
    List {
        /// At most so many [default: all]
        #[arg(long)]
        limit: Option<u32>,
    },
    /// Change a room; what is not named stays
    Update {
        room: String,
        #[arg(long, conflicts_with = "no_title")]
        title: Option<String>,
        /// Remove the title
        #[arg(long)]
        no_title: bool,
        /// A JSON object that is merged in; null removes a key
        #[arg(long, value_name = "JSON", value_parser = parse_object)]
        attributes: Option<Attributes>,
    },
    /// Delete a room and its messages
    Delete { room: String },
    /// List a room's members
    Members {
        room: String,
        /// At most so many [default: all]
        #[arg(long)]
        limit: Option<u32>,
    },
    /// Become a member (with --as USER)
    Join { room: String },
    /// Be a member no more (with --as USER)
    Leave { room: String },
    /// Add a member, or give one another role
    Add {
        room: String,
        user: String,
        #[arg(long, value_enum)]
        role: Option<Role>,
    },
    /// Remove a member
    Remove { room: String, user: String },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    Public,
    Group,
    Direct,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Role {
    Owner,
    Moderator,
    Member,
}

impl Room {
    pub(crate) async fn run(self, client: Client, acting: Option<String>, output: &Output) -> Result<(), Failure> {
        let acting = || acting.ok_or_else(|| Failure::Usage("say who: --as USER (root is never a member)".into()));
        match self {
            Room::Create {
                room,
                kind,
                title,
                members,
                attributes,
            } => {
                let new = NewRoom {
                    room,
                    kind: kind.into(),
                    title,
                    members,
                    attributes,
                };
                show(&client.create_room(&new).await?, output)
            }
            Room::Show { room } => show(&client.room(&room).await?, output),
            Room::List { limit } => list(&client, limit, output).await,
            Room::Update {
                room,
                title,
                no_title,
                attributes,
            } => {
                let patch = patch([
                    (
                        "title",
                        if no_title {
                            Some(Value::Null)
                        } else {
                            title.map(Value::from)
                        },
                    ),
                    ("attributes", attributes.map(Value::from)),
                ])?;
                show(&client.update_room(&room, &patch).await?, output)
            }
            Room::Delete { room } => {
                client.delete_room(&room).await?;
                output.value(&serde_json::json!({ "deleted": room }), || {
                    format!("room {room} deleted")
                })
            }
            Room::Members { room, limit } => members(&client, &room, limit, output).await,
            Room::Join { room } => put(&client, &room, &acting()?, None, output).await,
            Room::Leave { room } => remove(&client, &room, &acting()?, output).await,
            Room::Add { room, user, role } => put(&client, &room, &user, role, output).await,
            Room::Remove { room, user } => remove(&client, &room, &user, output).await,
        }
    }
}

async fn list(client: &Client, limit: Option<u32>, output: &Output) -> Result<(), Failure> {
    let page = async |limit, cursor: Option<String>| {
        let page = client.rooms(limit, cursor.as_deref()).await?;
        Ok((page.rooms, page.next_cursor))
    };
    let list = RoomList {
        rooms: lists::all(limit, page).await?,
        next_cursor: None,
    };
    output.table(&list, &["room", "kind", "members", "messages", "title"], || {
        let row = |room: &wire::Room| {
            let title = room.title.clone().unwrap_or_default();
            vec![
                room.room.clone(),
                kind(room.kind),
                room.member_count.to_string(),
                room.last_seq.to_string(),
                title,
            ]
        };
        list.rooms.iter().map(row).collect()
    })
}

async fn members(client: &Client, room: &str, limit: Option<u32>, output: &Output) -> Result<(), Failure> {
    let page = async |limit, cursor: Option<String>| {
        let page = client.members(room, limit, cursor.as_deref()).await?;
        Ok((page.members, page.next_cursor))
    };
    let list = MemberList {
        members: lists::all(limit, page).await?,
        next_cursor: None,
    };
    output.table(&list, &["user", "role", "joined at", "joined seq"], || {
        let row = |member: &wire::Member| {
            vec![
                member.user.clone(),
                role(member.role),
                member.joined_at.clone(),
                member.joined_seq.to_string(),
            ]
        };
        list.members.iter().map(row).collect()
    })
}

async fn put(client: &Client, room: &str, user: &str, as_role: Option<Role>, output: &Output) -> Result<(), Failure> {
    let member = client.put_member(room, user, as_role.map(wire::Role::from)).await?;
    output.value(&member, || format!("{user} is {} of {room}", role(member.role)))
}

async fn remove(client: &Client, room: &str, user: &str, output: &Output) -> Result<(), Failure> {
    client.remove_member(room, user).await?;
    output.value(&serde_json::json!({ "room": room, "removed": user }), || {
        format!("{user} is no member of {room} now")
    })
}

fn show(room: &wire::Room, output: &Output) -> Result<(), Failure> {
    output.table(room, &[], || {
        let mut rows = vec![
            vec!["room".into(), room.room.clone()],
            vec!["id".into(), room.id.to_string()],
            vec!["kind".into(), kind(room.kind)],
        ];
        rows.extend(room.title.iter().map(|title| vec!["title".into(), title.clone()]));
        rows.extend(attributes_row(room.attributes.as_ref()));
        rows.extend([
            vec!["created".into(), format!("{} by {}", room.created_at, room.created_by)],
            vec!["members".into(), room.member_count.to_string()],
            vec!["messages".into(), format!("{} to {}", room.first_seq, room.last_seq)],
            vec!["rev".into(), room.rev.to_string()],
        ]);
        rows
    })
}

fn kind(kind: wire::RoomKind) -> String {
    format!("{kind:?}").to_lowercase()
}

fn role(role: wire::Role) -> String {
    format!("{role:?}").to_lowercase()
}

impl From<Kind> for wire::RoomKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Public => Self::Public,
            Kind::Group => Self::Group,
            Kind::Direct => Self::Direct,
        }
    }
}

impl From<Role> for wire::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Owner => Self::Owner,
            Role::Moderator => Self::Moderator,
            Role::Member => Self::Member,
        }
    }
}
