//! A Kafka client that says exactly what a test wants, right or wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::{Buf, BufMut};

use crate::sim::PATIENCE;

pub(crate) struct Raw(TcpStream);

/// A batch as a test describes it.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) producer_id: i64,
    pub(crate) sequence: i32,
    pub(crate) codec: i16,
    pub(crate) records: i32,
    pub(crate) body: usize,
}

/// What a produce request was answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) error: i16,
    pub(crate) offset: i64,
    pub(crate) throttle_ms: i32,
}

impl Batch {
    pub(crate) const PLAIN: Self = Self { producer_id: -1, sequence: -1, codec: 0, records: 1, body: 20 };

    /// A header that claims so many records, zeros for a body, and a right checksum.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut covered = Vec::new();
        covered.put_i16(self.codec);
        covered.put_i32(self.records - 1);
        covered.put_i64(1);
        covered.put_i64(1);
        covered.put_i64(self.producer_id);
        covered.put_i16(if self.producer_id < 0 { -1 } else { 0 });
        covered.put_i32(self.sequence);
        covered.put_i32(self.records);
        covered.put_bytes(0, self.body);
        let mut bytes = Vec::new();
        bytes.put_i64(0);
        bytes.put_i32(i32::try_from(covered.len() + 9).unwrap());
        bytes.put_i32(-1);
        bytes.put_i8(2);
        bytes.put_u32(crc32c::crc32c(&covered));
        bytes.extend_from_slice(&covered);
        bytes
    }
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Sends bytes as they are. The other side may have closed already.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        drop(self.0.write_all(bytes));
    }

    /// Sends a request with a body.
    pub(crate) fn send(&mut self, api: i16, version: i16, body: &[u8]) {
        let mut frame = Vec::new();
        frame.put_i32(i32::try_from(body.len() + 10).unwrap());
        frame.put_i16(api);
        frame.put_i16(version);
        frame.put_i32(42);
        frame.put_i16(-1);
        frame.put_slice(body);
        self.send_bytes(&frame);
    }

    /// The body of the next answer, or `None` when the connection was closed.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut prefix = [0; 8];
        match self.0.read_exact(&mut prefix) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return None;
            }
            Err(error) => panic!("neither an answer nor an end: {error}"),
        }
        let mut fields = &prefix[..];
        let length = usize::try_from(fields.get_i32()).unwrap();
        assert_eq!(fields.get_i32(), 42, "correlation id");
        let mut body = vec![0; length - 4];
        self.0.read_exact(&mut body).unwrap();
        Some(body)
    }

    /// Whether an empty frame comes; if not, the connection was closed.
    pub(crate) fn receive_empty(&mut self) -> bool {
        let mut prefix = [1; 4];
        self.0.read_exact(&mut prefix).is_ok() && prefix == [0; 4]
    }

    /// Produces a batch with version 7.
    pub(crate) fn send_produce(&mut self, topic: &str, partition: i32, records: &[u8]) {
        self.send_produce_to(topic, &[(partition, records)]);
    }

    /// Produces a batch for each of several partitions in one request.
    pub(crate) fn send_produce_to(&mut self, topic: &str, partitions: &[(i32, &[u8])]) {
        let mut body = Vec::new();
        body.put_i16(-1);
        body.put_i16(-1);
        body.put_i32(1_000);
        body.put_i32(1);
        put_string(&mut body, topic);
        body.put_i32(i32::try_from(partitions.len()).unwrap());
        for (partition, records) in partitions {
            body.put_i32(*partition);
            body.put_i32(i32::try_from(records.len()).unwrap());
            body.put_slice(records);
        }
        self.send(0, 7, &body);
    }

    pub(crate) fn receive_stored(&mut self) -> Option<Stored> {
        let mut stored = self.receive_all_stored()?;
        assert_eq!(stored.len(), 1, "partitions");
        stored.pop()
    }

    /// The answer for each partition of the request, in its order.
    pub(crate) fn receive_all_stored(&mut self) -> Option<Vec<Stored>> {
        let body = self.receive()?;
        let mut fields = &body[..];
        assert_eq!(fields.get_i32(), 1, "topics");
        let name = usize::try_from(fields.get_i16()).unwrap();
        fields.advance(name);
        let mut stored = Vec::new();
        for _ in 0..fields.get_i32() {
            let _partition = fields.get_i32();
            stored.push(Stored { error: fields.get_i16(), offset: fields.get_i64(), throttle_ms: 0 });
            fields.advance(16);
        }
        let throttle_ms = fields.get_i32();
        assert!(!fields.has_remaining());
        stored.iter_mut().for_each(|stored| stored.throttle_ms = throttle_ms);
        Some(stored)
    }

    pub(crate) fn produce(&mut self, batch: Batch) -> Option<Stored> {
        self.send_produce("t", 0, &batch.encode());
        self.receive_stored()
    }

    /// Asks for records of partition 0 of `t` with version 4.
    pub(crate) fn send_fetch(&mut self, offset: i64, wait_ms: i32) {
        let mut body = Vec::new();
        body.put_i32(-1);
        body.put_i32(wait_ms);
        body.put_i32(1);
        body.put_i32(1_000_000);
        body.put_i8(0);
        body.put_i32(1);
        put_string(&mut body, "t");
        body.put_i32(1);
        body.put_i32(0);
        body.put_i64(offset);
        body.put_i32(1_000_000);
        self.send(1, 4, &body);
    }

    /// Asks for the next offset of partition 0 of `t` with version 1, and returns the error.
    pub(crate) fn list_latest(&mut self) -> i16 {
        let mut body = Vec::new();
        body.put_i32(-1);
        body.put_i32(1);
        put_string(&mut body, "t");
        body.put_i32(1);
        body.put_i32(0);
        body.put_i64(-1);
        self.send(2, 1, &body);
        let answer = self.receive().unwrap();
        (&answer[4 + 2 + 1 + 4 + 4..]).get_i16()
    }

    /// The error and the records of a fetch.
    pub(crate) fn receive_fetched(&mut self) -> (i16, Vec<u8>) {
        let body = self.receive().unwrap();
        let mut fields = &body[4 + 4 + 2 + 1 + 4 + 4..];
        let error = fields.get_i16();
        fields.advance(8 + 8 + 4);
        let bytes = usize::try_from(fields.get_i32()).unwrap();
        assert_eq!(bytes, fields.remaining());
        (error, fields.to_vec())
    }
}

pub(crate) fn put_string(output: &mut Vec<u8>, text: &str) {
    output.put_i16(i16::try_from(text.len()).unwrap());
    output.put_slice(text.as_bytes());
}
