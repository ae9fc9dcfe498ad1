//! Devices that connect: the bytes they say first, many at a time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::frames::{self, Frame, Qos};
use crate::packets;

/// Connections that are being made at once: a burst the listener's backlog takes.
const CONNECTING_MAX: usize = 64;

/// Longest time for one CONNECT to be answered.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);

/// How the client ids of devices start unless said otherwise.
pub(crate) const PREFIX: &str = "device-";

/// Most bytes of a CONNACK or SUBACK.
const ANSWER_BYTES: usize = 256;

/// What a device says first.
#[derive(Debug, Clone)]
pub struct Greeting {
    connect: Vec<u8>,
    subscribe: Option<Vec<u8>>,
    version_5: bool,
}

impl Greeting {
    /// MQTT 3.1.1, a clean session, keep alive of half an hour.
    ///
    /// # Errors
    /// The client id is too long.
    pub fn clean(client_id: &str) -> io::Result<Self> {
        Ok(Self { connect: packets::connect(client_id)?, subscribe: None, version_5: false })
    }

    /// MQTT 5, with a session that lasts half an hour longer than the connection.
    ///
    /// # Errors
    /// The client id is too long.
    pub fn lasting(client_id: &str) -> io::Result<Self> {
        Ok(Self { connect: packets::connect_lasting(client_id)?, subscribe: None, version_5: true })
    }

    /// The same with one subscription.
    ///
    /// # Errors
    /// The filter is too long.
    pub fn subscribed(mut self, filter: &str, qos: Qos) -> io::Result<Self> {
        self.subscribe = Some(frames::subscribe(filter, qos, self.version_5)?);
        Ok(self)
    }

    /// Says it and waits for the answers.
    ///
    /// # Errors
    /// The connection fails, or the server refuses.
    pub async fn over(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
        ask(stream, &self.connect, |frame| frame.accepts()).await?;
        if let Some(subscribe) = &self.subscribe {
            ask(stream, subscribe, |frame| frame.grants()).await?;
        }
        Ok(())
    }
}

/// Writes a packet and reads the one that answers it.
async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    packet: &[u8],
    good: fn(&Frame<'_>) -> bool,
) -> io::Result<()> {
    stream.write_all(packet).await?;
    let (mut answer, mut filled) = ([0; ANSWER_BYTES], 0);
    loop {
        let read = stream.read(answer.get_mut(filled..).unwrap_or_default()).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        let seen = answer.get(..filled).unwrap_or_default();
        if let Some(frame) = frames::first(seen)? {
            let whole = frame.bytes == filled && good(&frame);
            return if whole { Ok(()) } else { Err(refused(packet, seen)) };
        }
    }
}

fn refused(packet: &[u8], answer: &[u8]) -> io::Error {
    let kind = packet.first().copied().unwrap_or_default();
    io::Error::other(format!("the server answered packet {kind:#04x} with {answer:02x?}"))
}

/// The client id of the device with this number.
pub fn id(index: impl std::fmt::Display) -> String {
    id_of(PREFIX, index)
}

/// The same for another kind of devices.
pub fn id_of(prefix: &str, index: impl std::fmt::Display) -> String {
    format!("{prefix}{index:0>6}")
}

/// Connects `count` devices with clean sessions, a bounded number at a time.
///
/// # Errors
/// One of them is refused or not answered in time.
pub async fn connect_all(address: SocketAddr, count: u32) -> Result<Vec<TcpStream>> {
    connect_each(address, count, |index| Greeting::clean(&id(index))).await
}

/// Connects `count` devices that say what `greeting` makes of their numbers, a bounded number at a time.
///
/// # Errors
/// One of them is refused or not answered in time.
pub async fn connect_each(
    address: SocketAddr,
    count: u32,
    greeting: impl Fn(u32) -> io::Result<Greeting>,
) -> Result<Vec<TcpStream>> {
    let turns = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut connecting = JoinSet::new();
    for index in 0..count {
        let turn = Arc::clone(&turns).acquire_owned().await?;
        let greeting = greeting(index)?;
        connecting.spawn(async move {
            let stream = connect(address, &greeting).await;
            drop(turn);
            (index, stream)
        });
    }
    let mut streams = Vec::with_capacity(usize::try_from(count)?);
    while let Some(connected) = connecting.join_next().await {
        let (index, stream) = connected?;
        streams.push((index, stream.with_context(|| format!("{} cannot connect", id(index)))?));
    }
    streams.sort_unstable_by_key(|(index, _)| *index);
    Ok(streams.into_iter().map(|(_, stream)| stream).collect())
}

/// Connects one device.
///
/// # Errors
/// It is refused or not answered in time.
pub async fn connect(address: SocketAddr, greeting: &Greeting) -> io::Result<TcpStream> {
    let connect = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        greeting.over(&mut stream).await?;
        Ok(stream)
    };
    tokio::time::timeout(CONNECT_WITHIN, connect).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn meets(greeting: &Greeting, answers: &[u8]) -> io::Result<()> {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(answers).await.unwrap();
        drop(theirs.shutdown().await);
        greeting.over(&mut ours).await
    }

    #[tokio::test]
    async fn a_refusal_and_an_end_are_errors() {
        let greeting = Greeting::clean("d").unwrap();
        meets(&greeting, &[0x20, 2, 0, 0]).await.unwrap();
        let refused = meets(&greeting, &[0x20, 2, 0, 5]).await.unwrap_err();
        assert_eq!(refused.to_string(), "the server answered packet 0x10 with [20, 02, 00, 05]");
        let ended = meets(&greeting, &[0x20, 2, 0]).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_lasting_session_is_asked_for_in_mqtt_5() {
        let greeting = Greeting::lasting("d").unwrap();
        let expected = [0x10, 20, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 7, 8, 5, 0x11, 0, 0, 7, 8, 0, 1, b'd'];
        assert_eq!(greeting.connect[1], u8::try_from(expected.len() - 2).unwrap());
        assert_eq!(greeting.connect[2..], expected[2..]);
        meets(&greeting, &[0x20, 6, 0, 0, 3, 0x21, 0, 9]).await.unwrap();
    }
}
