//! One register as the general checker sees it.

/// Which text: a number for each.
pub(super) type Value = u32;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// 0: nothing was written.
    pub(super) rev: u64,
    pub(super) value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// The state is this one: once, before all others.
    Begin(State),
    Read(State),
    /// Whatever order explains the history, a write finds the rev of the write before it: revs only grow, and no
    /// write of the history is left out of the order. Saying so here keeps the search from trying all others.
    Write {
        after: u64,
        if_rev: Option<u64>,
        to: State,
    },
    /// A compare-and-set was told that the rev is another one.
    Refused {
        if_rev: u64,
    },
}

impl Op {
    /// The state behind a write.
    pub(super) fn written(&self) -> Option<State> {
        match self {
            Self::Write { to, .. } => Some(*to),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Model;

impl porcupine_rs::Model for Model {
    type State = State;
    type Op = Op;
    type Metadata = ();

    fn init() -> State {
        State::default()
    }

    fn step(state: &State, op: &Op) -> (bool, State) {
        match op {
            Op::Begin(begin) => (true, *begin),
            Op::Read(seen) => (seen == state, *state),
            Op::Write { after, if_rev, to } => {
                let is_met = if_rev.is_none_or(|rev| rev == state.rev);
                (is_met && *after == state.rev, *to)
            }
            Op::Refused { if_rev } => (*if_rev != state.rev, *state),
        }
    }
}
