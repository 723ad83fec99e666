//! Sending. A send reads and writes a constant number of small rows for each message, whatever the
//! room's size, history or number of members.
//!
//! For conditions the entity is the room: `If-Match` sends only if nothing in the room has changed
//! since, and `If-None-Match: *` never sends, because the room exists.

use super::context::{Context, Done};
use super::outcome::Response;
use crate::command::NewMessage;
use crate::event::EventBody;
use crate::ids::{Revision, RoomId, Seq};
use crate::keys::Key;
use crate::names;
use crate::read::Who;
use crate::rejection::{Code, Fatal, Stop};
use crate::rows::{ClientIdRow, MessageHead, MessageRevisionRow, MessageRow, RoomTailRow};
use crate::view::View;

const KIND_DEFAULT: &str = "text";

/// Sends one message, or a batch: all of it as one change, or nothing.
pub(super) fn send<V: View>(
    context: &mut Context<'_, V>,
    room_name: String,
    messages: Vec<NewMessage>,
    batch: bool,
) -> Result<Done, Stop> {
    let read = context.read();
    let found = read.room_in_path(&room_name)?;
    read.check_inside(&context.who, &room_name, &found)?;
    let imports = messages
        .iter()
        .any(|message| message.sender.is_some() || message.sent_at_ms.is_some());
    if imports && !context.who.is_root() {
        return Err(Stop::refused(
            Code::Forbidden,
            "only root sends for others or at another time",
        ));
    }
    let room = found.room;
    let before = read.tail(room)?;
    context.check_conditions(Some(before.rev))?;

    let mut tail = before;
    let mut sent = Vec::with_capacity(messages.len());
    for message in messages {
        sent.push(one(context, room, &mut tail, message)?);
    }

    let replayed = tail == before;
    if !replayed {
        tail.rev = context.rev;
        context.put(Key::RoomTail { room }, &tail);
        let first = Seq(before.last_seq.0 + 1);
        context.tell(
            room,
            EventBody::Messages {
                first,
                last: tail.last_seq,
            },
        );
    }
    let rev = sent
        .iter()
        .map(|sent| sent.rev)
        .max()
        .expect("the check of the command left at least one");
    let response = if batch {
        Response::SentBatch {
            room: room_name,
            seqs: sent.iter().map(|sent| sent.seq).collect(),
            rev,
        }
    } else {
        let Sent {
            seq,
            rev,
            sent_at_ms,
            sender,
        } = sent.swap_remove(0);
        Response::Sent {
            room: room_name,
            seq,
            rev,
            sent_at_ms,
            sender,
        }
    };
    Ok(Done { response, replayed })
}

/// One message, sent now or before.
struct Sent {
    seq: Seq,
    rev: Revision,
    sent_at_ms: u64,
    sender: String,
}

fn one<V: View>(
    context: &mut Context<'_, V>,
    room: RoomId,
    tail: &mut RoomTailRow,
    message: NewMessage,
) -> Result<Sent, Stop> {
    let sender = match message.sender {
        None => context.who.clone(),
        Some(name) => sender_named(context, name)?,
    };
    if let Some(client_id) = &message.client_id {
        let key = Key::ClientId {
            room,
            sender: sender.id,
            client_id,
        };
        if let Some(ClientIdRow { seq }) = context.read_once(key)? {
            return sent_before(context, room, seq, client_id, &message.text);
        }
    }
    if let Some(reply_to) = message.reply_to
        && !(tail.first_seq..=tail.last_seq).contains(&reply_to)
    {
        return Err(Stop::refused(
            Code::Invalid,
            format!("reply_to: there is no message {reply_to}"),
        ));
    }

    let seq = Seq(tail.last_seq.0 + 1);
    let sent_at_ms = message.sent_at_ms.unwrap_or(context.wall_ms);
    tail.last_seq = seq;
    tail.sent_at_max_ms = tail.sent_at_max_ms.max(sent_at_ms);
    if let Some(client_id) = &message.client_id {
        context.put(
            Key::ClientId {
                room,
                sender: sender.id,
                client_id,
            },
            &ClientIdRow { seq },
        );
    }
    let row = MessageRow {
        head: MessageHead {
            created_rev: context.rev,
            sent_at_max_ms: tail.sent_at_max_ms,
        },
        rev: context.rev,
        sent_at_ms,
        sender: sender.id,
        sender_name: sender.name,
        kind: message.kind.unwrap_or_else(|| KIND_DEFAULT.to_owned()),
        client_id: message.client_id,
        reply_to: message.reply_to,
        attributes: message.attributes,
        text: Some(message.text),
        edited_at_ms: None,
        redacted_at_ms: None,
    };
    context.put(Key::Message { room, seq }, &row);
    Ok(Sent {
        seq,
        rev: context.rev,
        sent_at_ms,
        sender: row.sender_name,
    })
}

/// The answer that the first message under the client id got.
fn sent_before<V: View>(
    context: &Context<'_, V>,
    room: RoomId,
    seq: Seq,
    client_id: &str,
    text: &str,
) -> Result<Sent, Stop> {
    let row: MessageRow = context
        .read_once(Key::Message { room, seq })?
        .ok_or_else(|| Fatal::Corrupt(format!("message {seq} of room {room} is missing")))?;
    if first_text(context, room, seq, &row)?.is_some_and(|first| first != text) {
        let detail = format!("client_id \"{client_id}\" was used for message {seq} with another text");
        return Err(Stop::refused(Code::Invalid, detail));
    }
    Ok(Sent {
        seq,
        rev: row.head.created_rev,
        sent_at_ms: row.sent_at_ms,
        sender: row.sender_name,
    })
}

/// What the message said first. None after a redaction: nobody knows, and whatever comes again is taken for it.
fn first_text<V: View>(
    context: &Context<'_, V>,
    room: RoomId,
    seq: Seq,
    row: &MessageRow,
) -> Result<Option<String>, Stop> {
    if row.text.is_none() || row.edited_at_ms.is_none() {
        return Ok(row.text.clone());
    }
    let rev = row.head.created_rev;
    let first: MessageRevisionRow = context
        .read_once(Key::MessageRevision { room, seq, rev })?
        .ok_or_else(|| Fatal::Corrupt(format!("the first text of message {seq} of room {room} is missing")))?;
    Ok(Some(first.text))
}

fn sender_named<V: View>(context: &Context<'_, V>, name: String) -> Result<Who, Stop> {
    if name == names::ROOT {
        // Only root names senders.
        return Ok(context.who.clone());
    }
    match context.read().user_named(&name)? {
        Some(id) => Ok(Who::new(id, name)),
        None => Err(Stop::refused(
            Code::Invalid,
            format!("sender: there is no user \"{name}\""),
        )),
    }
}
