//! The task: one dead-letter queue after the other, page by page.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::Lane;

use super::Settings;
use super::ledger::{Found, Ledger, Seen, Turn};
use super::mark::{self, Mark};
use super::queue::Queue;
use super::source::Source;
use crate::commands::Handle;
use crate::commands::amqp::LinkError;
use crate::commands::contract::{Letter, Status, StatusEvent, Voice};
use crate::commands::dispatch::{Dice, Entities};
use crate::commands::execution::{Event, Standing, Table};
use crate::commands::message::{Body, Received};
use crate::commands::metrics::Metrics;
use crate::outbox::{self, Appender, Completion, Encoded, Permit, Refused, StateOps, Ticket, Urgency};
use crate::supervise::{Phase, Supervisor, clock};

/// What the watcher works with besides the queues.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) entities: Arc<Entities>,
    /// What is in hand here, and what was.
    pub(crate) table: Table,
    pub(crate) voice: Voice,
    pub(crate) outbox: outbox::Handle,
    pub(crate) handle: Handle,
    pub(crate) settings: Settings,
}

/// Watches the dead-letter queues of all entities.
#[derive(Debug)]
pub(crate) struct Watcher<S> {
    source: S,
    desk: Desk,
    appender: Appender,
    /// Empty until what was told of is read from the store.
    queues: Vec<Queue>,
    dice: Dice,
}

/// A page of a dead-letter queue, without bodies.
#[derive(Default)]
struct Page {
    seen: Vec<Seen>,
    /// The same letters in the same order.
    letters: Vec<(Letter, Mark)>,
    unreadable: u64,
    bytes: usize,
}

/// What is told of a page, and remembered of it.
#[derive(Default)]
struct Batch {
    entries: Encoded,
    state: StateOps,
    marks: Vec<Mark>,
    statuses: Vec<Status>,
}

/// What ended a visit to a queue early.
enum Trouble {
    /// The queue could not be looked at.
    Source(LinkError),
    /// A write failed: what the store has now is not known.
    Store,
}

/// Most pages of one queue in a row.
const PAGES_MAX: u32 = 50;
/// The pause before the store is read again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

// === impl Watcher ===

impl<S: Source> Watcher<S> {
    pub(crate) fn new(source: S, desk: Desk, seed: u64) -> Self {
        let appender = desk.outbox.appender();
        Self { source, desk, appender, queues: Vec::new(), dice: Dice::new(seed) }
    }

    /// Watches until the stage ends. What is submitted then is in the outbox with its mark, or not at all.
    pub(crate) async fn run(mut self, supervisor: Supervisor) -> Result<(), Infallible> {
        let shutdown = supervisor.shutdown();
        tokio::select! {
            biased;
            () = shutdown.reached(Phase::FinishPublishes) => Ok(()),
            never = self.watch() => match never {},
        }
    }

    async fn watch(&mut self) -> Infallible {
        loop {
            if self.queues.is_empty() {
                self.open().await;
            }
            let due = self.queues.iter().enumerate().min_by_key(|(_, queue)| queue.due);
            let Some((place, due)) = due.map(|(place, queue)| (place, queue.due)) else { continue };
            tokio::time::sleep_until(due.into()).await;
            if let Err(Trouble::Store) = self.visit(place).await {
                tracing::warn!("commands: what was told of dead letters is read again after a failed write");
                self.queues.clear();
            }
            self.show();
        }
    }

