//! A gateway's end of a WebSocket against bytes of its client.

use std::future::poll_fn;

use proptest::prelude::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use super::*;

/// A gateway's end and the socket of its client.
async fn pair() -> (WebSocket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let client = TcpStream::connect(address).await.expect("connected");
    let (socket, _) = listener.accept().await.expect("accepted");
    (WebSocket::new(Stream::Plain(socket), Vec::new(), 1024), client)
}

#[tokio::test]
async fn nothing_is_taken_beyond_a_frame_that_the_socket_refuses() {
    let (mut socket, mut client) = pair().await;
    let bytes = vec![7; 100 << 10];
    let mut accepted = 0;
    let full = |cx: &mut Context<'_>| loop {
        match Pin::new(&mut socket).poll_write(cx, &bytes) {
            Poll::Ready(count) => accepted += count.expect("written"),
            Poll::Pending => break Poll::Ready(()),
        }
    };
    poll_fn(full).await;
    let again = |cx: &mut Context<'_>| {
        let more = (0..1000).any(|_| Pin::new(&mut socket).poll_write(cx, &bytes).is_ready());
        Poll::Ready(more)
    };
    assert!(!poll_fn(again).await && accepted > FRAME_BYTES_MAX);
    // Everything that was taken arrives, in frames without masks.
    let drain = async {
        let mut payload = 0;
        while payload < accepted {
            let mut head = [0; 2];
            client.read_exact(&mut head).await.expect("a header");
            assert_eq!(head[0], 0x82);
            let length = match head[1] {
                126 => usize::from(client.read_u16().await.expect("a length")),
                short => usize::from(short),
            };
            let mut part = vec![0; length];
            client.read_exact(&mut part).await.expect("a payload");
            assert!(length <= FRAME_BYTES_MAX && part.iter().all(|byte| *byte == 7));
            payload += length;
        }
        payload
    };
    let (payload, flushed) = tokio::join!(drain, socket.flush());
    flushed.expect("flushed");
    assert_eq!(payload, accepted);
}

#[tokio::test]
async fn only_content_an_end_or_a_breach_is_readable() {
    let check = async |frames: &[&[u8]], readable: bool| {
        let (mut socket, mut client) = pair().await;
        for frame in frames {
            client.write_all(frame).await.expect("written");
        }
        // A pong says that everything before was taken; what follows it is content or nothing.
        client.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.expect("written");
        let mut pong = [0; 2];
        let taken = async {
            tokio::select! {
                () = poll_fn(|cx| socket.poll_readable(cx)) => true,
                _ = client.read_exact(&mut pong) => false,
            }
        };
        assert_eq!(timeout(Duration::from_secs(20), taken).await, Ok(readable), "{frames:02x?}");
    };
    let mask = [0; 4];
    let ping = [&[0x89, 0x80][..], &mask].concat();
    let pong = [&[0x8a, 0x80][..], &mask].concat();
    let empty = [&[0x82, 0x80][..], &mask].concat();
    let begun = [&[0x02, 0x81][..], &mask, b"x"].concat();
    check(&[], false).await;
    check(&[&pong, &empty], false).await;
    check(&[&begun], false).await;
    let content = [&[0x82, 0x81][..], &mask, b"x"].concat();
    check(&[&empty, &content], true).await;
    check(&[&ping, &begun, &[0x80, 0x80, 0, 0, 0, 0]], true).await;
    check(&[&[0x88, 0x80, 0, 0, 0, 0]], true).await;
    check(&[&[0x81, 0x80, 0, 0, 0, 0]], true).await;
    check(&[&[0x82, 0x01, 0]], true).await;
}
/// One frame of a client, with its first byte and the smallest way to write its length.
fn frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => out.push(0x80 | length),
        (_, Ok(length)) => {
            out.push(0x80 | 126);
            out.extend(length.to_be_bytes());
        }
        _ => panic!("no test sends so much"),
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// What the stage reads when a client sends these bytes and hangs up; whether it ended without a breach.
fn heard(bytes: &[u8]) -> (Vec<u8>, bool) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (mut socket, mut client) = pair().await;
        client.write_all(bytes).await.expect("written");
        client.shutdown().await.expect("shut down");
        let mut heard = Vec::new();
        let end = timeout(Duration::from_secs(20), socket.read_to_end(&mut heard)).await.expect("an end");
        (heard, end.is_ok())
    })
}

/// A message as the parts that its frames carry, each with a ping before it or not.
type Parts = Vec<(Vec<u8>, bool)>;

fn messages() -> impl Strategy<Value = Vec<Parts>> {
    let part = (prop::collection::vec(any::<u8>(), 0..300), any::<bool>());
    prop::collection::vec(prop::collection::vec(part, 1..4), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_come_through_however_they_are_cut(messages in messages(), mask: [u8; 4]) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for parts in &messages {
            for (place, (payload, ping)) in parts.iter().enumerate() {
                if *ping {
                    bytes.extend(frame(0x89, mask, b"?"));
                }
                let opcode = if place == 0 { 2 } else { 0 };
                let last = if place + 1 == parts.len() { 0x80 } else { 0 };
                bytes.extend(frame(opcode | last, mask, payload));
                expected.extend_from_slice(payload);
            }
        }
        prop_assert_eq!(heard(&bytes), (expected.clone(), true));
        // What follows a close is not heard, nor is it a breach.
        bytes.extend(frame(0x88, mask, &[]));
        bytes.extend(frame(0x82, mask, b"late"));
        prop_assert_eq!(heard(&bytes), (expected, true));
    }

    #[test]
    fn any_bytes_end_in_content_or_a_breach(bytes in prop::collection::vec(any::<u8>(), 0..200), valid: bool) {
        // Half of them begin with a frame that is heard first.
        let begin = if valid { frame(0x82, [1, 2, 3, 4], b"begin") } else { Vec::new() };
        let (heard, _) = heard(&[&begin[..], &bytes].concat());
        prop_assert!(heard.len() <= begin.len() + bytes.len());
        prop_assert_eq!(heard.starts_with(b"begin"), valid);
    }
}
