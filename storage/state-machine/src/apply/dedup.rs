//! Idempotency keys: what was decided under a key is answered again, for 24 hours of the replicated
//! clock. The scope of a key is its caller's id. A record holds references, never content; what
//! else an answer needs is in the command, which is the same when the fingerprint is.
//!
//! Not remembered: what is wrong in itself, an unknown caller, and the refusals of this table.

use super::outcome::Response;
use crate::command::{Command, Idempotency};
use crate::entity::{Member, Room, User};
use crate::ids::{FencingToken, Revision, Seq, SpaceId, UserId};
use crate::keys::{Group, Key};
use crate::limits::{DEDUP_RECORDS_MAX, DEDUP_SWEPT_MAX, DEDUP_TTL_MS};
use crate::read::{Reader, Who};
use crate::rejection::{Code, Fatal, Rejection};
use crate::rows::{Decided, DedupExpiryRow, DedupRow, LockNameRow, LockRow, RoomRow, Row, SystemRow, UserRow};
use crate::view::{Overlay, View};

/// What is known of a key.
pub(super) enum Found {
    /// Nothing: go on, and remember what is decided.
    New(Ticket),
    /// This was answered before.
    Before(Result<Response, Rejection>),
    /// The key cannot be used for this command, or not now.
    Refused(Rejection),
}

/// The right to write a record under a key.
pub(super) struct Ticket {
    caller: UserId,
    key: String,
    fingerprint: u128,
    /// An expired record that nobody has swept yet is under the key.
    replaces_ms: Option<u64>,
}

/// Looks the key up, for a caller and at the time that `system` holds.
pub(super) fn look_up<V: View>(
    state: &Overlay<V>,
    space: SpaceId,
    system: &SystemRow,
    who: &Who,
    idempotency: &Idempotency,
    command: &Command,
) -> Result<Found, Fatal> {
    let key = Key::Dedup {
        caller: who.id,
        key: &idempotency.key,
    }
    .encode(space);
    let record = state
        .get_once(&key)?
        .map(|bytes| DedupRow::from_bytes(&bytes))
        .transpose()?;
    if let Some(record) = &record
        && record.expires_ms > system.elapsed_ms
    {
        if record.fingerprint != idempotency.fingerprint {
            let detail = "the Idempotency-Key was used with another request";
            return Ok(Found::Refused(Rejection::new(Code::IdempotencyMismatch, detail)));
        }
        let read = Reader { view: state, space };
        let again = answer_again(&read, who, command, record.decided.clone(), system.elapsed_ms)?;
        return Ok(Found::Before(again));
    }
    let sweepable = system.dedup_oldest_ms.is_some_and(|oldest| oldest <= system.elapsed_ms);
    if system.dedup_records >= DEDUP_RECORDS_MAX && record.is_none() && !sweepable {
        let detail = "too many idempotency keys of the last 24 hours are remembered";
        return Ok(Found::Refused(Rejection::new(Code::RateLimited, detail)));
    }
    Ok(Found::New(Ticket {
        caller: who.id,
        key: idempotency.key.clone(),
        fingerprint: idempotency.fingerprint,
        replaces_ms: record.map(|record| record.expires_ms),
    }))
}

/// What tells apart commands whose answers are of the same type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Update,
    Renewal,
    Other,
}

impl Kept {
    pub(super) fn of(command: &Command) -> Self {
        match command {
            Command::UpdateUser { .. } | Command::UpdateRoom { .. } => Kept::Update,
            Command::RenewLock { .. } => Kept::Renewal,
            _ => Kept::Other,
        }
    }
}

