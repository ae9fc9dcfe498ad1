//! From socket to acknowledgement nothing allocates per message: the devices' stage and the outbox run in this
//! process under an allocator that counts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use penstock::mqtt::{Access, Config, Limits, Listener, OnFull, Service, Topic};
use penstock::outbox;
use penstock::supervise::{Phase, Supervisor, TaskKind, clock};
use penstock_benches::devices;
use penstock_benches::packets::{self, ACK_BYTES, Payloads, Publisher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Counts what asks for memory and passes it on.
mod counting {
    #![expect(unsafe_code, reason = "an allocator that counts has to be an allocator")]

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::atomic::Ordering;

    use super::ALLOCATIONS;

    pub(super) struct Counting;

    // SAFETY: every call goes to the system's allocator unchanged; counting touches one atomic.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the caller's promises are the system allocator's.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: the caller's promises are the system allocator's.
            unsafe { System.dealloc(pointer, layout) }
        }

        unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the caller's promises are the system allocator's.
            unsafe { System.realloc(pointer, layout, size) }
        }
    }
}

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Devices, and publishes each has in flight; the gateway takes 128 at most.
const DEVICES: u32 = 8;
const WINDOW: u16 = 128;

/// Windows sent before and while counting.
const WARM_UP: u32 = 20;
const ROUNDS: u32 = 100;

/// Most allocations per message. A group costs some, whatever its size, so this is not 0.
const PER_MESSAGE_MAX: f64 = 0.1;

/// Longest time for everything.
const DEADLINE: Duration = Duration::from_secs(120);

fn config() -> Config {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        limits: Limits::default(),
        listeners: vec![Listener {
            address,
            tls: None,
            websocket: None,
            receive_buffer: None,
            send_buffer: None,
            on_full: OnFull::default(),
        }],
        access: Access { anonymous: true, ..Access::default() },
        topics: vec![Topic {
            template: "devices/{device}/telemetry".to_owned(),
            lane: penstock_proto::Lane::Telemetry,
        }],
        commands: None,
    }
}

/// One device that sends a window and waits for all of it.
struct Device {
    stream: TcpStream,
    packets: Vec<u8>,
    acks: Vec<u8>,
}

impl Device {
    fn new(stream: TcpStream, index: usize, payloads: &Payloads) -> Self {
        let publisher = Publisher::new(&format!("devices/device-{index:06}/telemetry"), payloads.size())
            .expect("the topic is short");
        let mut packets = Vec::new();
        for id in 1..=WINDOW {
            publisher.push(&mut packets, id, payloads.get(index * usize::from(WINDOW) + usize::from(id)));
        }
        Self { stream, packets, acks: vec![0; usize::from(WINDOW) * ACK_BYTES] }
    }

    async fn acknowledged(&mut self) {
        self.stream.read_exact(&mut self.acks).await.expect("acknowledged");
        for ack in self.acks.as_chunks().0 {
            packets::acknowledged(*ack).expect("a PUBACK");
        }
    }
}

async fn round(devices: &mut [Device]) {
    for device in &mut *devices {
        device.stream.write_all(&device.packets).await.expect("written");
    }
    for device in devices {
        device.acknowledged().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_allocates_from_socket_to_acknowledgement() {
    let folder = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::new();
    let (outbox, log) = outbox::Service::open(outbox::Config::new(folder.path()), &[], &supervisor).unwrap();
    let (service, handle) = Service::bind(&config(), log.appender(), &supervisor).unwrap();
    supervisor.spawn(TaskKind::Mqtt, service.run());
    let payloads = Payloads::new(200).unwrap();
    let streams = devices::connect_all(handle.addresses()[0].address, DEVICES).await.unwrap();
    let mut devices: Vec<Device> = streams
        .into_iter()
        .enumerate()
        .map(|(index, stream)| Device::new(stream, index, &payloads))
        .collect();

    let counted = tokio::time::timeout(DEADLINE, async {
        for _ in 0..WARM_UP {
            round(&mut devices).await;
        }
        let (allocations, commits) =
            (ALLOCATIONS.load(Ordering::Relaxed), log.wait_commit(0, Duration::ZERO));
        for _ in 0..ROUNDS {
            round(&mut devices).await;
        }
        let commits = log.wait_commit(0, Duration::ZERO) - commits;
        (ALLOCATIONS.load(Ordering::Relaxed) - allocations, commits)
    });
    let (allocations, commits) = counted.await.expect("everything is acknowledged before the deadline");

    let messages = f64::from(ROUNDS) * f64::from(DEVICES) * f64::from(WINDOW);
    #[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
    let per_message = allocations as f64 / messages;
    assert!(
        per_message < PER_MESSAGE_MAX,
        "{allocations} allocations for {messages} messages in {commits} commits: {per_message:.3} each"
    );
    assert!(commits > 0, "nothing was committed, so nothing was counted");

    drop(devices);
    supervisor.enter(Phase::FinishPublishes);
    supervisor.idle(TaskKind::Mqtt).await;
    assert!(outbox.close(clock::now() + Duration::from_secs(10)));
}
