//! `quorate user …`.

use clap::Subcommand;
use quorate_client::wire::{self, NewUser, UserList};
use quorate_client::{Client, wire::Attributes};
use serde_json::Value;

use super::exit::Failure;
use super::lists;
use super::output::Output;
use super::password;

const EXAMPLES: &str = "Examples:
  quorate user create alice --display-name 'Alice L.' --email alice@example.org
  quorate user create bob --password-stdin <bob.txt
  quorate user update alice --attributes '{\"team\": \"blue\", \"old\": null}'
  quorate user list --output json";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum User {
    /// Create a user
    Create {
        user: String,
        #[arg(long)]
        display_name: Option<String>,
        #[arg(long)]
        email: Option<String>,
        /// A JSON object
        #[arg(long, value_name = "JSON", value_parser = parse_object)]
        attributes: Option<Attributes>,
        /// Ask for a password to sign in with, or read it from one line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Show a user
    Show { user: String },
    /// List users by name
    List {
        /// At most so many [default: all]
        #[arg(long)]
        limit: Option<u32>,
    },
    /// Change a user; what is not named stays
    Update {
        user: String,
        #[arg(long)]
        display_name: Option<String>,
        #[arg(long, conflicts_with = "no_email")]
        email: Option<String>,
        /// Remove the email address
        #[arg(long)]
        no_email: bool,
        /// A JSON object that is merged in; null removes a key
        #[arg(long, value_name = "JSON", value_parser = parse_object)]
        attributes: Option<Attributes>,
        /// Ask for a new password, or read it from one line of standard input; the user's other sessions end
        #[arg(long, conflicts_with = "no_password")]
        password_stdin: bool,
        /// Remove the password: the user's other sessions end, and he cannot sign in any more
        #[arg(long)]
        no_password: bool,
    },
    /// Delete a user
    Delete { user: String },
}

impl User {
    pub(crate) async fn run(self, client: Client, output: &Output) -> Result<(), Failure> {
        match self {
            User::Create {
                user,
                display_name,
                email,
                attributes,
                password_stdin,
            } => {
                let new = NewUser {
                    user,
                    display_name,
                    email,
                    password: if password_stdin { Some(password::read()?) } else { None },
                    attributes,
                };
                show(&client.create_user(&new).await?, output)
            }
            User::Show { user } => show(&client.user(&user).await?, output),
            User::List { limit } => {
                let page = async |limit, cursor: Option<String>| {
                    let page = client.users(limit, cursor.as_deref()).await?;
                    Ok((page.users, page.next_cursor))
                };
                let users = lists::all(limit, page).await?;
                let list = UserList {
                    users,
                    next_cursor: None,
                };
                output.table(&list, &["user", "display name", "email", "created at"], || {
                    let row = |user: &wire::User| {
                        let email = user.email.clone().unwrap_or_default();
                        vec![
                            user.user.clone(),
                            user.display_name.clone(),
                            email,
                            user.created_at.clone(),
                        ]
                    };
                    list.users.iter().map(row).collect()
                })
            }
            User::Update {
                user,
                display_name,
                email,
                no_email,
                attributes,
                password_stdin,
                no_password,
            } => {
                let password = match (no_password, password_stdin) {
                    (true, _) => Some(Value::Null),
                    (false, true) => Some(password::read()?.into()),
                    (false, false) => None,
                };
                let patch = patch([
                    ("display_name", display_name.map(Value::from)),
                    (
                        "email",
                        if no_email {
                            Some(Value::Null)
                        } else {
                            email.map(Value::from)
                        },
                    ),
                    ("attributes", attributes.map(Value::from)),
                    ("password", password),
                ])?;
                show(&client.update_user(&user, &patch).await?, output)
            }
            User::Delete { user } => {
                client.delete_user(&user).await?;
                output.value(&serde_json::json!({ "deleted": user }), || {
                    format!("user {user} deleted")
                })
            }
        }
    }
}

fn show(user: &wire::User, output: &Output) -> Result<(), Failure> {
    output.table(user, &[], || {
        let mut rows = vec![
            vec!["user".into(), user.user.clone()],
            vec!["id".into(), user.id.to_string()],
            vec!["display name".into(), user.display_name.clone()],
        ];
        rows.extend(user.email.iter().map(|email| vec!["email".into(), email.clone()]));
        rows.extend(attributes_row(user.attributes.as_ref()));
        rows.push(vec!["created at".into(), user.created_at.clone()]);
        rows.push(vec!["rev".into(), user.rev.to_string()]);
        rows
    })
}

pub(crate) fn attributes_row(attributes: Option<&Attributes>) -> Option<Vec<String>> {
    attributes.map(|attributes| vec!["attributes".into(), Value::from(attributes.clone()).to_string()])
}

pub(crate) fn parse_object(text: &str) -> Result<Attributes, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))
}

/// A merge patch of the fields that were named; none is a slip.
pub(crate) fn patch<const N: usize>(fields: [(&str, Option<Value>); N]) -> Result<Value, Failure> {
    let patch: Attributes = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    if patch.is_empty() {
        return Err(Failure::Usage("nothing to update was named".into()));
    }
    Ok(patch.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_has_what_was_named_and_null_removes() {
        let made = patch([("a", Some(Value::Null)), ("b", None), ("c", Some("x".into()))]).expect("a patch");
        assert_eq!(made.to_string(), r#"{"a":null,"c":"x"}"#);
        assert!(matches!(patch([("a", None)]), Err(Failure::Usage(_))));
    }

    #[test]
    fn attributes_are_an_object() {
        assert!(parse_object(r#"{"a":1}"#).is_ok());
        for text in ["", "1", "[]", "{a:1}", "null"] {
            assert!(parse_object(text).is_err(), "{text:?}");
        }
    }
}
