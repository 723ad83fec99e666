//! A store in memory: what a replica is without log and network.

use quorate_state_machine::query::{Answered, QueryBody};
use quorate_state_machine::{
    Caller, Command, Conditions, EntryMeta, Envelope, Memory, Outcome, Overlay, Query, RowCache, SpaceId, apply, query,
    state_hash,
};

#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) memory: Memory,
    /// As on a node, one entry knows what those before it have read.
    cache: RowCache,
}

impl World {
    pub(crate) fn of(memory: Memory) -> Self {
        Self {
            memory,
            ..Self::default()
        }
    }

    /// Applies the commands as one entry: one overlay, one write.
    pub(crate) fn entry(&mut self, meta: EntryMeta, commands: &[Envelope]) -> Vec<Outcome> {
        let mut state = Overlay::with_cache(self.memory.snapshot(), std::mem::take(&mut self.cache));
        let outcomes = commands
            .iter()
            .map(|command| apply(&mut state, meta, command.clone()).unwrap())
            .collect();
        let (changes, cache) = state.into_changes_and_cache();
        self.memory.write(changes);
        self.cache = cache;
        outcomes
    }

    pub(crate) fn apply(&mut self, meta: EntryMeta, command: &Envelope) -> Outcome {
        self.entry(meta, std::slice::from_ref(command)).swap_remove(0)
    }

    pub(crate) fn query(&self, caller: Caller, body: QueryBody) -> Answered {
        query(
            &self.memory,
            &Query {
                space: SpaceId::MAIN,
                caller,
                body,
            },
        )
        .unwrap()
    }

    pub(crate) fn hash(&self) -> u128 {
        state_hash(&self.memory).unwrap()
    }
}

/// Of every user whom [`create_user`] makes.
pub(crate) const PASSWORD_HASH: &str = "hash";

/// The administrator's, without a key and without conditions.
pub(crate) fn root(command: Command) -> Envelope {
    Envelope {
        space: SpaceId::MAIN,
        caller: Caller::Root,
        request_id: String::new(),
        idempotency: None,
        conditions: Conditions::default(),
        command,
    }
}

pub(crate) fn create_user(user: &str) -> Envelope {
    root(Command::CreateUser {
        user: user.to_owned(),
        display_name: None,
        email: None,
        password_hash: Some(PASSWORD_HASH.to_owned()),
        attributes: None,
    })
}
