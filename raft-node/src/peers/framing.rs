//! How frames are cut out of the byte stream: a length, a checksum of the frame, a checksum of these two, then the
//! frame. The head has its own, so that a damaged length is found at once, and not when as many bytes have come.
//!
//! TCP's own checksum has 16 bits and ends at each device that takes packets apart. A flipped bit would be an entry
//! of the log on one node and not on another, for ever; so a frame whose checksum is wrong ends its connection, and
//! what it carried is sent again on the next.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// An append carries at most 2 MiB of entries (see `log_store`) or one entry, which is at most a
/// full pack of commands; 16 MiB is well above both, and bounds what a peer can make us hold.
const FRAME_BYTES_MAX: usize = 16 << 20;
/// Length of the frame, its checksum, and the checksum of these.
const HEAD_BYTES: usize = 3 * size_of::<u32>();
const SUMMED_BYTES: usize = 2 * size_of::<u32>();

#[derive(Debug, Default)]
pub struct Framing {
    /// Of the frame that has begun: how long it is, and its checksum.
    begun: Option<(usize, u32)>,
}

impl Encoder<Bytes> for Framing {
    type Error = io::Error;

    fn encode(&mut self, frame: Bytes, wire: &mut BytesMut) -> io::Result<()> {
        if frame.len() > FRAME_BYTES_MAX {
            let error = format!("a frame of {} bytes is longer than a peer takes", frame.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        wire.reserve(HEAD_BYTES + frame.len());
        let head = wire.len();
        wire.put_u32(u32::try_from(frame.len()).expect("it is bounded by FRAME_BYTES_MAX"));
        wire.put_u32(crc32fast::hash(&frame));
        let sum = crc32fast::hash(&wire[head..]);
        wire.put_u32(sum);
        wire.extend_from_slice(&frame);
        Ok(())
    }
}

impl Decoder for Framing {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, wire: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        let (length, sum) = match self.begun {
            Some(begun) => begun,
            None => {
                if wire.len() < HEAD_BYTES {
                    return Ok(None);
                }
                let expected = crc32fast::hash(&wire[..SUMMED_BYTES]);
                let (length, sum) = (wire.get_u32() as usize, wire.get_u32());
                // A peer that sums up right and sends more than it may is none of ours either.
                if wire.get_u32() != expected || length > FRAME_BYTES_MAX {
                    return Err(damaged());
                }
                *self.begun.insert((length, sum))
            }
        };
        if wire.len() < length {
            wire.reserve(length - wire.len());
            return Ok(None);
        }
        self.begun = None;
        let frame = wire.split_to(length);
        match crc32fast::hash(&frame) == sum {
            true => Ok(Some(frame)),
            false => Err(damaged()),
        }
    }
}

fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a frame was damaged on its way, or comes from an earlier build: its checksum is wrong",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_the_wire(frames: &[&'static [u8]]) -> BytesMut {
        let mut wire = BytesMut::new();
        for frame in frames {
            Framing::default().encode(Bytes::from_static(frame), &mut wire).unwrap();
        }
        wire
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut wire = on_the_wire(&[b"one", b"", b"three"]);
        let mut framing = Framing::default();
        let mut next = || framing.decode(&mut wire).unwrap().map(|frame| frame.to_vec());
        assert_eq!(next().unwrap(), b"one");
        assert_eq!(next().unwrap(), b"");
        assert_eq!(next().unwrap(), b"three");
        assert_eq!(next(), None);
    }

    /// Whichever it is, also in the length: an error, and no waiting for more.
    #[test]
    fn a_flipped_bit_is_an_error_at_once() {
        let good = on_the_wire(&[b"a frame of some length"]);
        for bit in 0..8 * good.len() {
            let mut wire = good.clone();
            wire[bit / 8] ^= 1 << (bit % 8);
            let first = Framing::default().decode(&mut wire);
            assert!(first.is_err(), "bit {bit} was taken: {first:?}");
        }
    }

    #[test]
    fn a_frame_may_come_byte_by_byte() {
        let mut framing = Framing::default();
        let mut wire = BytesMut::new();
        let mut seen = Vec::new();
        for byte in on_the_wire(&[b"one", b"", b"three"]) {
            wire.put_u8(byte);
            seen.extend(framing.decode(&mut wire).unwrap().map(|frame| frame.to_vec()));
        }
        assert_eq!(seen, [&b"one"[..], b"", b"three"]);
    }

    #[test]
    fn a_frame_that_no_peer_would_take_is_not_sent() {
        let mut wire = BytesMut::new();
        let too_long = Bytes::from(vec![0; FRAME_BYTES_MAX + 1]);
        assert!(Framing::default().encode(too_long, &mut wire).is_err());
        assert!(wire.is_empty());
    }
}
