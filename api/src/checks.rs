//! The state machine's own rules for names and fields, asked before anything is proposed, so that
//! bad input costs no log entry. Apply asks them again.

use quorate_client::wire::schema::NUMBER_MAX;
use quorate_client::wire::{Attributes, NewNode};
use quorate_state_machine::limits::{BATCH_MESSAGES_MAX, NEW_ROOM_MEMBERS_MAX};
use quorate_state_machine::{Code, Rejection, fields, names};
use serde_json::Value;

use crate::address::{NODE_ID_MAX, authority, check_client_url, check_peer_addr};
use crate::problem::Problem;

/// A name in `what`, for example `room`.
pub(crate) fn name(what: &str, name: &str) -> Result<(), Problem> {
    names::check(what, name).map_err(Problem::refused)
}

/// A field that may be absent.
pub(crate) fn optional(value: Option<&str>, check: impl FnOnce(&str) -> Result<(), Rejection>) -> Result<(), Problem> {
    value.map_or(Ok(()), |value| check(value).map_err(Problem::refused))
}

pub(crate) fn text(text: &str) -> Result<(), Problem> {
    fields::text(text).map_err(Problem::refused)
}

/// A seq in a body, as every number of the contract.
pub(crate) fn reply_to(seq: u64) -> Result<(), Problem> {
    if seq > NUMBER_MAX {
        return Err(Problem::bad_request("reply_to: a number stays below 2^53"));
    }
    Ok(())
}

/// Messages of a batch: none is a mistake, too many is a matter of size.
pub(crate) fn batch_size(messages: usize) -> Result<(), Problem> {
    if messages > BATCH_MESSAGES_MAX {
        return Err(Problem::too_large(format!(
            "a batch has at most {BATCH_MESSAGES_MAX} messages, this one has {messages}"
        )));
    }
    if messages == 0 {
        return Err(Problem::bad_request("a batch has at least one message"));
    }
    Ok(())
}

pub(crate) fn new_room_members(members: &[String]) -> Result<(), Problem> {
    if members.len() > NEW_ROOM_MEMBERS_MAX {
        return Err(Problem::too_large(format!(
            "a room is created with at most {NEW_ROOM_MEMBERS_MAX} members, these are {}",
            members.len()
        )));
    }
    members.iter().try_for_each(|member| name("members", member))
}

pub(crate) fn new_node(node: &NewNode) -> Result<(), Problem> {
    node_id("id", node.id)?;
    node.replaces.map_or(Ok(()), |old| node_id("replaces", old))?;
    if node.replaces == Some(node.id) {
        return Err(Problem::bad_request(
            "replaces: a node takes the place of another, not its own",
        ));
    }
    check_client_url(&node.client_url).map_err(|why| Problem::bad_request(format!("client_url: {why}")))?;
    check_peer_addr(&node.peer_addr).map_err(|why| Problem::bad_request(format!("peer_addr: {why}")))?;
    // Clients and peers have separate listeners.
    if authority(&node.client_url) == Some(&node.peer_addr) {
        return Err(Problem::bad_request("client_url and peer_addr name the same listener"));
    }
    Ok(())
}

/// A node's id in the field `what`.
pub(crate) fn node_id(what: &str, id: u64) -> Result<(), Problem> {
    if id == 0 || id > NODE_ID_MAX {
        return Err(Problem::bad_request(format!(
            "{what}: a node's id is from 1 to 2^53 - 1"
        )));
    }
    Ok(())
}

/// Bytes of a password. Longer ones add no strength and cost time to hash.
const PASSWORD_BYTES_MAX: usize = 1024;

pub(crate) fn password(password: &str) -> Result<(), Problem> {
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(Problem::bad_request(format!(
            "a password has 1 to {PASSWORD_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// Objects and arrays inside each other. Parsers commonly stop at 128, and answers wrap attributes
/// in a few more levels: without this bound one message could make a page unreadable.
const ATTRIBUTES_DEPTH_MAX: usize = 64;

/// The object as text, as commands carry it.
pub(crate) fn attributes(attributes: &Attributes) -> Result<String, Problem> {
    if attributes.values().any(|value| !fits(value, ATTRIBUTES_DEPTH_MAX - 1)) {
        return Err(Problem::bad_request(format!(
            "attributes are nested at most {ATTRIBUTES_DEPTH_MAX} deep"
        )));
    }
    if !attributes.values().all(is_exact) {
        return Err(Problem::bad_request(
            "attributes: a number lies between -2^53 and 2^53, so that every language can hold it",
        ));
    }
    let text = serde_json::to_string(attributes).expect("a JSON object can be written");
    fields::attributes(&text).map_err(Problem::refused)?;
    Ok(text)
}

/// Only whether they are too large: where that has to be known before all else that may be wrong with them.
pub(crate) fn attributes_size(attributes: &Attributes) -> Result<(), Problem> {
    let text = serde_json::to_string(attributes).expect("a JSON object can be written");
    match fields::attributes(&text) {
        Err(rejection) if rejection.code == Code::TooLarge => Err(Problem::refused(rejection)),
        _ => Ok(()),
    }
}

/// Numbers stay below 2^53: above it not every language tells two of them apart.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| number.abs() < TWO_TO_53),
        Value::Array(values) => values.iter().all(is_exact),
        Value::Object(values) => values.values().all(is_exact),
        _ => true,
    }
}

const TWO_TO_53: f64 = 9_007_199_254_740_992.0;

/// What a holder of a lock says of himself, as text.
pub(crate) fn lock_data(data: &Value) -> Result<String, Problem> {
    if !fits(data, ATTRIBUTES_DEPTH_MAX) {
        return Err(Problem::bad_request(format!(
            "data is nested at most {ATTRIBUTES_DEPTH_MAX} deep"
        )));
    }
    let text = data.to_string();
    fields::lock_data(&text).map_err(Problem::refused)?;
    Ok(text)
}

fn fits(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(values) => depth > 0 && values.iter().all(|value| fits(value, depth - 1)),
        Value::Object(values) => depth > 0 && values.values().all(|value| fits(value, depth - 1)),
        _ => true,
    }
}
