//! JSON bodies, read strictly: an object where the contract says object, known fields only, no
//! field twice, and no null where a field should rather be absent.

use std::fmt;
use std::marker::PhantomData;

use quorate_client::wire::{Attributes, BatchMessage, schema};
use quorate_state_machine::command::Patch;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::problem::Problem;

/// Reads the whole body as one JSON object.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(body).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
    object(text).map_err(|error| Problem::bad_request(format!("failed to read the JSON body: {error}")))
}

/// The same of a text, which may go on being borrowed from.
pub(crate) fn object<'de, T: Deserialize<'de>>(text: &'de str) -> serde_json::Result<T> {
    let Object(value) = serde_json::from_str(text)?;
    Ok(value)
}

/// A struct from an object only: serde's derived structs would also be read from an array, field
/// by field in the order of their declaration.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyMap<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(OnlyMap(PhantomData))
    }
}

/// A batch. As `wire::Batch`, but each message must be an object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    #[serde(deserialize_with = "objects")]
    pub(crate) messages: Vec<BatchMessage>,
}

pub(crate) fn objects<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BatchMessage>, D::Error> {
    let messages = Vec::<Object<BatchMessage>>::deserialize(deserializer)?;
    Ok(messages.into_iter().map(|Object(message)| message).collect())
}

/// A merge patch (RFC 7396) of a user: absent keeps, null removes.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-merge-patch" = true))]
pub(crate) struct UserPatch {
    #[serde(deserialize_with = "nullable")]
    #[schemars(with = "Option<schema::DisplayName>")]
    pub(crate) display_name: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schemars(with = "Option<schema::Email>")]
    pub(crate) email: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schemars(with = "Option<schema::Password>")]
    pub(crate) password: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schemars(with = "Option<schema::Attributes>")]
    pub(crate) attributes: Option<Option<Attributes>>,
}

/// A merge patch of a room.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-merge-patch" = true))]
pub(crate) struct RoomPatch {
    #[serde(deserialize_with = "nullable")]
    #[schemars(with = "Option<schema::Title>")]
    pub(crate) title: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schemars(with = "Option<schema::Attributes>")]
    pub(crate) attributes: Option<Option<Attributes>>,
}

/// Tells null (`Some(None)`) from absent (`None`, by `default`).
fn nullable<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// What the command carries for one field of a merge patch.
pub(crate) fn patch<T>(field: Option<Option<T>>) -> Patch<T> {
    match field {
        None => Patch::Keep,
        Some(None) => Patch::Remove,
        Some(Some(value)) => Patch::Set(value),
    }
}

#[cfg(test)]
mod tests {
    use quorate_client::wire::{NewMessage, NewRoom, NewUser, PutMember};

    use super::*;

    fn refused<T: DeserializeOwned>(body: &str) {
        assert!(parse::<T>(body.as_bytes()).is_err(), "{body}");
    }

    #[test]
    fn only_objects_with_known_fields_of_the_right_type() {
        assert_eq!(parse::<NewMessage>(br#" {"text":"hi"} "#).unwrap().text, "hi");
        for body in [
            "",
            "{",
            "[]",
            r#"["hi"]"#,
            "null",
            r#""hi""#,
            "{}",
            r#"{"text":1}"#,
            r#"{"text":null}"#,
            r#"{"text":"a","x":1}"#,
            r#"{"text":"a","text":"b"}"#,
            r#"{"text":"a"} x"#,
            r#"{"text":"\ud800"}"#,
            r#"{"text":"a","client_id":null}"#,
            r#"{"text":"a","reply_to":1.5}"#,
            r#"{"text":"a","reply_to":-1}"#,
            r#"{"text":"a","attributes":[]}"#,
            r#"{"text":"a","attributes":null}"#,
            r#"{"Text":"a"}"#,
        ] {
            refused::<NewMessage>(body);
        }
        assert!(parse::<NewMessage>(b"{\"text\":\"\xff\"}").is_err());
        refused::<Batch>(r#"{"messages":[["hi"]]}"#);
        refused::<Batch>(r#"{"messages":{}}"#);
        refused::<Batch>("{}");
        for body in [
            r#"{"room":"a","kind":"secret"}"#,
            r#"{"room":"a","kind":{"public":null}}"#,
            r#"{"room":"a"}"#,
        ] {
            refused::<NewRoom>(body);
        }
        refused::<NewRoom>(r#"{"room":"a","kind":"public","members":null}"#);
        refused::<PutMember>(r#"{"role":null}"#);
        refused::<PutMember>(r#"{"role":"king"}"#);
        refused::<NewUser>(r#"{"user":"a","password":null}"#);
    }

    #[test]
    fn a_merge_patch_tells_null_from_absent() {
        let UserPatch {
            display_name,
            email,
            password,
            attributes,
        } = parse(br#"{"display_name":"A","email":null}"#).unwrap();
        assert_eq!(patch(display_name), Patch::Set("A".to_owned()));
        assert_eq!(patch(email), Patch::Remove);
        assert_eq!(patch(password), Patch::Keep);
        assert_eq!(patch(attributes), Patch::Keep);
        refused::<UserPatch>(r#"{"user":"b"}"#);
        refused::<UserPatch>("[]");
    }
}