/// What a record keeps of an answer.
pub(super) fn decided(response: Result<&Response, &Rejection>, command: Kept, now_ms: u64) -> Decided {
    let update = command == Kept::Update;
    match response {
        Ok(Response::User(User { id, rev, .. })) if update => Decided::UserUpdated { id: *id, rev: *rev },
        Ok(Response::User(User {
            id, rev, created_at_ms, ..
        })) => Decided::UserCreated {
            id: *id,
            rev: *rev,
            at_ms: *created_at_ms,
        },
        Ok(Response::Room(Room { id, rev, .. })) if update => Decided::RoomUpdated { id: *id, rev: *rev },
        Ok(Response::Room(Room {
            id,
            rev,
            created_at_ms,
            member_count,
            ..
        })) => Decided::RoomCreated {
            id: *id,
            rev: *rev,
            at_ms: *created_at_ms,
            members: *member_count,
        },
        Ok(Response::Member { member, created }) => Decided::Member {
            role: member.role,
            joined_at_ms: member.joined_at_ms,
            joined_seq: member.joined_seq,
            rev: member.rev,
            created: *created,
        },
        Ok(Response::Deleted) => Decided::Deleted,
        Ok(Response::Sent {
            seq, rev, sent_at_ms, ..
        }) => Decided::Sent {
            seq: *seq,
            rev: *rev,
            sent_at_ms: *sent_at_ms,
        },
        Ok(Response::SentBatch { seqs, rev, .. }) => Decided::SentBatch {
            runs: runs(seqs),
            rev: *rev,
        },
        Ok(Response::VersionRaised { .. }) => Decided::VersionRaised,
        Ok(Response::Message(message)) => Decided::MessageEdited { rev: message.rev },
        Ok(Response::LockWaiting { lock, since }) => Decided::LockWaiting {
            lock: *lock,
            since: *since,
        },
        Ok(Response::LockHeld {
            owner,
            token,
            expires_in_ms,
        }) => {
            let (token, expires_ms) = (*token, now_ms.saturating_add(*expires_in_ms));
            match command {
                Kept::Renewal => Decided::LockRenewed {
                    owner: owner.clone(),
                    token,
                    expires_ms,
                },
                Kept::Update | Kept::Other => Decided::LockGranted { token, expires_ms },
            }
        }
        Ok(Response::SessionCreated { .. } | Response::Swept { .. }) => {
            unreachable!("a key with one of these commands is refused")
        }
        Err(rejection) => Decided::Refused(rejection.clone()),
    }
}

