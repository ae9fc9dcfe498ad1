//! From settings to a stream that AMQP can be spoken on: TCP, a proxy, TLS, WebSocket.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::{Connection, Proxy, Transport};
use super::http::Head;
use super::websocket::{self, WebSocket};
use crate::tls;

/// Opens streams to a namespace.
#[derive(Debug)]
pub(super) struct Dialer {
    host: String,
    port: u16,
    tls: Option<Tls>,
    transport: Transport,
    proxy: Option<Proxy>,
}

/// A stream to the service, whatever is below AMQP.
#[derive(Debug)]
pub(super) enum Stream {
    /// Without TLS: an emulator only.
    Plain(TcpStream),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// WebSocket over one of the others.
    WebSocket(Box<WebSocket<Stream>>),
}

struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// Why the settings cannot work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetUpError {
    /// The certificates to trust.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// A host that TLS has no name for.
    #[error("{0} is not a host's name")]
    Host(String),
    /// Entra is to sign in, and there is no source of tokens.
    #[error("no credential is configured that tokens of Microsoft Entra could come from")]
    NoTokens,
}

/// Largest file with a proxy's credentials.
const CREDENTIALS_BYTES_MAX: u64 = 1024;

// === impl Dialer ===

impl Dialer {
    /// Reads the certificates. Blocks on the disk.
    pub(super) fn new(connection: &Connection) -> Result<Self, SetUpError> {
        let host = connection.host().to_owned();
        let tls = if connection.tls() {
            let config = tls::client(connection.ca_file.as_deref())?;
            let name = ServerName::try_from(host.clone()).map_err(|_| SetUpError::Host(host.clone()))?;
            Some(Tls { connector: TlsConnector::from(Arc::clone(&config)), name })
        } else {
            None
        };
        let (port, transport, proxy) = (connection.port(), connection.transport, connection.proxy.clone());
        Ok(Self { host, port, tls, transport, proxy })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Opens a stream. The caller sets the deadline.
    ///
    /// # Cancel safety
    ///
    /// Cancelling it closes what was opened.
    pub(super) async fn dial(&self) -> io::Result<Stream> {
        let tcp = match &self.proxy {
            None => connect(&self.host, self.port).await?,
            Some(proxy) => self.tunnel(proxy).await?,
        };
        let stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some(tls) => Stream::Tls(Box::new(tls.connector.connect(tls.name.clone(), tcp).await?)),
        };
        match self.transport {
            Transport::Tcp => Ok(stream),
            Transport::WebSocket => {
                let usual = if self.tls.is_some() { 443 } else { 80 };
                let port = if self.port == usual { String::new() } else { format!(":{}", self.port) };
                let upgraded = websocket::upgrade(stream, &format!("{}{port}", self.host)).await?;
                Ok(Stream::WebSocket(Box::new(upgraded)))
            }
        }
    }

    /// Asks a proxy for a tunnel.
    async fn tunnel(&self, proxy: &Proxy) -> io::Result<TcpStream> {
        let mut stream = connect(&proxy.host, proxy.port).await?;
        let target = format!("{}:{}", self.host, self.port);
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(file) = &proxy.credentials_file {
            let credentials = BASE64.encode(read_credentials(file)?);
            request.push_str(&format!("Proxy-Authorization: Basic {credentials}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        let (head, rest) = Head::read(&mut stream).await?;
        if !(200..300).contains(&head.status) {
            return Err(io::Error::other(format!("the proxy answered {}", head.status)));
        }
        if !rest.is_empty() {
            return Err(io::Error::other("the proxy sent more than its answer"));
        }
        Ok(stream)
    }
}

/// Small frames go at once: a link costs several round trips, and waiting for more to send adds 40 ms to each.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn read_credentials(file: &Path) -> io::Result<String> {
    let named = |reason: String| io::Error::other(format!("{}: {reason}", file.display()));
    let length = std::fs::metadata(file).map_err(|error| named(error.to_string()))?.len();
    if length > CREDENTIALS_BYTES_MAX {
        return Err(named("too long for NAME:PASSWORD".to_owned()));
    }
    let text = std::fs::read_to_string(file).map_err(|error| named(error.to_string()))?;
    let text = text.trim();
    if text.contains(['\n', '\r']) || !text.contains(':') {
        return Err(named("not one line with NAME:PASSWORD".to_owned()));
    }
    Ok(text.to_owned())
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

// === impl Stream ===

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::WebSocket(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::WebSocket(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::WebSocket(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::WebSocket(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
