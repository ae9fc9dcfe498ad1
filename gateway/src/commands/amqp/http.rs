//! The two answers of HTTP that stand before a connection: a proxy's to CONNECT and the service's to the upgrade to
//! WebSocket.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    /// The status.
    pub(super) status: u16,
    headers: Vec<(String, String)>,
}

/// Largest head that is read.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEAD_END: &[u8] = b"\r\n\r\n";

impl Head {
    /// Reads a head from the stream; what was read behind it is returned too.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Self, Vec<u8>)> {
        let mut bytes = Vec::new();
        loop {
            let seen = bytes.len().saturating_sub(HEAD_END.len());
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let fresh = bytes.get(seen..).unwrap_or_default();
            if let Some(place) = fresh.windows(HEAD_END.len()).position(|end| end == HEAD_END) {
                let rest = bytes.split_off(seen + place + HEAD_END.len());
                return Ok((Self::parse(&bytes)?, rest));
            }
            if bytes.len() > HEAD_BYTES_MAX {
                return Err(malformed("the answer has no end"));
            }
        }
    }

    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("the answer is not HTTP"))?;
        let mut lines = text.split("\r\n");
        let mut status = lines.next().unwrap_or_default().split(' ');
        let version = status.next().unwrap_or_default();
        let number = status.next().and_then(|number| number.parse().ok());
        match (version.starts_with("HTTP/1."), number) {
            (true, Some(status)) => {
                let headers = lines.filter_map(|line| line.split_once(':'));
                let headers =
                    headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
                Ok(Self { status, headers: headers.collect() })
            }
            _ => Err(malformed("the answer is not HTTP")),
        }
    }

    /// The first header with this name, which is given in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

fn malformed(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(answer: &[u8], expected: Result<(u16, Option<&str>, &[u8]), io::ErrorKind>) {
        let read = Head::read(&mut &*answer).await;
        let seen = read.as_ref().map(|(head, rest)| (head.status, head.header("x-a"), rest.as_slice()));
        assert_eq!(seen.map_err(io::Error::kind), expected, "{}", String::from_utf8_lossy(answer));
    }

    #[tokio::test]
    async fn heads_are_told_from_what_follows() {
        check(b"HTTP/1.1 200 OK\r\n\r\n", Ok((200, None, b""))).await;
        check(b"HTTP/1.0 407 Who?\r\nX-A: one \r\nx-a: two\r\n\r\nrest", Ok((407, Some("one"), b"rest")))
            .await;
        check(b"HTTP/1.1 200", Err(io::ErrorKind::UnexpectedEof)).await;
        check(b"AMQP\x03\x01\x00\x00\r\n\r\n", Err(io::ErrorKind::InvalidData)).await;
        check(b"HTTP/1.1 twenty\r\n\r\n", Err(io::ErrorKind::InvalidData)).await;
        check(&[b'a'; HEAD_BYTES_MAX + 10_000], Err(io::ErrorKind::InvalidData)).await;
    }
}
