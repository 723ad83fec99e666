//! What a password is verified against.

use super::Answer;
use crate::read::{Reader, Who};
use crate::rejection::{Code, Stop};
use crate::view::View;

/// For root: the node that signs somebody in. No user and a user without a password are answered alike.
pub(super) fn credentials<V: View + ?Sized>(read: &Reader<'_, V>, who: &Who, name: &str) -> Result<Answer, Stop> {
    if !who.is_root() {
        return Err(Stop::refused(Code::Forbidden, "only the node verifies passwords"));
    }
    let password_hash = match read.user_named(name)? {
        Some(user) => read.user(user)?.password_hash,
        None => None,
    };
    Ok(Answer::Credentials { password_hash })
}
