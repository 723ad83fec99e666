//! Schemas of the bodies, from the types that are read and written.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::{RecursiveTransform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use quorate_client::wire::schema::NUMBER_MAX;

use crate::operation::SchemaOf;
use crate::problem::{Kind, Written};

/// Marks a merge patch, where null has a meaning.
const MERGE_PATCH: &str = "x-merge-patch";

/// Collects schemas, those of requests and those of answers: a field may be optional in one only.
pub(super) struct Schemas {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = || {
            let mut settings = SchemaSettings::draft2020_12();
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
            settings.with_transform(RecursiveTransform(exact_numbers))
        };
        Self {
            requests: settings().for_deserialize().into_generator(),
            answers: settings().for_serialize().into_generator(),
        }
    }

    pub(super) fn of_request(&mut self, schema: SchemaOf) -> Value {
        schema(&mut self.requests).into()
    }

    pub(super) fn of_answer(&mut self, schema: SchemaOf) -> Value {
        schema(&mut self.answers).into()
    }

    pub(super) fn one<T: JsonSchema>(&mut self) -> Value {
        self.requests.subschema_for::<T>().into()
    }

    pub(super) fn problem(&mut self) -> Value {
        self.answers.subschema_for::<Written>().into()
    }

    /// All that were referred to, for `components/schemas`.
    ///
    /// # Panics
    /// When a type is in requests and in answers, and its two schemas differ: it needs two names.
    pub(super) fn into_components(mut self) -> Map<String, Value> {
        let mut all = self.answers.take_definitions(true);
        for (name, schema) in self.requests.take_definitions(true) {
            if let Some(other) = all.insert(name.clone(), schema.clone()) {
                assert_eq!(other, schema, "two schemas are called {name}");
            }
        }
        for schema in all.values_mut() {
            let schema: &mut Schema = schema.try_into().expect("a definition is a schema");
            if schema.get(MERGE_PATCH).is_none() {
                absent_not_null(schema);
            } else {
                without_defaults(schema);
            }
        }
        let mut codes: Vec<&str> = Kind::ALL.map(Kind::code).to_vec();
        codes.sort_unstable();
        codes.dedup();
        if let Some(code) = all
            .get_mut("Problem")
            .and_then(|problem| problem.pointer_mut("/properties/code"))
        {
            code["enum"] = json!(codes);
        }
        all
    }
}

/// What stands for an absent field in Rust is no default of the patch: absent keeps.
fn without_defaults(schema: &mut Schema) {
    schema.remove("default");
    transform_subschemas(&mut without_defaults, schema);
}

/// Rust's widths say nothing to callers; numbers stay exact in every language.
fn exact_numbers(schema: &mut Schema) {
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
    if !format.starts_with("uint") {
        return;
    }
    if format == "uint64" {
        schema.insert("maximum".to_owned(), NUMBER_MAX.into());
    }
    schema.remove("format");
}

/// Optional fields are absent, never null, which is what serde's `Option` would also take.
fn absent_not_null(schema: &mut Schema) {
    // What is a reference or null is the reference, and one of several types or null one of them.
    // A word that allows every JSON value, null among them, says so with more than two types.
    if let Some(Value::Array(types)) = schema.get_mut("type")
        && types.len() == 2
    {
        types.retain(|one| one != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            schema.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|one| one != "null"));
        if let [one] = choices.as_slice() {
            let one = one.clone();
            schema.remove("anyOf");
            if let Value::Object(one) = one {
                for (key, value) in one {
                    schema.insert(key, value);
                }
            }
        }
    }
    transform_subschemas(&mut absent_not_null, schema);
}
