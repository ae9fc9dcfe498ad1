//! Frames (part 2, section 2.3): size, where the body starts, kind, channel.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::decode::DecodeError;

/// What both sides send first to speak AMQP itself.
pub(crate) const PROTOCOL_AMQP: [u8; 8] = *b"AMQP\0\x01\0\0";
/// What both sides send first to sign in.
pub(crate) const PROTOCOL_SASL: [u8; 8] = *b"AMQP\x03\x01\0\0";
/// A sign of life.
pub(crate) const EMPTY_FRAME: [u8; 8] = [0, 0, 0, 8, 2, 0, 0, 0];

const HEADER_BYTES: usize = 8;

/// Which protocol a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Amqp,
    Sasl,
}

/// A frame without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    pub(crate) channel: u16,
    /// Performative and payload; empty for a sign of life.
    pub(crate) body: Bytes,
}

/// Takes the first frame off `input` if it is there in full.
pub(crate) fn next_frame(input: &mut BytesMut, bytes_max: usize) -> Result<Option<Frame>, DecodeError> {
    let Some(&[a, b, c, d, offset, kind, e, f]) = input.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let offset = usize::from(offset) * 4;
    if size > bytes_max || size < HEADER_BYTES || offset < HEADER_BYTES || offset > size {
        return Err(DecodeError::FrameSize(size));
    }
    let kind = match kind {
        0 => FrameKind::Amqp,
        1 => FrameKind::Sasl,
        other => return Err(DecodeError::FrameKind(other)),
    };
    if input.len() < size {
        return Ok(None);
    }
    let mut body = input.split_to(size);
    body.advance(offset);
    Ok(Some(Frame { kind, channel: u16::from_be_bytes([e, f]), body: body.freeze() }))
}

/// Appends a header; [`finish_frame`] puts in the size.
pub(crate) fn begin_frame(output: &mut Vec<u8>, kind: FrameKind, channel: u16) -> usize {
    let start = output.len();
    output.put_u32(0);
    output.put_slice(&[2, u8::from(kind == FrameKind::Sasl)]);
    output.put_u16(channel);
    start
}

/// Ends the frame that began at `start`.
pub(crate) fn finish_frame(output: &mut [u8], start: usize) {
    let size = u32::try_from(output.len() - start).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = output.get_mut(start..start + 4) {
        place.copy_from_slice(&size);
    }
}
