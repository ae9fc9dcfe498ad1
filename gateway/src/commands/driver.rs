//! The loop around the dispatcher: presence and reports in, links out.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::dispatch::{Action, Counts, Dispatcher, Entities, EntityNo, LinkNo, Verdict};
use super::link::{self, Cloud, Control, Fleet, News, Order, Report};
use super::metrics::{Metrics, lossy};
use super::status::{EntityStatus, Handle};
use super::trouble::Trouble;
use crate::supervise::{Phase, Shutdown, Supervisor, TaskKind, clock};

/// Longest id of a session ("Service Bus quotas"), in UTF-16 code units as .NET counts characters.
const SESSION_CHARS_MAX: usize = 128;
/// How often operators get a new picture.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Everything that the task works with.
pub(super) struct Driver<C: Cloud, F: Fleet> {
    pub(super) dispatcher: Dispatcher,
    pub(super) entities: Arc<Entities>,
    pub(super) shared: Arc<link::Shared<C, F>>,
    pub(super) supervisor: Supervisor,
    pub(super) handle: Handle,
    /// Every link that has not ended.
    pub(super) links: HashMap<LinkNo, Arc<Control>>,
    /// What went wrong with each entity.
    pub(super) troubles: Vec<Trouble>,
    /// Somebody was told that a device's key is too long.
    pub(super) told_too_long: bool,
    /// The house-keeping that began last.
    pub(super) house: Option<JoinHandle<()>>,
}

/// What woke the loop.
enum Event {
    Changed(Vec<Box<str>>),
    Report(Report),
    Time,
    Stop,
}

impl<C: Cloud, F: Fleet> Driver<C, F> {
    /// Runs until connections end, and then until every link has ended.
    pub(super) async fn run(mut self) -> Result<(), Infallible> {
        let shutdown = self.supervisor.shutdown();
        let mut look_at = clock::now();
        loop {
            let now = clock::now();
            if now >= look_at {
                self.look(now);
                self.keep_house();
                look_at = now + LOOK_INTERVAL;
            }
            self.act(now);
            let wake = self.dispatcher.wake_at(now).map_or(look_at, |wake| wake.min(look_at));
            match self.event(wake, &shutdown).await {
                Event::Changed(devices) => self.changed(&devices),
                Event::Report(report) => self.reported(report),
                Event::Time => {}
                Event::Stop => break,
            }
            while let Some(report) = self.shared.reports.try_next() {
                self.reported(report);
            }
        }
        self.stop().await;
        Ok(())
    }

    async fn event(&self, wake: Instant, shutdown: &Shutdown) -> Event {
        tokio::select! {
            biased;
            () = shutdown.reached(Phase::FinishPublishes) => Event::Stop,
            report = self.shared.reports.next() => Event::Report(report),
            devices = self.shared.fleet.changed() => Event::Changed(devices),
            () = tokio::time::sleep_until(wake.into()) => Event::Time,
        }
    }

    fn changed(&mut self, devices: &[Box<str>]) {
        let now = clock::now();
        for device in devices {
            if self.shared.fleet.is_present(device) {
                if device.encode_utf16().nth(SESSION_CHARS_MAX).is_some() {
                    self.too_long(device);
                    continue;
                }
                let entity = self.entities.of(device);
                self.dispatcher.present(&Arc::from(&**device), entity, now);
            } else {
                self.dispatcher.absent(device, now);
                self.shared.forget(device);
            }
        }
    }

    /// No session can have the key of this device, so it gets no commands.
    fn too_long(&mut self, device: &str) {
        self.shared.metrics.keys_too_long.increment(1);
        if !std::mem::replace(&mut self.told_too_long, true) {
            tracing::warn!(
                device_id = device,
                "commands: a device gets none, because its key is longer than the 128 characters of a session's id; \
                 others like it are only counted"
            );
        }
    }

    fn act(&mut self, now: Instant) {
        while let Some(action) = self.dispatcher.next(now) {
            match action {
                Action::Accept { device, entity, link } => {
                    let control = self.control(link, Order::Serve);
                    let name = self.entities.name(entity);
                    let place = link::Place { entity, name, link, control };
                    let task = link::accept(Arc::clone(&self.shared), place, device);
                    self.supervisor.spawn(TaskKind::CommandLink, task);
                }
                Action::Discover { entity, link } => {
                    let control = self.control(link, Order::Hold);
                    let name = self.entities.name(entity);
                    let place = link::Place { entity, name, link, control };
                    let task = link::discover(Arc::clone(&self.shared), place);
                    self.supervisor.spawn(TaskKind::CommandLink, task);
                }
                Action::Serve { link } => self.tell(link, Order::Serve),
                Action::Finish { link } => self.tell(link, Order::Finish),
                Action::Close { link } => self.tell(link, Order::Close),
            }
        }
    }

