//! Outcomes and answers as lines of text.

use std::fmt::Write;

use quorate_state_machine::apply::Response;
use quorate_state_machine::query::{Answered, RoomChangeBody};
use quorate_state_machine::{
    Answer, Epoch, Event, EventBody, FencingToken, Lock, LockWait, Member, Message, MessageRevision, Outcome,
    Rejection, Revision, Role, Room, RoomKind, Seq, Topic, User,
};

/// The first line begins with the store's revision after the command.
pub(crate) fn outcome(outcome: &Outcome, with_events: bool) -> Vec<String> {
    let replayed = if outcome.replayed { "replayed " } else { "" };
    let response = match &outcome.response {
        Ok(response) => self::response(response),
        Err(rejection) => refused(rejection),
    };
    let mut lines = vec![format!("@{} {replayed}{response}", outcome.revision)];
    if with_events {
        lines.extend(
            outcome
                .events
                .iter()
                .map(|event| format!("event {}", self::event(event))),
        );
        lines.extend(outcome.topics.iter().map(|topic| match topic {
            Topic::Session(token) => format!("wakes session {}", token.0[31]),
            other => format!("wakes {other:?}"),
        }));
    }
    lines
}

fn response(response: &Response) -> String {
    match response {
        Response::User(user) => self::user(user),
        Response::Room(room) => self::room(room),
        Response::Member { member, created } => {
            format!("{} {}", if *created { "joined" } else { "is" }, self::member(member))
        }
        Response::Deleted => "deleted".to_owned(),
        Response::VersionRaised { version } => format!("version={version}"),
        Response::Message(message) => self::message(message),
        Response::SessionCreated { user, expires_at_ms } => format!("signed in {user} until={expires_at_ms}"),
        Response::LockHeld {
            owner,
            token,
            expires_in_ms,
        } => format!("held by {owner} token={} for={expires_in_ms}", self::token(*token)),
        Response::LockWaiting { lock, since } => format!("waiting lock={lock} since={since}"),
        Response::Swept { more } => if *more { "swept …" } else { "swept" }.to_owned(),
        Response::Sent {
            room,
            seq,
            rev,
            sent_at_ms,
            sender,
        } => {
            format!("sent {room} seq={seq} rev={rev} at={sent_at_ms} by={sender}")
        }
        Response::SentBatch { room, seqs, rev } => {
            let seqs: Vec<String> = seqs.iter().map(Seq::to_string).collect();
            format!("sent {room} seqs={} rev={rev}", seqs.join(","))
        }
    }
}

pub(crate) fn answer(answered: &Answered) -> Vec<String> {
    let answer = match &answered.answer {
        Ok(answer) => answer,
        Err(rejection) => return vec![refused(rejection)],
    };
    match answer {
        Answer::User(user) => vec![self::user(user)],
        Answer::Users { users, next } => list(users.iter().map(user), next),
        Answer::Room(room) => vec![self::room(room)],
        Answer::Rooms { rooms, next } => list(rooms.iter().map(room), next),
        Answer::Members { members, next } => list(members.iter().map(member), next),
        Answer::Message(message) => vec![self::message(message)],
        Answer::Messages {
            messages,
            first_seq,
            last_seq,
            more_before,
            more_after,
        } => {
            let before = if *more_before { "… " } else { "" };
            let after = if *more_after { " …" } else { "" };
            let mut lines: Vec<String> = messages.iter().map(message).collect();
            lines.push(format!("{before}{first_seq}..{last_seq}{after}"));
            lines
        }
        Answer::RoomChanges {
            items,
            next,
            more,
            room: _,
        } => {
            let mut lines: Vec<String> = items
                .iter()
                .map(|item| match &item.body {
                    RoomChangeBody::Message(message) => format!("{}: {}", item.position, self::message(message)),
                    RoomChangeBody::Edited(message) => {
                        format!("{}: edited {}", item.position, self::message(message))
                    }
                    RoomChangeBody::Redacted(message) => {
                        format!("{}: redacted {}", item.position, self::message(message))
                    }
                    RoomChangeBody::Event(event) => format!("{}: {}", item.position, self::event(event)),
                })
                .collect();
            lines.push(format!("next {next}{}", if *more { " …" } else { "" }));
            lines
        }
        Answer::MessageRevisions { revisions, next } => {
            let shown = |revision: &MessageRevision| {
                format!("{} rev={} at={}", quoted(&revision.text), revision.rev, revision.at_ms)
            };
            list(revisions.iter().map(shown), &next.map(|rev| rev.to_string()))
        }
        Answer::Credentials { password_hash } => vec![format!("{password_hash:?}")],
        Answer::Lock(lock) => vec![self::lock(lock)],
        Answer::Locks { locks, next } => list(locks.iter().map(self::lock), next),
        Answer::LockWait(LockWait::Waiting) => vec!["waiting".to_owned()],
        Answer::LockWait(LockWait::Granted { token, expires_ms }) => {
            vec![format!("granted token={} expires={expires_ms}", self::token(*token))]
        }
        Answer::LockWait(LockWait::Over) => vec!["over".to_owned()],
        Answer::Caller(name) => vec![name.clone()],
        Answer::Page(ends) => vec![format!("{ends:?}")],
        Answer::Position => vec![format!("epoch {} revision {}", answered.epoch, answered.revision)],
    }
}