    /// Reads what was told of, as soon as the store can be read.
    async fn open(&mut self) {
        loop {
            if self.desk.outbox.status().poisoned.is_none() {
                match self.load().await {
                    Ok(queues) => {
                        self.queues = queues;
                        return;
                    }
                    Err(error) => tracing::debug!(error, "commands: what was told of is not read"),
                }
            }
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }

    async fn load(&mut self) -> Result<Vec<Queue>, String> {
        let (reader, entities) = (self.appender.state(), Arc::clone(&self.desk.entities));
        let reading = tokio::task::spawn_blocking(move || {
            let mut junk = StateOps::default();
            let names = entities.names();
            let mut marks = mark::load(&reader, names.iter().map(|name| &**name), &mut junk)?;
            let told: Vec<_> = names
                .iter()
                .map(|name| marks.remove(&name.to_ascii_lowercase()).unwrap_or_default())
                .collect();
            Ok::<_, outbox::Error>((told, junk))
        });
        let read = reading.await.map_err(|error| error.to_string())?;
        let (told, junk) = read.map_err(|error| crate::supervise::chain(&error))?;
        self.appender.submit_state(&junk, Urgency::Relaxed, &Arc::default());
        let now = clock::now();
        let interval = self.desk.settings.interval;
        let queues = self.desk.entities.names().iter().zip(told).map(|(name, told)| {
            // Gateways of many sites that start together do not ask together.
            let due = now + self.dice.between(Duration::ZERO, interval.min(Duration::from_secs(5)));
            let mut queue = Queue::new(Arc::clone(name), due);
            queue.ledger = Ledger::new(told);
            queue
        });
        Ok(queues.collect())
    }

    /// Looks at some pages of a queue.
    async fn visit(&mut self, place: usize) -> Result<(), Trouble> {
        let visited = self.pages(place).await;
        let interval = self.desk.settings.interval;
        let Some(queue) = self.queues.get_mut(place) else { return Ok(()) };
        match &visited {
            Ok(()) => queue.looked(interval, &mut self.dice),
            Err(Trouble::Source(error)) => queue.failed(error, &mut self.dice),
            Err(Trouble::Store) => {}
        }
        visited
    }

    async fn pages(&mut self, place: usize) -> Result<(), Trouble> {
        for _ in 0..PAGES_MAX {
            let Some(queue) = self.queues.get_mut(place) else { break };
            let ((from, count), entity) = (queue.ledger.due(), Arc::clone(&queue.entity));
            let peeked = self.source.peek(&entity, from, count).await;
            Metrics::peeked(peeked.as_ref().err().map_or("done", |error| error.word()));
            let page = Page::read(&peeked.map_err(Trouble::Source)?, &entity, &self.desk.entities);
            match queue.ledger.page(&page.seen, page.unreadable, page.bytes) {
                Turn::Page(new) => self.tell(place, &page, &new).await?,
                Turn::Over { found, gone, .. } => {
                    queue.over(found);
                    let mut forgotten = StateOps::default();
                    gone.iter().for_each(|mark| mark.delete(&entity, &mut forgotten));
                    self.appender.submit_state(&forgotten, Urgency::Relaxed, &Arc::default());
                    break;
                }
            }
        }
        Ok(())
    }

    /// Tells of new letters, and remembers that.
    async fn tell(&mut self, place: usize, page: &Page, new: &[usize]) -> Result<(), Trouble> {
        let mut batch = Batch::default();
        for (letter, mark) in new.iter().filter_map(|new| page.letters.get(*new)) {
            let now_ms = clock::unix_ms();
            if !self.has_room(batch.marks.len()) {
                self.note(place, Ledger::held);
                continue;
            }
            match self.desk.table.standing(letter, now_ms) {
                Standing::Open => self.note(place, Ledger::open),
                Standing::Left => self.bury(place, letter, *mark).await?,
                // Remembered, since the record of its device will be that of another command.
                Standing::Ended => batch.remember(letter, *mark),
                Standing::Unknown => {
                    batch.remember(letter, *mark);
                    batch.tell(letter, &self.desk.voice, now_ms);
                }
            }
        }
        self.commit(&batch.entries, &batch.state).await?;
        batch.marks.iter().for_each(|mark| self.note(place, |ledger| ledger.told(*mark)));
        batch.statuses.iter().for_each(|status| Metrics::dead_letter_told(status.word()));
        Ok(())
    }

    /// Ends a command that had begun here, and that nobody goes on with.
    async fn bury(&mut self, place: usize, letter: &Letter, mark: Mark) -> Result<(), Trouble> {
        let permit = self.permit(StatusEvent::BYTES).await?;
        let (appender, done, now_ms) = (&self.appender, Arc::new(Completion::new()), clock::unix_ms());
        let buried = self.desk.table.bury(letter, now_ms, |entries, state| {
            mark.put(&letter.about.identity.entity, state);
            appender.submit(permit, entries, state, &done)
        });
        let Some((seat, status, ticket)) = buried else {
            // Its device is being served again.
            self.note(place, Ledger::open);
            return Ok(());
        };
        let durable = is_durable(&done, ticket).await;
        seat.on(Event::Committed(durable), now_ms);
        if !durable {
            return Err(Trouble::Store);
        }
        self.note(place, |ledger| ledger.told(mark));
        Metrics::dead_letter_told(status.word());
        Ok(())
    }

    /// Returns when it is durable.
    async fn commit(&self, entries: &Encoded, state: &StateOps) -> Result<(), Trouble> {
        if entries.is_empty() && state.is_empty() {
            return Ok(());
        }
        let permit = self.permit(entries.bytes() + state.bytes()).await?;
        let done = Arc::new(Completion::new());
        let ticket = self.appender.submit(permit, entries, state, &done);
        if is_durable(&done, ticket).await { Ok(()) } else { Err(Trouble::Store) }
    }

    /// Waits for room in lane `status`.
    async fn permit(&self, bytes: usize) -> Result<Permit, Trouble> {
        loop {
            match self.appender.reserve(Lane::Status, bytes) {
                Ok(permit) => return Ok(permit),
                Err(Refused::Closed) => return Err(Trouble::Store),
                Err(_) => self.appender.room(Lane::Status).await,
            }
        }
    }

    /// Whether one more letter can be remembered beside those remembered and `more`.
    fn has_room(&self, more: usize) -> bool {
        let remembered: usize = self.queues.iter().map(|queue| queue.ledger.len()).sum();
        remembered + more < self.desk.settings.remembered_max
    }

    fn note(&mut self, place: usize, note: impl FnOnce(&mut Ledger)) {
        if let Some(queue) = self.queues.get_mut(place) {
            note(&mut queue.ledger);
        }
    }

    /// Shows operators how it is.
    fn show(&self) {
        self.desk.handle.update_dead_letters(self.queues.iter().map(Queue::status).collect());
        let mut all = Found::default();
        self.queues.iter().filter_map(Queue::found).for_each(|found| all.add(found));
        Metrics::dead_letters([all.told, all.own, all.open, all.held, all.unreadable]);
    }
}

async fn is_durable(done: &Completion, ticket: Ticket) -> bool {
    let before = Ticket(ticket.0.saturating_sub(1));
    ticket == Ticket::default() || poll_fn(|cx| done.poll_durable(before, cx)).await.is_ok()
}

// === impl Page ===

impl Page {
    fn read(messages: &[Received], entity: &str, entities: &Entities) -> Self {
        let mut page = Self::default();
        for received in messages {
            page.bytes += match &received.body {
                Body::Data(bytes) => bytes.len(),
                Body::Text(text) => text.len(),
                Body::Other(Body::UNDECODABLE) => {
                    page.unreadable += 1;
                    continue;
                }
                Body::Other(_) => 0,
            };
            let device = received.session_id.as_deref().unwrap_or_default();
            let letter = Letter::read(received, entity, entities.tenant(device));
            let mark = Mark::of(&letter.about.identity);
            page.seen.push(Seen { mark, sequence: received.sequence, own: letter.is_told() });
            page.letters.push((letter, mark));
        }
        page
    }
}

// === impl Batch ===

impl Batch {
    fn remember(&mut self, letter: &Letter, mark: Mark) {
        mark.put(&letter.about.identity.entity, &mut self.state);
        self.marks.push(mark);
    }

    fn tell(&mut self, letter: &Letter, voice: &Voice, now_ms: u64) {
        let (about, outcome) = (&letter.about, letter.outcome());
        let event = StatusEvent { about, outcome: &outcome, is_final: true, redelivered: false, now_ms };
        event.push(voice, &mut self.entries);
        self.statuses.push(outcome.status);
    }
}