    fn control(&mut self, link: LinkNo, order: Order) -> Arc<Control> {
        let control = Arc::new(Control::new(order));
        self.links.insert(link, Arc::clone(&control));
        control
    }

    fn tell(&self, link: LinkNo, order: Order) {
        if let Some(control) = self.links.get(&link) {
            control.tell(order);
        }
    }

    fn reported(&mut self, report: Report) {
        let now = clock::now();
        let Report { link, entity, news, error } = report;
        if let Some(error) = error {
            self.note(entity, error);
        }
        match news {
            News::Accepted { device } => {
                Metrics::accepted(None);
                self.dispatcher.accepted(&device, link, now);
            }
            News::Refused { device, refusal } => {
                Metrics::accepted(Some(refusal));
                self.links.remove(&link);
                self.dispatcher.refused(&device, link, refusal, now);
            }
            News::Found { session } => {
                let verdict = self.dispatcher.found(entity, link, &session, now);
                match verdict {
                    Verdict::Serve => self.tell(link, Order::Serve),
                    Verdict::Park => {}
                    Verdict::Close => self.tell(link, Order::Close),
                }
                Metrics::found(verdict.name());
            }
            News::FoundNone { refusal } => {
                Metrics::found(if refusal.is_none() { "none" } else { "refused" });
                self.links.remove(&link);
                self.dispatcher.found_none(entity, link, refusal, now);
            }
            News::Touched { device } => self.dispatcher.touched(&device, link, now),
            News::Ended { device, why } => {
                self.links.remove(&link);
                self.dispatcher.ended(&device, link, why, now);
                if !self.shared.fleet.is_present(&device) {
                    // Its going may have been no news any more: of those there are so many at most.
                    self.dispatcher.absent(&device, now);
                    self.shared.forget(&device);
                }
            }
        }
    }

    fn note(&mut self, entity: EntityNo, error: String) {
        let Some(trouble) = self.troubles.get_mut(entity.0) else { return };
        if let Some(unlogged) = trouble.note(error.clone(), clock::unix_ms(), clock::now()) {
            let entity = &*self.entities.name(entity);
            tracing::warn!(entity, error, repeats = unlogged, "commands: a link was refused or lost");
        }
    }

    /// Shows operators how it is.
    fn look(&self, now: Instant) {
        let mut all = Counts::default();
        let mut down = 0;
        let statuses = self.entities.names().iter().enumerate().map(|(place, name)| {
            let entity = EntityNo(place);
            let counts = self.dispatcher.counts(entity);
            all.add(&counts);
            let down_for = self.dispatcher.down_for(entity, now);
            down += usize::from(down_for.is_some());
            let error = self.troubles.get(place).and_then(Trouble::newest).cloned();
            EntityStatus {
                entity: name.to_string(),
                links: counts.linked,
                accepting: counts.accepting,
                waiting: counts.ready + counts.pausing,
                passive: counts.passive,
                parked: counts.parked,
                down_ms: down_for.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
                last_error_ms: error.as_ref().map(|(_, at_ms)| *at_ms),
                last_error: error.map(|(text, _)| text),
            }
        });
        self.handle.update(statuses.collect());
        let metrics = &self.shared.metrics;
        metrics.counts(&all);
        metrics.down.set(lossy(down));
        metrics.present.set(lossy(self.shared.fleet.present()));
        self.shared.look();
    }

    /// On a thread for work that blocks. A disk that hangs holds one such thread, not one for each second.
    fn keep_house(&mut self) {
        if self.house.as_ref().is_none_or(JoinHandle::is_finished) {
            let shared = Arc::clone(&self.shared);
            self.house = Some(tokio::task::spawn_blocking(move || shared.keep_house()));
        }
    }

    /// Ends every link and waits until all have. A link whose last write is in doubt ends when somebody has looked, so
    /// the house is kept meanwhile.
    async fn stop(mut self) {
        self.links.values().for_each(|control| control.tell(Order::Stop));
        while !self.links.is_empty() {
            let Ok(report) = timeout(LOOK_INTERVAL, self.shared.reports.next()).await else {
                self.keep_house();
                continue;
            };
            if matches!(report.news, News::Refused { .. } | News::FoundNone { .. } | News::Ended { .. }) {
                self.links.remove(&report.link);
            }
        }
        self.shared.replies.close();
        self.look(clock::now());
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.linked += other.linked;
        self.accepting += other.accepting;
        self.closing += other.closing;
        self.ready += other.ready;
        self.pausing += other.pausing;
        self.passive += other.passive;
        self.asking += other.asking;
        self.parked += other.parked;
    }
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Serve => "served",
            Self::Park => "parked",
            Self::Close => "closed",
        }
    }
}
