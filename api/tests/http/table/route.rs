//! A route as the document describes it, with a request in which nothing is wrong.

use std::collections::BTreeSet;

use serde_json::Value;

use super::case::{Ask, parse};
use super::world::World;
use crate::contract;
use crate::openapi::operations;

pub(super) struct Route {
    pub(super) method: String,
    /// For example `/v1/rooms/{room}`.
    pub(super) pattern: &'static str,
    /// How the sound request is answered.
    pub(super) status: u16,
    pub(super) sound: Ask,
    /// The errors that it may give, by status and code.
    pub(super) errors: BTreeSet<(u16, &'static str)>,
    /// Its parameters, by place and name.
    pub(super) parameters: Vec<(&'static str, &'static str)>,
    /// Of its body, where it takes one: the schema.
    pub(super) body: Option<&'static Value>,
    /// It may come without one.
    pub(super) body_optional: bool,
}

pub(super) async fn routes(world: &World) -> Vec<Route> {
    let document = contract::document().await;
    let sound = parse(include_str!("sound.txt"), false, world);
    let routes = operations(document).into_iter().map(|(method, pattern, operation)| {
        let of_this = |case: &&super::case::Case| {
            case.ask.method == method
                && contract::route_of(document, &case.ask.target).is_some_and(|(route, _)| route == pattern)
        };
        let case = sound
            .iter()
            .find(of_this)
            .unwrap_or_else(|| panic!("sound.txt has no request for {method} {pattern}"));
        let parameters = operation["parameters"].as_array().unwrap().iter().map(|parameter| {
            let parameter = resolved(document, parameter);
            (parameter["in"].as_str().unwrap(), parameter["name"].as_str().unwrap())
        });
        let body = operation.get("requestBody");
        Route {
            method,
            pattern,
            status: case.status,
            sound: case.ask.clone(),
            errors: errors(document, operation),
            parameters: parameters.collect(),
            body: body.map(|body| resolved(document, &body["content"]["application/json"]["schema"])),
            body_optional: body.is_some_and(|body| body["required"] == false),
        }
    });
    routes.collect()
}

fn resolved(document: &'static Value, value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

fn errors(document: &'static Value, operation: &'static Value) -> BTreeSet<(u16, &'static str)> {
    let responses = operation["responses"].as_object().unwrap().iter();
    let errors = responses.flat_map(|(status, response)| {
        let response = resolved(document, response);
        let schema = &response["content"]["application/problem+json"]["schema"];
        let codes = schema["properties"]["code"]["enum"].as_array().into_iter().flatten();
        codes.map(move |code| (status.parse().unwrap(), code.as_str().unwrap()))
    });
    errors.collect()
}

impl Route {
    pub(super) fn gives(&self, status: u16, code: &'static str) -> bool {
        self.errors.contains(&(status, code))
    }

    /// Whoever watches the node asks without being anybody.
    pub(super) fn is_probe(&self) -> bool {
        !self.gives(401, "unauthenticated")
    }

    pub(super) fn is_read(&self) -> bool {
        self.method == "GET"
    }

    /// The replica does it beside the log.
    pub(super) fn is_admin(&self) -> bool {
        self.pattern.starts_with("/v1/cluster/")
    }

    /// A command of the log: conditions are held against it.
    pub(super) fn is_logged(&self) -> bool {
        self.gives(412, "precondition_failed")
    }

    /// What was decided is remembered under a key.
    pub(super) fn takes_keys(&self) -> bool {
        self.gives(422, "idempotency_mismatch")
    }

    /// It waits until the node reflects a position.
    pub(super) fn takes_positions(&self) -> bool {
        self.gives(410, "position_expired")
    }

    pub(super) fn is_sign_in(&self) -> bool {
        self.pattern == "/v1/sessions"
    }
}
