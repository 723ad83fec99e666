//! Sending messages, by whichever door they come: what is wrong with them in themselves, the command that they
//! become, and what is answered when it was applied. `routes::messages` is the door of HTTP, `socket` the other.

use quorate_client::wire;
use quorate_state_machine::apply::Response as Done;
use quorate_state_machine::command::NewMessage;
use quorate_state_machine::{Command, Seq, fields};

use crate::app::unexpected_outcome;
use crate::checks;
use crate::problem::Problem;
use crate::time::{format_ms, parse_ms};

/// One message, or a batch that applies whole or not at all; none of it too large.
#[derive(Debug)]
pub(crate) struct Outgoing {
    messages: Vec<wire::BatchMessage>,
    batch: bool,
}

impl Outgoing {
    /// The 413s go before the 400s of all.
    pub(crate) fn one(message: wire::NewMessage) -> Result<Self, Problem> {
        let wire::NewMessage {
            text,
            client_id,
            kind,
            reply_to,
            attributes,
        } = message;
        let message = wire::BatchMessage {
            text,
            client_id,
            kind,
            reply_to,
            attributes,
            sender: None,
            sent_at: None,
        };
        size(&message)?;
        Ok(Self {
            messages: vec![message],
            batch: false,
        })
    }

    /// The same of many, and of how many there are.
    pub(crate) fn batch(messages: Vec<wire::BatchMessage>) -> Result<Self, Problem> {
        checks::batch_size(messages.len())?;
        messages.iter().try_for_each(size)?;
        Ok(Self { messages, batch: true })
    }

    /// The 400s of the messages.
    pub(crate) fn into_command(self, room: String) -> Result<Command, Problem> {
        Ok(Command::Send {
            room,
            messages: self.messages.into_iter().map(new_message).collect::<Result<_, _>>()?,
            batch: self.batch,
        })
    }
}

/// The answer to one message.
pub(crate) fn sent(done: &Done) -> Result<wire::Sent, Problem> {
    let Done::Sent {
        room,
        seq,
        rev,
        sent_at_ms,
        sender,
    } = done
    else {
        return Err(unexpected_outcome());
    };
    Ok(wire::Sent {
        room: room.clone(),
        seq: seq.0,
        rev: rev.0,
        sent_at: format_ms(*sent_at_ms),
        sender: sender.clone(),
        status: "committed".to_owned(),
    })
}

/// The answer to a batch.
pub(crate) fn sent_batch(done: &Done) -> Result<wire::SentBatch, Problem> {
    let Done::SentBatch { room, seqs, rev } = done else {
        return Err(unexpected_outcome());
    };
    // With messages that were there before, the seqs need not ascend.
    let (first, last) = (seqs.iter().min(), seqs.iter().max());
    let (Some(first), Some(last)) = (first, last) else {
        return Err(unexpected_outcome());
    };
    Ok(wire::SentBatch {
        room: room.clone(),
        first_seq: first.0,
        last_seq: last.0,
        seqs: seqs.iter().map(|seq| seq.0).collect(),
        rev: rev.0,
    })
}

/// The 413s of one message.
fn size(message: &wire::BatchMessage) -> Result<(), Problem> {
    checks::text(&message.text)?;
    message.attributes.as_ref().map_or(Ok(()), checks::attributes_size)
}

/// The 400s of one message.
fn new_message(message: wire::BatchMessage) -> Result<NewMessage, Problem> {
    let wire::BatchMessage {
        text,
        client_id,
        kind,
        reply_to,
        attributes,
        sender,
        sent_at,
    } = message;
    checks::optional(client_id.as_deref(), fields::client_id)?;
    checks::optional(kind.as_deref(), fields::kind)?;
    if let Some(sender) = &sender {
        checks::name("sender", sender)?;
    }
    reply_to.map_or(Ok(()), checks::reply_to)?;
    Ok(NewMessage {
        text,
        client_id,
        kind,
        reply_to: reply_to.map(Seq),
        attributes: attributes.as_ref().map(checks::attributes).transpose()?,
        sender,
        sent_at_ms: sent_at.as_deref().map(sent_at_ms).transpose()?,
    })
}

fn sent_at_ms(text: &str) -> Result<u64, Problem> {
    let ms = parse_ms(text)
        .and_then(|ms| u64::try_from(ms).ok())
        .ok_or_else(|| Problem::bad_request("sent_at must be a time since 1970 as RFC 3339 writes it"))?;
    fields::sent_at_ms(ms).map_err(Problem::refused)?;
    Ok(ms)
}
