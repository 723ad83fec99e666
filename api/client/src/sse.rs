//! Server-Sent Events as bytes: cuts what arrives, however it is split, into frames.
//! After the WHATWG HTML standard, section 9.2.6, without `retry`.

/// A frame that grows beyond this is an error: an event is one message, whose request body may be
/// at most 4 MiB, with room for JSON's escapes.
const FRAME_BYTES_MAX: usize = 32 << 20;

/// One dispatched event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// `message` where the sender named none.
    pub(crate) event: String,
    pub(crate) id: Option<String>,
    /// The data lines, joined by line feeds.
    pub(crate) data: String,
}

/// The frame is larger than any event of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {FRAME_BYTES_MAX} bytes")]
pub(crate) struct TooLarge;

#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// Received and not yet cut into lines; `..start` has been used.
    buffer: Vec<u8>,
    start: usize,
    /// Where the search for the end of the line goes on.
    searched: usize,
    /// The last line ended with CR: a LF that follows belongs to it.
    after_cr: bool,
    first_line_done: bool,
    /// The frame that is being built.
    frame: Frame,
    has_data: bool,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame of what was pushed. A frame without data but with an id is given too,
    /// because it moves the position.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, TooLarge> {
        while let Some(line) = self.next_line() {
            if line.is_empty() {
                if let Some(frame) = self.dispatch() {
                    return Ok(Some(frame));
                }
            } else {
                self.field(&line);
            }
            if self.frame.data.len() > FRAME_BYTES_MAX {
                return Err(TooLarge);
            }
        }
        if self.buffer.len() - self.start > FRAME_BYTES_MAX {
            Err(TooLarge)
        } else {
            Ok(None)
        }
    }

    fn next_line(&mut self) -> Option<String> {
        if self.after_cr && self.start < self.buffer.len() {
            self.after_cr = false;
            if self.buffer[self.start] == b'\n' {
                self.start += 1;
                self.searched = self.start;
            }
        }
        let end = self.buffer[self.searched..]
            .iter()
            .position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = end.map(|offset| self.searched + offset) else {
            self.searched = self.buffer.len();
            return None;
        };
        let mut line = &self.buffer[self.start..end];
        if !self.first_line_done {
            self.first_line_done = true;
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        let line = String::from_utf8_lossy(line).into_owned();
        self.after_cr = self.buffer[end] == b'\r';
        self.start = end + 1;
        self.searched = self.start;
        Some(line)
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.frame.event),
            "data" => {
                if self.has_data {
                    self.frame.data.push('\n');
                }
                self.has_data = true;
                self.frame.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.frame.id = Some(value.to_owned()),
            // A comment (an empty name), or a field that is not known.
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<Frame> {
        let mut frame = std::mem::take(&mut self.frame);
        if std::mem::take(&mut self.has_data) {
            if frame.event.is_empty() {
                "message".clone_into(&mut frame.event);
            }
            return Some(frame);
        }
        // No event, but perhaps a position.
        frame.id.is_some().then(|| Frame {
            event: "bookmark".to_owned(),
            ..frame
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(event: &str, id: Option<&str>, data: &str) -> Frame {
        Frame {
            event: event.into(),
            id: id.map(str::to_owned),
            data: data.into(),
        }
    }

    /// Decodes the text in pieces of so many bytes.
    fn decode(text: &str, piece: usize) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for bytes in text.as_bytes().chunks(piece) {
            decoder.push(bytes);
            while let Some(frame) = decoder.next().unwrap() {
                frames.push(frame);
            }
        }
        frames
    }

    #[test]
    fn frames_do_not_depend_on_how_the_bytes_are_split() {
        let text = "\u{feff}: hello\n\nevent: message\nid: 1.1.7\ndata: {\"text\":\"张三\"}\n\n\
                    event: member\r\nid:1.1.8\r\ndata:a\r\ndata: b\r\n\r\nevent: bookmark\rid: 1.1.9\rdata: {}\r\r\
                    data: unnamed\n\nretry: 5\nunknown\n\nevent: message\ndata: cut off\n";
        let expected = [
            frame("message", Some("1.1.7"), "{\"text\":\"张三\"}"),
            frame("member", Some("1.1.8"), "a\nb"),
            frame("bookmark", Some("1.1.9"), "{}"),
            frame("message", None, "unnamed"),
        ];
        for piece in [1, 2, 3, 7, 64, text.len()] {
            assert_eq!(decode(text, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn an_id_without_data_still_moves_the_position() {
        assert_eq!(decode("id: 5\n\n", 3), [frame("bookmark", Some("5"), "")]);
        assert_eq!(
            decode("event: bookmark\nid: 6\n\n", 3),
            [frame("bookmark", Some("6"), "")]
        );
        assert_eq!(decode("event: message\n\n\n\n", 3), []);
    }

    #[test]
    fn an_endless_frame_is_an_error() {
        let mut decoder = Decoder::default();
        decoder.push(b"data: ");
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..FRAME_BYTES_MAX >> 20 {
            assert_eq!(decoder.next(), Ok(None));
            decoder.push(&piece);
        }
        assert_eq!(decoder.next(), Err(TooLarge));
    }
}
