//! Runs the scenarios in `tests/scripts`. A file is a comment that says why, and blocks: commands,
//! `---`, and what they answered, each line after the number of its command. `UPDATE_SCRIPTS=1`
//! writes down what was answered; read the difference before you keep it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use quorate_state_machine::apply::Response;
use quorate_state_machine::command::{Idempotency, IfLock, NewMessage, Patch};
use quorate_state_machine::keys::Key;
use quorate_state_machine::query::{Page, QueryBody, RoomCursor, standing};
use quorate_state_machine::{
    Answer, Caller, Command, Conditions, EntryMeta, Envelope, FencingToken, Home, LockId, Revision, Role, RoomKind,
    RunId, Seq, SpaceId, TokenHash, WaiterId,
};

use crate::line::{Line, Part};
use crate::show;
use crate::world::World;

#[test]
fn scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut differences = String::new();
    for file in files {
        let expected = std::fs::read_to_string(&file).unwrap();
        assert!(
            expected.starts_with("# "),
            "{}: the first line says why",
            file.display()
        );
        let found = run(&expected);
        if found == expected {
            continue;
        }
        if std::env::var_os("UPDATE_SCRIPTS").is_some() {
            std::fs::write(&file, found).unwrap();
        } else {
            write!(differences, "\n{}:\n{}", file.display(), difference(&expected, &found)).unwrap();
        }
    }
    assert!(
        differences.is_empty(),
        "scripts differ (UPDATE_SCRIPTS=1 writes what was answered):{differences}"
    );
}

