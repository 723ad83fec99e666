//! Messages in motion: edited and redacted.

use super::context::{Context, Done};
use crate::ids::Seq;
use crate::rejection::{Code, Stop};
use crate::view::View;

pub(super) fn edit<V: View>(
    _context: &mut Context<'_, V>,
    _room: String,
    _seq: Seq,
    _text: String,
) -> Result<Done, Stop> {
    Err(Stop::refused(Code::Conflict, "editing is not built yet"))
}

pub(super) fn redact<V: View>(_context: &mut Context<'_, V>, _room: &str, _seq: Seq) -> Result<Done, Stop> {
    Err(Stop::refused(Code::Conflict, "redaction is not built yet"))
}
