//! The few requests that a test makes to a broker itself: what is there, make a topic, add partitions.
//!
//! Written out by hand, so that whoever only starts a broker needs no client library. Only versions without
//! tagged fields, in both directions.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest time for a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// No answer here is longer, in bytes.
const ANSWER_MAX: usize = 1 << 20;
/// The number that ties an answer to its request; there is one request per connection.
const CORRELATION: i32 = 1;

/// Requests by number and version.
const METADATA: (i16, i16) = (3, 1);
const CREATE_TOPICS: (i16, i16) = (19, 2);
const CREATE_PARTITIONS: (i16, i16) = (37, 0);

/// Partitions of the named topics that have a leader, in the order of `topics`; 0 for a topic that is not there.
pub(super) fn led_partitions(broker: SocketAddr, topics: &[&str]) -> io::Result<Vec<usize>> {
    let mut body = Vec::new();
    put_count(&mut body, topics.len());
    topics.iter().for_each(|topic| put_text(&mut body, topic));
    let answer = ask(broker, METADATA, &body)?;
    let found = Answer(&answer).metadata()?;
    let led = |topic: &&str| found.iter().find(|(name, _)| name == topic).map_or(0, |(_, led)| *led);
    Ok(topics.iter().map(led).collect())
}

/// Makes a topic with settings of its own.
pub(super) fn create_topic(
    broker: SocketAddr,
    name: &str,
    partitions: u32,
    settings: &[(&str, &str)],
) -> io::Result<()> {
    let mut body = Vec::new();
    put_count(&mut body, 1);
    put_text(&mut body, name);
    body.extend(partitions.to_be_bytes());
    body.extend(1_i16.to_be_bytes());
    put_count(&mut body, 0);
    put_count(&mut body, settings.len());
    for (key, value) in settings {
        put_text(&mut body, key);
        put_text(&mut body, value);
    }
    put_end(&mut body);
    let answer = ask(broker, CREATE_TOPICS, &body)?;
    Answer(&answer).results()
}

/// Gives a topic as many partitions as this, which is more than it has.
pub(super) fn grow_topic(broker: SocketAddr, name: &str, partitions: u32) -> io::Result<()> {
    let mut body = Vec::new();
    put_count(&mut body, 1);
    put_text(&mut body, name);
    body.extend(partitions.to_be_bytes());
    body.extend((-1_i32).to_be_bytes());
    put_end(&mut body);
    let answer = ask(broker, CREATE_PARTITIONS, &body)?;
    Answer(&answer).results()
}

/// How long the broker may take, and that it is meant.
fn put_end(body: &mut Vec<u8>) {
    body.extend(8000_i32.to_be_bytes());
    body.push(0);
}

fn put_count(body: &mut Vec<u8>, count: usize) {
    body.extend(i32::try_from(count).unwrap_or(i32::MAX).to_be_bytes());
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend(i16::try_from(text.len()).unwrap_or(i16::MAX).to_be_bytes());
    body.extend(text.as_bytes());
}

/// Sends one request and reads the body of its answer.
fn ask(broker: SocketAddr, (api, version): (i16, i16), body: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&broker, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&frame(api, version, body))?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = usize::try_from(i32::from_be_bytes(size)).unwrap_or(usize::MAX);
    if !(4..=ANSWER_MAX).contains(&size) {
        return Err(strange("an answer of no good size"));
    }
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer)?;
    let body = answer.split_off(4);
    if answer != CORRELATION.to_be_bytes() {
        return Err(strange("the answer to another request"));
    }
    Ok(body)
}

fn frame(api: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(api.to_be_bytes());
    header.extend(version.to_be_bytes());
    header.extend(CORRELATION.to_be_bytes());
    put_text(&mut header, "testkit");
    let mut frame = Vec::new();
    put_count(&mut frame, header.len() + body.len());
    frame.extend(header);
    frame.extend(body);
    frame
}

fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// What is left of an answer's body.
struct Answer<'a>(&'a [u8]);

