//! Compression of a value: a raw deflate stream (RFC 1951), or a gzip file around one (RFC 1952).

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// The fastest level: the next ones cost a multiple for a few per cent.
const LEVEL: u32 = 1;
/// Magic, deflate, no flags, no time, fastest algorithm, unknown system.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// The library refused to compress.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value cannot be compressed")]
pub struct CompressError;

/// A compressor that is used again for every value; made when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Deflater {
    stream: Option<Compress>,
}

impl Deflater {
    /// Appends `body` as a gzip file.
    pub(super) fn gzip(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
        out.extend_from_slice(&GZIP_HEAD);
        self.deflate(body, out)?;
        let mut crc = Crc::new();
        crc.update(body);
        out.extend_from_slice(&crc.sum().to_le_bytes());
        // The length is modulo 2^32, and it and the sum of its bytes agree on that.
        out.extend_from_slice(&crc.amount().to_le_bytes());
        Ok(())
    }

    /// Appends `body` as a raw deflate stream.
    pub(super) fn deflate(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
        let stream = self.stream.get_or_insert_with(|| Compress::new(Compression::new(LEVEL), false));
        stream.reset();
        let mut rest = body;
        loop {
            out.reserve((rest.len() / 4).max(1024));
            let before = (stream.total_in(), stream.total_out());
            let status = stream.compress_vec(rest, out, FlushCompress::Finish).map_err(|_| CompressError)?;
            let taken = usize::try_from(stream.total_in() - before.0).map_err(|_| CompressError)?;
            rest = rest.get(taken..).unwrap_or_default();
            match status {
                Status::StreamEnd => return Ok(()),
                Status::Ok | Status::BufError if before != (stream.total_in(), stream.total_out()) => {}
                // There was room, and nothing moved.
                Status::Ok | Status::BufError => return Err(CompressError),
            }
        }
    }
}
