//! Devices that publish at a steady rate, on a thread of their own: what they see is what the server does, not what
//! the rest of the generator does on the same processors. The thread asks for real-time priority, as the gateway's
//! committer does; where it gets none, the figures carry the generator's own waits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::sync::{mpsc, oneshot};

use crate::cell::Cell;
use crate::clock::now;
use crate::load::{Running, count};
use crate::packets::Payloads;
use crate::realtime;

/// Requests that may wait for the thread.
const REQUESTS_MAX: usize = 4;

/// The devices; dropped, they are gone.
#[derive(Debug)]
pub struct Steady {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    realtime: bool,
}

/// What the devices saw in a time that was measured.
#[derive(Debug, Clone)]
pub struct Seen {
    /// From the write of a PUBLISH to the read of its PUBACK, in microseconds, of everything sent in that time.
    pub latency: Histogram<u64>,
    /// Acknowledged per second.
    pub acked_per_second: f64,
}

#[derive(Debug)]
enum Request {
    Begin(oneshot::Sender<()>),
    End(oneshot::Sender<Result<Seen>>),
}

impl Seen {
    /// A percentile of the latency, in milliseconds.
    pub fn ms(&self, percentile: f64) -> f64 {
        count(self.latency.value_at_percentile(percentile)) / 1e3
    }
}

impl Steady {
    /// Connects the devices; `rate` messages per second altogether, as far as their windows allow.
    ///
    /// # Errors
    /// A connection is refused, or there is no thread.
    pub async fn start(address: SocketAddr, cell: Cell, payloads: &Arc<Payloads>, rate: u32) -> Result<Self> {
        let (requests, received) = mpsc::channel(REQUESTS_MAX);
        let (tell, told) = oneshot::channel();
        let payloads = Arc::clone(payloads);
        let thread = std::thread::Builder::new().name("steady".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime.context("no runtime for the steady devices") {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(error))),
            };
            runtime.block_on(async move {
                match Running::start(address, cell, &payloads, Some(rate)).await {
                    Ok(running) => {
                        drop(tell.send(Ok(realtime::ask())));
                        serve(running, received).await;
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            });
        })?;
        let realtime = told.await.context("the steady devices' thread ended")??;
        Ok(Self { requests: Some(requests), thread: Some(thread), realtime })
    }

    /// Whether their thread got real-time priority.
    pub fn realtime(&self) -> bool {
        self.realtime
    }

    /// Starts a time that is measured.
    ///
    /// # Errors
    /// The thread is gone.
    pub async fn begin(&self) -> Result<()> {
        let (tell, told) = oneshot::channel();
        self.send(Request::Begin(tell)).await?;
        told.await.context("the steady devices are gone")
    }

    /// Ends it: waits for the acknowledgements of what was sent in it, and tells what they took.
    ///
    /// # Errors
    /// A connection failed, or acknowledgements stay away.
    pub async fn end(&self) -> Result<Seen> {
        let (tell, told) = oneshot::channel();
        self.send(Request::End(tell)).await?;
        told.await.context("the steady devices are gone")?
    }

    /// Measures for so long.
    ///
    /// # Errors
    /// As [`Self::end`].
    pub async fn measure(&self, time: Duration) -> Result<Seen> {
        self.begin().await?;
        tokio::time::sleep(time).await;
        self.end().await
    }

    async fn send(&self, request: Request) -> Result<()> {
        let Some(requests) = &self.requests else { bail!("the steady devices are gone") };
        requests.send(request).await.ok().context("the steady devices are gone")
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // The thread ends with its requests; a panic in it was printed already.
            drop(thread.join());
        }
    }
}

/// Serves requests until nobody can make any.
async fn serve(mut running: Running, mut requests: mpsc::Receiver<Request>) {
    let (mut start, mut acked) = (now(), 0);
    while let Some(request) = requests.recv().await {
        match request {
            Request::Begin(tell) => {
                running.restart_latency();
                (start, acked) = (now(), running.acked());
                let _gone = tell.send(());
            }
            Request::End(tell) => {
                let acked_per_second = count(running.acked() - acked) / start.elapsed().as_secs_f64();
                let seen = match running.check() {
                    Ok(()) => running.finish_latency().await,
                    Err(error) => Err(error),
                };
                drop(tell.send(seen.map(|latency| Seen { latency, acked_per_second })));
            }
        }
    }
    running.stop().await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Accepts one device and acknowledges each of its publishes after `wait`.
    async fn server(listener: TcpListener, publish_bytes: usize, wait: Duration) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut connect = [0; 128];
        assert!(stream.read(&mut connect).await.unwrap() > 0);
        stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        let mut publish = vec![0; publish_bytes];
        while stream.read_exact(&mut publish).await.is_ok() {
            tokio::time::sleep(wait).await;
            let id = &publish[publish_bytes - 202..publish_bytes - 200];
            stream.write_all(&[0x40, 2, id[0], id[1]]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_sent_in_the_measured_time_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let topic_bytes = "devices/device-000000/telemetry".len();
        let wait = Duration::from_millis(30);
        let work = async {
            let payloads = Arc::new(Payloads::new(200).unwrap());
            let steady = Steady::start(address, "1x1".parse().unwrap(), &payloads, 1000).await.unwrap();
            // Ends before the first acknowledgement comes, if it is that fast.
            let seen = steady.measure(Duration::from_millis(15)).await.unwrap();
            assert!(seen.latency.len() <= 2, "{seen:?}");
            let seen = steady.measure(Duration::from_millis(200)).await.unwrap();
            assert!(seen.latency.len() >= 2, "{seen:?}");
            assert!(seen.ms(50.0) >= 30.0, "{seen:?}");
        };
        tokio::select! {
            () = work => {}
            () = server(listener, 3 + 2 + topic_bytes + 2 + 200, wait) => panic!("the server ended"),
        }
    }
}