/// The answer, from what was decided and the command that comes again. Only the answer to a PATCH
/// is the entity as it is now, because what it was is not kept; gone, it is not found.
fn answer_again<V: View + ?Sized>(
    read: &Reader<'_, V>,
    who: &Who,
    command: &Command,
    decided: Decided,
    now_ms: u64,
) -> Result<Result<Response, Rejection>, Fatal> {
    let response = match (decided, command) {
        (Decided::Refused(rejection), _) => return Ok(Err(rejection)),
        (Decided::Deleted, _) => Response::Deleted,
        (
            Decided::UserCreated { id, rev, at_ms },
            Command::CreateUser {
                user,
                display_name,
                email,
                attributes,
                ..
            },
        ) => Response::User(User {
            user: user.clone(),
            id,
            display_name: display_name.as_ref().unwrap_or(user).clone(),
            email: email.clone(),
            attributes: attributes.clone(),
            created_at_ms: at_ms,
            rev,
        }),
        (
            Decided::RoomCreated {
                id,
                rev,
                at_ms,
                members,
            },
            Command::CreateRoom {
                room,
                kind,
                title,
                attributes,
                ..
            },
        ) => Response::Room(Room {
            room: room.clone(),
            id,
            kind: *kind,
            title: title.clone(),
            attributes: attributes.clone(),
            created_at_ms: at_ms,
            created_by: who.name.clone(),
            first_seq: Seq(0),
            last_seq: Seq(0),
            member_count: members,
            rev,
        }),
        (Decided::UserUpdated { id, rev }, Command::UpdateUser { .. }) => match read.row(Key::User { user: id })? {
            Some(row) => Response::User(UserRow::entity(row, id)),
            None => return Ok(Err(gone("user", rev))),
        },
        (Decided::RoomUpdated { id, rev }, Command::UpdateRoom { .. }) => match read.row(Key::Room { room: id })? {
            Some(row) => Response::Room(RoomRow::entity(row, id, &read.tail(id)?)),
            None => return Ok(Err(gone("room", rev))),
        },
        (
            Decided::Member {
                role,
                joined_at_ms,
                joined_seq,
                rev,
                created,
            },
            Command::PutMember { user, .. },
        ) => {
            let member = Member {
                user: user.clone(),
                role,
                joined_at_ms,
                joined_seq,
                rev,
            };
            Response::Member { member, created }
        }
        (Decided::Sent { seq, rev, sent_at_ms }, Command::Send { room, messages, .. }) => Response::Sent {
            room: room.clone(),
            seq,
            rev,
            sent_at_ms,
            sender: messages
                .first()
                .and_then(|message| message.sender.as_ref())
                .unwrap_or(&who.name)
                .clone(),
        },
        (Decided::SentBatch { runs, rev }, Command::Send { room, .. }) => {
            let seqs = runs
                .iter()
                .flat_map(|(first, count)| (first.0..first.0 + count).map(Seq))
                .collect();
            Response::SentBatch {
                room: room.clone(),
                seqs,
                rev,
            }
        }
        (Decided::VersionRaised, Command::RaiseVersion { to }) => Response::VersionRaised { version: *to },
        (Decided::MessageEdited { rev }, Command::EditMessage { room, seq, .. }) => {
            match read.message_named(room, *seq, rev)? {
                Some(message) => Response::Message(Box::new(message)),
                None => return Ok(Err(gone("message", rev))),
            }
        }
        (Decided::LockWaiting { lock, since }, Command::AcquireLock { .. }) => Response::LockWaiting { lock, since },
        (Decided::LockGranted { token, .. }, Command::AcquireLock { lock, owner, .. }) => Response::LockHeld {
            owner: owner.clone(),
            token,
            expires_in_ms: left_of(read, lock, token, now_ms)?,
        },
        (Decided::LockRenewed { owner, token, .. }, Command::RenewLock { lock, .. }) => Response::LockHeld {
            owner,
            token,
            expires_in_ms: left_of(read, lock, token, now_ms)?,
        },
        // The fingerprint is a hash: another command under the same one is as good as impossible.
        (_, _) => {
            let detail = "the Idempotency-Key was used with another request";
            return Ok(Err(Rejection::new(Code::IdempotencyMismatch, detail)));
        }
    };
    Ok(Ok(response))
}

/// What is left of a grant: nothing, if the lock has another holder or none. The time that was decided says too
/// much: the lock may have been given back since, by the node at which nobody waited any more, and its holder
/// would believe that he has it.
fn left_of<V: View + ?Sized>(read: &Reader<'_, V>, name: &str, token: FencingToken, now_ms: u64) -> Result<u64, Fatal> {
    let Some(LockNameRow { lock }) = read.row(Key::LockName { name })? else {
        return Ok(0);
    };
    let row: LockRow = read.must(Key::Lock { lock })?;
    let holder = row.holder.filter(|holder| holder.token == token);
    Ok(holder.map_or(0, |holder| holder.expires_ms.saturating_sub(now_ms)))
}

fn gone(what: &str, rev: Revision) -> Rejection {
    Rejection::new(
        Code::NotFound,
        format!("the {what} was changed at revision {rev} and is gone since"),
    )
}

/// Seqs as runs of neighbours.
fn runs(seqs: &[Seq]) -> Vec<(Seq, u64)> {
    let mut runs: Vec<(Seq, u64)> = Vec::new();
    for seq in seqs {
        match runs.last_mut() {
            Some((first, count)) if first.0 + *count == seq.0 => *count += 1,
            _ => runs.push((*seq, 1)),
        }
    }
    runs
}