/// As the revision of the grant.
fn token(token: FencingToken) -> u64 {
    let first = FencingToken::new(Epoch::FIRST, Revision(0));
    token.0.saturating_sub(first.0)
}

fn lock(lock: &Lock) -> String {
    let mut line = format!("lock {} rev={} last={}", lock.lock, lock.rev, token(lock.last_token));
    if let Some(holder) = &lock.holder {
        write!(
            line,
            " held by {} token={} expires={}",
            holder.owner,
            token(holder.token),
            holder.expires_ms
        )
        .unwrap();
        optional(&mut line, "data", holder.data.as_ref());
    }
    if lock.waiters > 0 {
        let queue: Vec<String> = lock
            .queue
            .iter()
            .map(|waiter| format!("{}@{}", waiter.owner, waiter.asked_ms))
            .collect();
        write!(line, " waiters={} {}", lock.waiters, queue.join(",")).unwrap();
    }
    line
}

fn list(items: impl Iterator<Item = String>, next: &Option<String>) -> Vec<String> {
    let mut lines: Vec<String> = items.collect();
    match next {
        Some(next) => lines.push(format!("next {next}")),
        None => lines.push("end".to_owned()),
    }
    lines
}

/// Long texts are shown by their length.
fn quoted(text: &str) -> String {
    if text.len() > 100 {
        format!("({} bytes)", text.len())
    } else {
        format!("{text:?}")
    }
}

fn refused(Rejection { code, detail }: &Rejection) -> String {
    format!("refused {code:?}: {detail}")
}

fn optional(line: &mut String, name: &str, value: Option<impl std::fmt::Display>) {
    if let Some(value) = value {
        write!(line, " {name}={value}").unwrap();
    }
}

fn user(user: &User) -> String {
    let mut line = format!("user {} id={} rev={}", user.user, user.id, user.rev);
    optional(&mut line, "created_at", Some(user.created_at_ms));
    optional(
        &mut line,
        "display_name",
        Some(&user.display_name).filter(|name| **name != user.user),
    );
    optional(&mut line, "email", user.email.as_ref());
    optional(&mut line, "attributes", user.attributes.as_ref());
    line
}

fn room(room: &Room) -> String {
    let kind = match room.kind {
        RoomKind::Public => "public",
        RoomKind::Group => "group",
        RoomKind::Direct => "direct",
    };
    let mut line = format!(
        "room {} id={} {kind} rev={} by={}",
        room.room, room.id, room.rev, room.created_by
    );
    write!(
        line,
        " members={} seqs={}..{}",
        room.member_count, room.first_seq, room.last_seq
    )
    .unwrap();
    optional(&mut line, "created_at", Some(room.created_at_ms));
    optional(&mut line, "title", room.title.as_deref().map(quoted));
    optional(&mut line, "attributes", room.attributes.as_ref());
    line
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Member => "member",
        Role::Moderator => "moderator",
        Role::Owner => "owner",
    }
}

fn member(member: &Member) -> String {
    let Member {
        user,
        role: his,
        joined_at_ms,
        joined_seq,
        rev,
    } = member;
    format!(
        "{} {user} rev={rev} joined_at={joined_at_ms} joined_seq={joined_seq}",
        role(*his)
    )
}

fn message(message: &Message) -> String {
    let mut line = format!(
        "{} {} {}",
        message.seq,
        message.sender,
        message.text.as_deref().map_or("-".into(), quoted)
    );
    write!(line, " rev={} at={}", message.rev, message.sent_at_ms).unwrap();
    optional(&mut line, "kind", Some(&message.kind).filter(|kind| *kind != "text"));
    optional(&mut line, "client_id", message.client_id.as_ref());
    optional(&mut line, "reply_to", message.reply_to);
    optional(&mut line, "attributes", message.attributes.as_ref());
    optional(&mut line, "edited_at", message.edited_at_ms);
    optional(&mut line, "redacted_at", message.redacted_at_ms);
    line
}

fn event(event: &Event) -> String {
    let body = match &event.body {
        EventBody::Messages { first, last } => format!("messages {first}..{last}"),
        EventBody::Member { user, role: Some(his) } => format!("{user} is {}", role(*his)),
        EventBody::Member { user, role: None } => format!("{user} is gone"),
        EventBody::Room => "room changed".to_owned(),
        EventBody::RoomDeleted => "room deleted".to_owned(),
        EventBody::Edited { seq } => format!("{seq} edited"),
        EventBody::Redacted { seq } => format!("{seq} redacted"),
    };
    format!("room={} rev={} {body}", event.room, event.rev)
}
