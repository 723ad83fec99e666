//! Attributes: a JSON object that users and rooms carry and the store does not understand. It is
//! kept as canonical text, so that replicas and retries agree byte for byte.

use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// The object in the text, or why there is none.
pub(crate) fn parse(text: &str) -> Result<Object, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("not a JSON object".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

/// Canonical text: keys sorted (whichever map another crate makes serde_json use), no white space.
pub(crate) fn write(object: &mut Object) -> String {
    object.sort_keys();
    object.values_mut().for_each(Value::sort_all_objects);
    serde_json::to_string(object).expect("a JSON value can be written")
}

/// Canonical text of any value but null.
pub(crate) fn canonical_value(text: &str) -> Result<String, String> {
    match serde_json::from_str(text) {
        Ok(Value::Null) => Err("null is no value".to_owned()),
        Ok(mut value) => {
            value.sort_all_objects();
            Ok(serde_json::to_string(&value).expect("a JSON value can be written"))
        }
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

/// JSON Merge Patch (RFC 7396) of two canonical texts.
pub(crate) fn merge(target: Option<&str>, patch: &str) -> Result<String, String> {
    let mut object = target.map_or(Ok(Object::new()), parse)?;
    merge_object(&mut object, parse(patch)?);
    Ok(write(&mut object))
}

/// The parser bounds the nesting (128), and so the recursion.
fn merge_object(target: &mut Object, patch: Object) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(&key);
            }
            Value::Object(patch) => {
                let slot = target.entry(key).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = Value::Object(Object::new());
                }
                merge_object(slot.as_object_mut().expect("it was made one"), patch);
            }
            value => {
                target.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of RFC 7396, appendix A, whose target and patch are objects.
    #[test]
    fn merges_as_the_rfc_says() {
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (
                r#"{"a":{"b":"c"}}"#,
                r#"{"a":{"b":"d","c":null}}"#,
                r#"{"a":{"b":"d"}}"#,
            ),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(merge(Some(target), patch).as_deref(), Ok(result), "{target} + {patch}");
        }
        assert_eq!(
            merge(None, r#"{"z":{"b":1,"a":2}}"#).as_deref(),
            Ok(r#"{"z":{"a":2,"b":1}}"#)
        );
    }

    /// A patch of one field must not move a number in another one.
    #[test]
    fn canonical_text_is_a_fixed_point() {
        for text in [
            r#"{"a":0.1,"b":31.245270191439438,"c":121.48791951161945,"d":1e300,"e":-0.0}"#,
            r#"{"a":9007199254740993,"b":18446744073709551615,"c":"\u0001é"}"#,
        ] {
            let once = write(&mut parse(text).unwrap());
            assert_eq!(write(&mut parse(&once).unwrap()), once);
            assert_eq!(merge(Some(&once), "{}").unwrap(), once);
        }
    }
}