/// What was left open when the record was written has been decided. Nothing, if the record has expired.
pub(super) fn decide_later<V: View>(
    state: &mut Overlay<V>,
    space: SpaceId,
    caller: UserId,
    key: &str,
    open: &Decided,
    decided: Decided,
) -> Result<(), Fatal> {
    let place = Key::Dedup { caller, key }.encode(space);
    let record = state.get_once(&place)?.map(|bytes| DedupRow::from_bytes(&bytes));
    if let Some(record) = record.transpose()?
        && record.decided == *open
    {
        state.put(place, DedupRow { decided, ..record }.to_bytes());
    }
    Ok(())
}

/// Forgets some of what has expired: a bounded number, and without a scan when there is nothing.
pub(super) fn sweep<V: View>(state: &mut Overlay<V>, space: SpaceId, system: &mut SystemRow) -> Result<(), Fatal> {
    let Some(oldest_ms) = system.dedup_oldest_ms.filter(|oldest| *oldest <= system.elapsed_ms) else {
        return Ok(());
    };
    // From the oldest on, not from the beginning, which is full of deleted rows.
    let from = Key::DedupExpiry {
        expires_ms: oldest_ms,
        caller: UserId::ROOT,
        key: "",
    }
    .encode(space);
    let to = Group::DedupExpiries.range(space).end;
    let queue = state.scan(&from, &to, false, DEDUP_SWEPT_MAX + 1)?;
    system.dedup_oldest_ms = None;
    for (n, (place, _)) in queue.into_iter().enumerate() {
        let Some((
            _,
            Key::DedupExpiry {
                expires_ms,
                caller,
                key,
            },
        )) = Key::decode(&place)
        else {
            return Err(Fatal::Corrupt("a key in the queue of expiry is none".to_owned()));
        };
        if expires_ms > system.elapsed_ms || n == DEDUP_SWEPT_MAX {
            system.dedup_oldest_ms = Some(expires_ms);
            break;
        }
        state.delete(Key::Dedup { caller, key }.encode(space));
        state.delete(place);
        system.dedup_records -= 1;
    }
    Ok(())
}