impl<'a> Answer<'a> {
    fn take(&mut self, bytes: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) =
            self.0.split_at_checked(bytes).ok_or_else(|| strange("an answer that ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn short(&mut self) -> io::Result<i16> {
        self.take(2).map(|bytes| bytes.iter().fold(0, |value, byte| value << 8 | i16::from(*byte)))
    }

    fn long(&mut self) -> io::Result<i32> {
        self.take(4).map(|bytes| bytes.iter().fold(0, |value, byte| value << 8 | i32::from(*byte)))
    }

    /// `None` for one that is absent.
    fn text(&mut self) -> io::Result<Option<String>> {
        let Ok(size) = usize::try_from(self.short()?) else { return Ok(None) };
        Ok(Some(String::from_utf8_lossy(self.take(size)?).into_owned()))
    }

    /// The items of a list, each read by `item`.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> io::Result<T>) -> io::Result<Vec<T>> {
        let count = self.long()?;
        (0..count).map(|_| item(self)).collect()
    }

    /// The topics without an error and how many of their partitions have a leader.
    fn metadata(&mut self) -> io::Result<Vec<(String, usize)>> {
        let brokers = self.list(|broker| {
            broker.long()?;
            broker.text()?;
            broker.long()?;
            broker.text()
        })?;
        if brokers.is_empty() {
            return Err(strange("no broker is registered yet"));
        }
        self.long()?;
        self.list(|topic| {
            topic.short()?;
            let name = topic.text()?.unwrap_or_default();
            topic.take(1)?;
            let led = topic.list(|partition| {
                let error = partition.short()?;
                partition.long()?;
                let leader = partition.long()?;
                partition.list(Self::long)?;
                partition.list(Self::long)?;
                Ok(error == 0 && leader >= 0)
            })?;
            Ok((name, led.into_iter().filter(|led| *led).count()))
        })
    }

    /// The outcome for each topic of a change: the first error.
    fn results(&mut self) -> io::Result<()> {
        self.long()?;
        let refused = self.list(|topic| {
            let name = topic.text()?.unwrap_or_default();
            let code = topic.short()?;
            let message = topic.text()?.unwrap_or_default();
            Ok((code != 0).then(|| format!("topic {name}: error {code} {message}")))
        })?;
        refused.into_iter().flatten().next().map_or(Ok(()), |refused| Err(io::Error::other(refused)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_says_its_size_and_who_asks() {
        let frame = frame(3, 1, &[0, 0, 0, 0]);
        let expected = [b"\0\0\0\x15\0\x03\0\x01\0\0\0\x01\0\x07testkit".as_slice(), &[0; 4]].concat();
        assert_eq!(frame, expected);
    }

    #[test]
    fn led_partitions_are_counted_by_topic() {
        let mut body = Vec::new();
        put_count(&mut body, 1);
        body.extend(1_i32.to_be_bytes());
        put_text(&mut body, "127.0.0.1");
        body.extend(9092_i32.to_be_bytes());
        body.extend((-1_i16).to_be_bytes());
        body.extend(1_i32.to_be_bytes());
        put_count(&mut body, 1);
        body.extend(0_i16.to_be_bytes());
        put_text(&mut body, "t");
        body.push(0);
        put_count(&mut body, 2);
        for (index, leader) in [(0_i32, 1_i32), (1, -1)] {
            body.extend(0_i16.to_be_bytes());
            body.extend(index.to_be_bytes());
            body.extend(leader.to_be_bytes());
            put_count(&mut body, 1);
            body.extend(1_i32.to_be_bytes());
            put_count(&mut body, 0);
        }
        assert_eq!(Answer(&body).metadata().unwrap(), [("t".to_owned(), 1)]);
        assert!(Answer(body.get(..20).unwrap()).metadata().is_err(), "an answer that ends early");
        assert!(Answer(&[0; 12]).metadata().is_err(), "no broker yet");
    }

    #[test]
    fn a_refusal_names_topic_and_code() {
        let mut body = 0_i32.to_be_bytes().to_vec();
        put_count(&mut body, 1);
        put_text(&mut body, "t");
        body.extend(36_i16.to_be_bytes());
        put_text(&mut body, "it exists");
        assert_eq!(Answer(&body).results().unwrap_err().to_string(), "topic t: error 36 it exists");
    }
}
