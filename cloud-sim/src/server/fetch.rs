//! Answers a fetch, and waits for records while there are too few.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::broker::Broker;
use crate::protocol::{DecodeError, ErrorCode, RequestHeader, fetch, finish_response, start_response};

/// Longest wait for records.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Most bytes of records in one answer, besides a first batch that is larger.
const FETCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A fetch that is being answered.
#[derive(Debug)]
pub(super) struct Fetch<'a> {
    broker: &'a Broker,
    header: RequestHeader,
    request: fetch::Request,
    deadline: Instant,
}

impl<'a> Fetch<'a> {
    pub(super) fn decode(
        broker: &'a Broker,
        header: RequestHeader,
        frame: &[u8],
    ) -> Result<Self, DecodeError> {
        let request = fetch::Request::decode(frame, header.body, header.version)?;
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
        Ok(Self { broker, header, request, deadline: Instant::now() + wait })
    }

    /// Writes the whole answer to `output`, as soon as there is enough to say or the wait is over.
    ///
    /// # Cancel safety
    /// A dropped future leaves `output` as it was or with a whole answer.
    pub(super) async fn answer(&self, output: &mut Vec<u8>) {
        let start = output.len();
        let appended = self.broker.appended.notified();
        tokio::pin!(appended);
        loop {
            // Listens before it looks, so that no append falls between.
            appended.as_mut().enable();
            let (bytes, enough) = self.encode(output);
            if enough || Instant::now() >= self.deadline {
                self.broker.counters.bytes_fetched.add(u64::try_from(bytes).unwrap_or(0));
                return;
            }
            output.truncate(start);
            match timeout_at(self.deadline, appended.as_mut()).await {
                Ok(()) => appended.set(self.broker.appended.notified()),
                Err(_elapsed) => {}
            }
        }
    }

    /// Writes an answer. Returns the bytes of records in it, and whether that is enough to answer at once:
    /// as many as wanted, or an error.
    fn encode(&self, output: &mut Vec<u8>) -> (usize, bool) {
        let mut left = usize::try_from(self.request.max_bytes).unwrap_or(0).min(FETCH_BYTES_MAX);
        let mut read_bytes = 0;
        let mut failed = false;
        let start = start_response(output, self.header.correlation);
        fetch::encode(output, self.header.version, &self.request, |output, topic, wanted| {
            if !self.broker.faults.listening() {
                failed = true;
                self.broker.counters.listen_refused.add(1);
                return fetch::Answer { error: ErrorCode::TOPIC_AUTHORIZATION_FAILED, high_watermark: -1 };
            }
            let Some(partition) = self.broker.topics.partition(topic, wanted.index) else {
                failed = true;
                return fetch::Answer { error: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, high_watermark: -1 };
            };
            let before = output.len();
            let bytes_max = usize::try_from(wanted.max_bytes).unwrap_or(0).min(left);
            match partition.read(output, wanted.offset, bytes_max, read_bytes == 0) {
                Ok(high_watermark) => {
                    let bytes = output.len() - before;
                    read_bytes += bytes;
                    left = left.saturating_sub(bytes);
                    fetch::Answer { error: ErrorCode::NONE, high_watermark }
                }
                Err(error) => {
                    failed = true;
                    fetch::Answer { error, high_watermark: partition.high_watermark() }
                }
            }
        });
        finish_response(output, start);
        let enough = failed || read_bytes >= usize::try_from(self.request.min_bytes).unwrap_or(0);
        (read_bytes, enough)
    }
}