/// Writes the record. Its place in the queue is behind all others, because the clock only grows.
pub(super) fn remember<V: View>(
    state: &mut Overlay<V>,
    space: SpaceId,
    system: &mut SystemRow,
    ticket: Ticket,
    decided: Decided,
) -> Result<(), Fatal> {
    let Ticket {
        caller,
        key,
        fingerprint,
        replaces_ms,
    } = ticket;
    let record = Key::Dedup { caller, key: &key }.encode(space);
    if let Some(expires_ms) = replaces_ms {
        // The sweep of this command may have been there already; then it has counted.
        let place = Key::DedupExpiry {
            expires_ms,
            caller,
            key: &key,
        }
        .encode(space);
        if state.get_once(&place)?.is_some() {
            state.delete(place);
            system.dedup_records -= 1;
        }
    }
    let expires_ms = system.elapsed_ms.saturating_add(DEDUP_TTL_MS);
    state.put(
        record,
        DedupRow {
            fingerprint,
            expires_ms,
            decided,
        }
        .to_bytes(),
    );
    state.put(
        Key::DedupExpiry {
            expires_ms,
            caller,
            key: &key,
        }
        .encode(space),
        DedupExpiryRow {}.to_bytes(),
    );
    system.dedup_records += 1;
    system.dedup_oldest_ms.get_or_insert(expires_ms);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Caller, Conditions, EntryMeta, Envelope};
    use crate::memory::Memory;

    fn keyed(key: &str) -> Envelope {
        Envelope {
            space: SpaceId::MAIN,
            caller: Caller::Root,
            request_id: String::new(),
            idempotency: Some(Idempotency {
                key: key.to_owned(),
                fingerprint: 0,
            }),
            conditions: Conditions::default(),
            // Refused, and remembered.
            command: Command::DeleteUser {
                user: "nobody".to_owned(),
            },
        }
    }

    fn apply(memory: &mut Memory, elapsed_ms: u64, key: &str) -> super::super::Outcome {
        let mut state = Overlay::new(memory.snapshot());
        let outcome = super::super::apply(&mut state, EntryMeta { elapsed_ms, wall_ms: 0 }, keyed(key)).unwrap();
        let changes = state.into_changes();
        memory.write(changes);
        outcome
    }

    fn system(memory: &Memory) -> SystemRow {
        Reader {
            view: memory,
            space: SpaceId::MAIN,
        }
        .system()
        .unwrap()
    }

    /// The counters are what a scan would find, however keys come, expire and come again, many of
    /// them in the same millisecond.
    #[test]
    fn counters_are_what_is_there() {
        let mut memory = Memory::new();
        // A linear congruential generator: all that is needed is variety.
        let mut random = 1u64;
        let mut next = |bound: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let (mut elapsed_ms, mut swept, mut renewed) = (0, false, false);
        for _ in 0..2000 {
            match next(20) {
                0 => elapsed_ms += DEDUP_TTL_MS / 2,
                1..5 => elapsed_ms += next(2) * 1000,
                _ => {}
            }
            let before = system(&memory).dedup_records;
            let outcome = apply(&mut memory, elapsed_ms, &next(40).to_string());
            let system = system(&memory);
            swept |= system.dedup_records < before;
            renewed |= !outcome.replayed && system.dedup_records == before;

            let mut records = 0;
            let mut queue = Vec::new();
            for (key, _) in memory.snapshot().iter() {
                match Key::decode(key).unwrap().1 {
                    Key::Dedup { .. } => records += 1,
                    Key::DedupExpiry { expires_ms, .. } => queue.push(expires_ms),
                    _ => {}
                }
            }
            assert_eq!(
                (system.dedup_records, system.dedup_records),
                (records, queue.len() as u64)
            );
            assert!(
                system.dedup_oldest_ms.is_some_and(|oldest| oldest <= queue[0]),
                "{system:?} {queue:?}"
            );
        }
        assert!(swept && renewed, "the test meets what it is for");
    }

    #[test]
    fn a_full_table_refuses_new_keys_until_something_expires() {
        let mut memory = Memory::new();
        apply(&mut memory, 0, "old");
        let mut full = system(&memory);
        full.dedup_records = DEDUP_RECORDS_MAX;
        memory.write(vec![crate::view::Change::Put {
            key: Key::System.encode(SpaceId::MAIN),
            value: full.to_bytes(),
        }]);
        let before = memory.clone();
        let refused = apply(&mut memory, 1, "new");
        assert_eq!(refused.response.unwrap_err().code, Code::RateLimited);
        assert!(memory == before);
        // What is remembered is answered, and at its time makes room.
        assert!(apply(&mut memory, DEDUP_TTL_MS - 1, "old").replayed);
        assert!(memory == before);
        let outcome = apply(&mut memory, DEDUP_TTL_MS, "new");
        assert_eq!(outcome.response.unwrap_err().code, Code::NotFound);
        assert_eq!(system(&memory).dedup_records, DEDUP_RECORDS_MAX);
        assert!(apply(&mut memory, DEDUP_TTL_MS, "new").replayed);
    }

    #[test]
    fn neighbours_make_a_run() {
        let seqs = |numbers: &[u64]| numbers.iter().copied().map(Seq).collect::<Vec<_>>();
        assert_eq!(runs(&seqs(&[1, 2, 3])), [(Seq(1), 3)]);
        assert_eq!(
            runs(&seqs(&[4, 6, 5, 7, 8, 8])),
            [(Seq(4), 1), (Seq(6), 1), (Seq(5), 1), (Seq(7), 2), (Seq(8), 1)]
        );
    }
}