/// The script with what was answered now.
fn run(script: &str) -> String {
    let mut runner = Runner::default();
    let mut out = String::new();
    let mut commands: Vec<String> = Vec::new();
    let mut in_answers = false;
    for line in script.lines().chain([""]) {
        if in_answers {
            in_answers = !line.is_empty();
            if in_answers {
                continue;
            }
        }
        if line == "---" {
            out.push_str("---\n");
            for (n, command) in commands.drain(..).enumerate() {
                for answer in runner.line(&command) {
                    writeln!(out, "{} {answer}", n + 1).unwrap();
                }
            }
            in_answers = true;
            continue;
        }
        if !line.is_empty() && !line.starts_with('#') {
            commands.push(line.to_owned());
        }
        writeln!(out, "{line}").unwrap();
    }
    assert!(commands.is_empty(), "commands without --- at the end: {commands:?}");
    // The empty line that ended the last block is not one of the file's.
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn difference(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let same = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let same_end = expected[same..]
        .iter()
        .rev()
        .zip(found[same..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let mut out = format!("from line {}\n", same + 1);
    for line in &expected[same..expected.len() - same_end] {
        writeln!(out, "- {line}").unwrap();
    }
    for line in &found[same..found.len() - same_end] {
        writeln!(out, "+ {line}").unwrap();
    }
    out
}

#[derive(Default)]
struct Runner {
    world: World,
    /// Stays until a line says `at=` or `wall=` again. Without `wall=` both clocks agree.
    meta: EntryMeta,
    wall_apart: bool,
    /// The tokens that were granted for a lock, in their order.
    tokens: BTreeMap<String, Vec<FencingToken>>,
    /// Who began to wait for a lock, by lock and owner.
    waits: BTreeMap<(String, String), (LockId, Revision)>,
}

impl Runner {
    fn line(&mut self, text: &str) -> Vec<String> {
        let mut line = Line::parse(text);
        let caller = match line.caller.take() {
            None => Caller::Root,
            // `@!7` asks with the session of token 7.
            Some(name) => match name.strip_prefix('!') {
                Some(token) => Caller::Session(token_hash(token)),
                None => Caller::User(name),
            },
        };
        let mut part = line.parts.remove(0);
        self.clocks(&mut part);
        if line.verb == "keys" {
            return self.keys();
        }
        if line.verb == "standing" {
            return vec![self.standing()];
        }
        if line.verb == "wait-of" {
            let (lock, since) = self.waits[&(word(&mut part), word(&mut part))];
            done(text, &[part]);
            let body = QueryBody::LockWait { lock, since };
            return show::answer(&self.world.query(caller, body));
        }
        if let Some(body) = query(&line.verb, &mut part) {
            done(text, &[part]);
            return show::answer(&self.world.query(caller, body));
        }
        let with_events = part.take("events").is_some();
        let (idempotency, conditions) = (idempotency(text, &mut part), self.conditions(&mut part));
        let command = match line.verb.as_str() {
            "renew" | "release" => self.token_command(&line.verb, &mut part),
            verb => command(verb, &mut part, &mut line.parts),
        };
        line.parts.push(part);
        done(text, &line.parts);
        let envelope = Envelope {
            space: SpaceId::MAIN,
            caller,
            request_id: String::new(),
            idempotency,
            conditions,
            command,
        };
        self.command(&envelope, with_events)
    }

    fn clocks(&mut self, part: &mut Part) {
        if let Some(wall_ms) = part.number("wall") {
            self.meta.wall_ms = wall_ms;
            self.wall_apart = true;
        }
        if let Some(elapsed_ms) = part.number("at") {
            self.meta.elapsed_ms = elapsed_ms;
            if !self.wall_apart {
                self.meta.wall_ms = elapsed_ms;
            }
        }
    }

    /// Every command of every script also shows the rule of revisions.
    fn command(&mut self, envelope: &Envelope, with_events: bool) -> Vec<String> {
        let before = (
            self.world.clone(),
            self.world.query(Caller::Root, QueryBody::Position).revision,
        );
        let outcome = self.world.apply(self.meta, envelope);
        if let Command::AcquireLock { lock, owner, .. } = &envelope.command
            && let Ok(Response::LockWaiting { lock: id, since }) = outcome.response
        {
            self.waits.insert((lock.clone(), owner.clone()), (id, since));
        }
        let same = self.world.memory == before.0.memory;
        if outcome.revision == before.1 {
            assert!(
                outcome.events.is_empty(),
                "{envelope:?} told something but changed nothing"
            );
            // The cluster version, and when to look for what expires, is about the store itself: clients see
            // no change.
            let unseen = matches!(envelope.command, Command::RaiseVersion { .. } | Command::Tick);
            assert!(
                same || envelope.idempotency.is_some() || unseen,
                "{envelope:?} changed something without a revision"
            );
        } else {
            assert_eq!(outcome.revision.0, before.1.0 + 1, "{envelope:?}");
            assert!(outcome.response.is_ok() && !outcome.replayed, "{envelope:?}");
        }
        self.note_tokens();
        show::outcome(&outcome, with_events)
    }

    /// `#1` is the first token that was ever granted for the lock, `#2` the second.
    fn token(&self, lock: &str, text: &str) -> FencingToken {
        let place: usize = text
            .strip_prefix('#')
            .unwrap_or_else(|| panic!("{text} is no token"))
            .parse()
            .unwrap();
        let granted = self.tokens.get(lock).and_then(|tokens| tokens.get(place - 1));
        // One that was never granted is a wrong one.
        granted.copied().unwrap_or(FencingToken(1))
    }

    fn token_command(&self, verb: &str, part: &mut Part) -> Command {
        let lock = word(part);
        let token = self.token(&lock, &word(part));
        match verb {
            "renew" => Command::RenewLock {
                lock,
                token,
                ttl_ms: part.number("ttl"),
            },
            _ => Command::ReleaseLock { lock, token },
        }
    }

    fn conditions(&self, part: &mut Part) -> Conditions {
        Conditions {
            if_match: part.number("if_match").map(Revision),
            if_none_match: part.take("if_none_match").is_some(),
            if_lock: part.take("if_lock").map(|value| {
                let (name, token) = value.split_once(';').unwrap();
                IfLock {
                    name: name.to_owned(),
                    token: self.token(name, token),
                }
            }),
        }
    }

    /// Looks at all locks: which tokens are new.
    fn note_tokens(&mut self) {
        let body = QueryBody::Locks {
            after: None,
            limit: 500,
        };
        let Ok(Answer::Locks { locks, .. }) = self.world.query(Caller::Root, body).answer else {
            panic!("there is a list of locks");
        };
        for lock in locks {
            let tokens = self.tokens.entry(lock.lock).or_default();
            if tokens.last() != Some(&lock.last_token) {
                assert!(tokens.last() < Some(&lock.last_token), "tokens only grow");
                tokens.push(lock.last_token);
            }
        }
    }

    fn standing(&self) -> String {
        let view = self.world.memory.snapshot();
        let standing = standing(&view, SpaceId::MAIN).unwrap();
        format!("revision={} version={}", standing.revision, standing.version)
    }

    fn keys(&self) -> Vec<String> {
        let view = self.world.memory.snapshot();
        view.iter()
            .map(|(key, _)| format!("{:?}", Key::decode(key).unwrap().1))
            .collect()
    }
}

fn done(text: &str, parts: &[Part]) {
    assert!(
        parts.iter().all(|part| part.words.is_empty() && part.named.is_empty()),
        "too much in {text}: {parts:?}"
    );
}

fn word(part: &mut Part) -> String {
    part.words.remove(0)
}

/// The fingerprint is that of the line without caller, clocks, key and what the node adds, unless it is given.
fn idempotency(text: &str, part: &mut Part) -> Option<Idempotency> {
    let key = part.take("key")?;
    let fingerprint = match part.number("fingerprint") {
        Some(number) => u128::from(number),
        None => text
            .split_whitespace()
            .filter(|word| {
                !["@", "at=", "wall=", "key=", "waiter=", "node=", "run="]
                    .iter()
                    .any(|other| word.starts_with(other))
            })
            .flat_map(str::bytes)
            .fold(1, |sum: u128, byte| {
                sum.wrapping_mul(257).wrapping_add(u128::from(byte))
            }),
    };
    Some(Idempotency { key, fingerprint })
}

/// `-` removes.
fn patch(part: &mut Part, name: &str) -> Patch<String> {
    match part.take(name) {
        None => Patch::Keep,
        Some(value) if value == "-" => Patch::Remove,
        Some(value) => Patch::Set(value),
    }
}

fn names(part: &mut Part, name: &str) -> Vec<String> {
    part.take(name)
        .map(|names| names.split(',').map(str::to_owned).collect())
        .unwrap_or_default()
}

fn command(verb: &str, part: &mut Part, more: &mut [Part]) -> Command {
    match verb {
        "create-user" => Command::CreateUser {
            user: word(part),
            display_name: part.take("display_name"),
            email: part.take("email"),
            password_hash: part.take("password_hash"),
            attributes: part.take("attributes"),
        },
        "update-user" => Command::UpdateUser {
            user: word(part),
            display_name: patch(part, "display_name"),
            email: patch(part, "email"),
            password_hash: patch(part, "password_hash"),
            attributes: patch(part, "attributes"),
        },
        "delete-user" => Command::DeleteUser { user: word(part) },
        "create-room" => Command::CreateRoom {
            room: word(part),
            kind: match word(part).as_str() {
                "public" => RoomKind::Public,
                "group" => RoomKind::Group,
                "direct" => RoomKind::Direct,
                other => panic!("{other} is no kind of room"),
            },
            title: part.take("title"),
            members: names(part, "members"),
            attributes: part.take("attributes"),
        },
        "update-room" => Command::UpdateRoom {
            room: word(part),
            title: patch(part, "title"),
            attributes: patch(part, "attributes"),
        },
        "delete-room" => Command::DeleteRoom { room: word(part) },
        "put-member" => Command::PutMember {
            room: word(part),
            user: word(part),
            role: part.take("role").map(|role| match role.as_str() {
                "member" => Role::Member,
                "moderator" => Role::Moderator,
                "owner" => Role::Owner,
                other => panic!("{other} is no role"),
            }),
        },
        "remove-member" => Command::RemoveMember {
            room: word(part),
            user: word(part),
        },
        "raise-version" => Command::RaiseVersion {
            to: word(part).parse().unwrap(),
        },
        "edit" => Command::EditMessage {
            room: word(part),
            seq: Seq(word(part).parse().unwrap()),
            text: word(part),
        },
        "redact" => Command::RedactMessage {
            room: word(part),
            seq: Seq(word(part).parse().unwrap()),
        },
        "sign-in" => Command::CreateSession {
            user: word(part),
            token: token_hash(&word(part)),
            password_hash: part.take("password_hash").unwrap_or_else(|| "hash".to_owned()),
            device: part.take("device"),
            ttl_ms: part.number("ttl").unwrap_or(10_000),
        },
        "sign-out" => Command::EndSession,
        "lock" => Command::AcquireLock {
            lock: word(part),
            owner: word(part),
            ttl_ms: part.number("ttl").unwrap_or(5000),
            wait_ms: part.number("wait").unwrap_or(0),
            data: part.take("data"),
            waiter: WaiterId(u128::from(part.number("waiter").unwrap_or(0))),
            home: Home {
                node: part.number("node").unwrap_or(1),
                run: RunId(u128::from(part.number("run").unwrap_or(1))),
            },
        },
        "abandon" => Command::AbandonLock {
            lock: word(part),
            waiter: WaiterId(word(part).parse().unwrap()),
            since: None,
        },
        "drop-waiters" => Command::DropWaiters {
            node: word(part).parse().unwrap(),
            except: part.number("except").map(|run| RunId(u128::from(run))),
        },
        "tick" => Command::Tick,
        "send" => Command::Send {
            room: word(part),
            messages: vec![message(part)],
            batch: false,
        },
        "batch" => {
            let room = word(part);
            let times = part.number("times").unwrap_or(1) as usize;
            let mut messages = Vec::new();
            if !part.words.is_empty() {
                messages.push(message(part));
            }
            messages.extend(more.iter_mut().map(message));
            let count = messages.len() * times;
            Command::Send {
                room,
                messages: messages.into_iter().cycle().take(count).collect(),
                batch: true,
            }
        }
        other => panic!("{other} is no verb"),
    }
}

fn token_hash(text: &str) -> TokenHash {
    let mut hash = [0; 32];
    hash[31] = text.parse().unwrap();
    TokenHash(hash)
}

fn message(part: &mut Part) -> NewMessage {
    NewMessage {
        text: word(part),
        client_id: part.take("client_id"),
        kind: part.take("kind"),
        reply_to: part.number("reply_to").map(Seq),
        attributes: part.take("attributes"),
        sender: part.take("sender"),
        sent_at_ms: part.number("sent_at"),
    }
}

fn query(verb: &str, part: &mut Part) -> Option<QueryBody> {
    let mut limit = || part.number("limit").unwrap_or(50) as u32;
    Some(match verb {
        "users" => QueryBody::Users {
            limit: limit(),
            after: part.take("after"),
        },
        "rooms" => QueryBody::Rooms {
            limit: limit(),
            after: part.take("after"),
        },
        "members" => QueryBody::Members {
            limit: limit(),
            room: word(part),
            after: part.take("after"),
        },
        "get-user" => QueryBody::User { user: word(part) },
        "get-room" => QueryBody::Room { room: word(part) },
        "get-message" => QueryBody::Message {
            room: word(part),
            seq: Seq(word(part).parse().unwrap()),
        },
        "history" => {
            let limit = limit();
            let room = word(part);
            let from = if let Some(seq) = part.number("after") {
                Page::After(Seq(seq))
            } else if let Some(seq) = part.number("before") {
                Page::Before(Seq(seq))
            } else if let Some(seq) = part.number("around") {
                Page::Around(Seq(seq))
            } else if let Some(time_ms) = part.number("time") {
                Page::At(time_ms)
            } else {
                Page::Newest
            };
            QueryBody::Messages { room, from, limit }
        }
        "changes" => {
            let limit = limit();
            let room = word(part);
            let after = if let Some(seq) = part.number("after_seq") {
                RoomCursor::AfterSeq(Seq(seq))
            } else if let Some(position) = part.take("after") {
                RoomCursor::After(position.parse().unwrap())
            } else {
                RoomCursor::Now
            };
            QueryBody::RoomChanges { room, after, limit }
        }
        "position" => QueryBody::Position,
        "who-am-i" => QueryBody::Caller,
        "revisions" => QueryBody::MessageRevisions {
            limit: limit(),
            room: word(part),
            seq: Seq(word(part).parse().unwrap()),
            after: part.number("after").map(Revision),
        },
        "credentials" => QueryBody::Credentials { user: word(part) },
        "get-lock" => QueryBody::Lock { lock: word(part) },
        "locks" => QueryBody::Locks {
            limit: limit(),
            after: part.take("after"),
        },
        _ => return None,
    })
}
