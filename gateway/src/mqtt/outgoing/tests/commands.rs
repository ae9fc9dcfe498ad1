//! Commands among other messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use tokio::sync::oneshot::{Receiver, error::TryRecvError};

use super::super::commands::COMMANDS_MAX;
use super::*;

/// Takes a command in that says `payload`.
fn command(outgoing: &mut Outgoing, payload: &str, expires_ms: Option<u64>) -> (u64, Receiver<Fate>) {
    outgoing.command(message("t", payload, expires_ms), Ids::None).expect("there is room")
}

/// What was told, if anything was.
fn told(outgoing: &mut Outgoing, waits: &mut Receiver<Fate>) -> Option<Fate> {
    outgoing.take_fates().tell();
    waits.try_recv().ok()
}

#[test]
fn commands_take_their_turn_and_their_fate_is_told() {
    let mut outgoing = attached(2);
    offer(&mut outgoing, "a", Qos::AtLeastOnce);
    let (_, mut one) = command(&mut outgoing, "b", None);
    offer(&mut outgoing, "c", Qos::AtLeastOnce);
    let (_, mut two) = command(&mut outgoing, "d", None);
    assert_eq!(taken(&mut outgoing), [publish(1, false, "a"), publish(2, false, "b")]);
    assert_eq!(told(&mut outgoing, &mut one), None);
    assert!(outgoing.acknowledged(2, 0).is_some_and(|gone| gone.is_none()), "nothing in the store");
    assert_eq!(told(&mut outgoing, &mut one), Some(Fate::Acknowledged));
    assert!(outgoing.acknowledged(1, 0).is_some());
    assert_eq!(taken(&mut outgoing), [publish(3, false, "c"), publish(4, false, "d")]);
    assert!(outgoing.acknowledged(4, 0x97).is_some() && outgoing.acknowledged(3, 0x10).is_some());
    assert_eq!(told(&mut outgoing, &mut two), Some(Fate::Refused { reason: 0x97 }));
    assert!(outgoing.is_idle() && outgoing.bytes == 0 && outgoing.commands.is_none());
}

#[test]
fn a_connection_takes_its_commands_along_and_leaves_the_rest() {
    let mut outgoing = attached(3);
    let (_, mut sent) = command(&mut outgoing, "sent", None);
    offer(&mut outgoing, "kept", Qos::AtLeastOnce);
    let (_, mut last) = command(&mut outgoing, "last", None);
    let (_, mut waiting) = command(&mut outgoing, "waiting", None);
    assert_eq!(taken(&mut outgoing).len(), 3);
    outgoing.detach();
    for waits in [&mut sent, &mut last, &mut waiting] {
        assert_eq!(told(&mut outgoing, waits), Some(Fate::Gone));
    }
    outgoing.attach(Terms { window: 3, ..Terms::default() });
    assert_eq!(taken(&mut outgoing), [publish(2, true, "kept")]);
    assert!(outgoing.acknowledged(1, 0).is_none());
    assert!(outgoing.acknowledged(2, 0).is_some() && outgoing.is_idle());
}

#[test]
fn the_end_of_a_session_is_the_end_of_its_commands() {
    let mut outgoing = attached(1);
    let (_, mut waits) = command(&mut outgoing, "x", None);
    assert!(outgoing.clear().is_empty());
    assert_eq!(told(&mut outgoing, &mut waits), Some(Fate::Gone));
    assert!(outgoing.is_idle() && outgoing.commands.is_none());
}

#[test]
fn who_does_not_wait_takes_an_unsent_command_back_and_leaves_a_sent_one() {
    let mut outgoing = attached(1);
    let (first, _) = command(&mut outgoing, "first", None);
    let (second, _) = command(&mut outgoing, "second", None);
    let (_, mut third) = command(&mut outgoing, "third", None);
    assert_eq!(taken(&mut outgoing), [publish(1, false, "first")]);
    outgoing.withdraw(second);
    outgoing.withdraw(first);
    assert_eq!(taken(&mut outgoing), [], "the window is taken until the client says so");
    assert!(outgoing.acknowledged(1, 0).is_some());
    assert_eq!(taken(&mut outgoing), [publish(3, false, "third")]);
    outgoing.withdraw(first);
    assert!(outgoing.acknowledged(3, 0).is_some());
    assert_eq!(told(&mut outgoing, &mut third), Some(Fate::Acknowledged));
    assert!(outgoing.is_idle() && outgoing.commands.is_none());
}

#[test]
fn a_command_that_waited_too_long_is_not_sent() {
    let mut outgoing = attached(1);
    let (_, mut sent) = command(&mut outgoing, "sent", Some(5));
    let (_, mut late) = command(&mut outgoing, "late", Some(5));
    assert_eq!(taken_at(&mut outgoing, 4).len(), 1);
    assert!(outgoing.acknowledged(1, 0).is_some());
    assert_eq!(taken_at(&mut outgoing, 5), []);
    assert_eq!(told(&mut outgoing, &mut sent), Some(Fate::Acknowledged));
    assert_eq!(told(&mut outgoing, &mut late), Some(Fate::Expired));
    assert_eq!(outgoing.take_gone().1, Losses { expired: 1, ..Losses::default() });
}

#[test]
fn commands_have_a_bound_of_their_own() {
    let mut outgoing = attached(1);
    for _ in 0..BOUNDS.queue_messages_max {
        assert!(matches!(offer(&mut outgoing, "x", Qos::AtLeastOnce), Offered::Queued { .. }));
    }
    let commands: Vec<_> = (0..COMMANDS_MAX).map(|_| command(&mut outgoing, "c", None)).collect();
    assert!(outgoing.command(message("t", "c", None), Ids::None).is_err());
    assert_eq!(offer(&mut outgoing, "x", Qos::AtLeastOnce), Offered::Dropped(Loss::Full));
    assert!(!taken(&mut outgoing).is_empty() && outgoing.acknowledged(1, 0).is_some());
    assert!(matches!(offer(&mut outgoing, "x", Qos::AtLeastOnce), Offered::Queued { .. }));
    outgoing.withdraw(commands[0].0);
    command(&mut outgoing, "c", None);
}

#[test]
fn a_topic_that_never_comes_again_takes_no_alias() {
    let mut outgoing = Outgoing::default();
    outgoing.attach(Terms { version: Version::V5, window: 9, packet_bytes_max: usize::MAX, aliases_max: 1 });
    command(&mut outgoing, "", None);
    let mut out = Vec::new();
    outgoing.take(&mut out, true, BOUNDS, 0);
    assert_eq!(out, [0x32, 6, 0, 1, b't', 0, 1, 0]);
    outgoing.offer(&message("ab", "", None), grant(Qos::AtMostOnce), true, BOUNDS, 0);
    out.clear();
    outgoing.take(&mut out, true, BOUNDS, 0);
    assert_eq!(out, [0x30, 8, 0, 2, b'a', b'b', 3, 0x23, 0, 1]);
}

#[derive(Debug, Clone)]
enum Step {
    Offer {
        qos: u8,
    },
    Confirm,
    Command {
        lives_ms: Option<u64>,
    },
    Read,
    /// The client answers one of what is on its way.
    Answer {
        pick: usize,
        refuse: bool,
    },
    /// Nobody waits for one of the commands any more.
    Forget {
        pick: usize,
    },
    Reconnect {
        window: usize,
    },
    Wait {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u8..3).prop_map(|qos| Step::Offer { qos }),
        2 => Just(Step::Confirm),
        3 => proptest::option::of(1_u64..20).prop_map(|lives_ms| Step::Command { lives_ms }),
        3 => Just(Step::Read),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(pick, refuse)| Step::Answer { pick, refuse }),
        1 => any::<usize>().prop_map(|pick| Step::Forget { pick }),
        1 => (1_usize..4).prop_map(|window| Step::Reconnect { window }),
        1 => (1_u64..10).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// A queue, and what somebody who only sees its packets and its answers knows about it. Messages and
/// commands are numbered in the order in which they were handed in.
struct Model {
    outgoing: Outgoing,
    now_ms: u64,
    window: usize,
    next: u64,
    /// Messages in the queue, by number.
    waiting: BTreeMap<u64, Qos>,
    commands: BTreeMap<u64, Command>,
    /// Places in the store that are not durable yet.
    held: VecDeque<u64>,
    /// What is on its way on this connection, by packet id.
    open: BTreeMap<u16, u64>,
    /// QoS 2 that the client has, by packet id.
    released: BTreeMap<u16, u64>,
    /// The last number that this connection saw.
    last: Option<u64>,
}

struct Command {
    order: u64,
    waits: Option<Receiver<Fate>>,
    expires_ms: Option<u64>,
    seen: bool,
    /// What must have been told.
    fate: Option<Fate>,
}

impl Model {
    fn new() -> Self {
        Self {
            outgoing: attached(2),
            now_ms: 0,
            window: 2,
            next: 1,
            waiting: BTreeMap::new(),
            commands: BTreeMap::new(),
            held: VecDeque::new(),
            open: BTreeMap::new(),
            released: BTreeMap::new(),
            last: None,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Offer { qos } => self.offer(Qos::from_number(qos)),
            Step::Confirm => self.held.pop_front().into_iter().for_each(|order| self.outgoing.confirm(order)),
            Step::Command { lives_ms } => self.command(lives_ms),
            Step::Read => self.read(),
            Step::Answer { pick, refuse } => self.answer(pick, refuse),
            Step::Forget { pick } => self.forget(pick),
            Step::Reconnect { window } => self.reconnect(window),
            Step::Wait { ms } => self.now_ms += ms,
        }
        self.listen();
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn offer(&mut self, qos: Qos) {
        let number = self.number();
        let message = message("t", &number.to_string(), None);
        match self.outgoing.offer(&message, grant(qos), true, BOUNDS, self.now_ms) {
            Offered::Queued { order, .. } => {
                assert!(qos != Qos::AtMostOnce && self.waiting.len() < BOUNDS.queue_messages_max);
                self.held.push_back(order);
                self.waiting.insert(number, qos);
            }
            Offered::Done => assert_eq!(qos, Qos::AtMostOnce),
            Offered::Dropped(_) if qos == Qos::AtMostOnce => {}
            Offered::Dropped(loss) => {
                let full = self.waiting.len() == BOUNDS.queue_messages_max;
                assert!(loss == Loss::Full && full, "commands take no place of others");
            }
        }
    }

    fn command(&mut self, lives_ms: Option<u64>) {
        let number = self.number();
        let expires_ms = lives_ms.map(|ms| self.now_ms + ms);
        let message = message("t", &number.to_string(), expires_ms);
        if let Ok((order, waits)) = self.outgoing.command(message, Ids::None) {
            let command = Command { order, waits: Some(waits), expires_ms, seen: false, fate: None };
            self.commands.insert(number, command);
        }
    }

    /// Reads what is sent and checks it.
    fn read(&mut self) {
        for seen in taken_at(&mut self.outgoing, self.now_ms) {
            match seen {
                Seen::Publish { id: 0, .. } => {}
                Seen::Publish { id, dup, payload, .. } => {
                    let number = payload.parse().expect("a number");
                    assert!(self.last < Some(number), "{number} comes behind {:?}", self.last);
                    self.last = Some(number);
                    assert!(self.open.len() < self.window, "{number} beyond the window");
                    assert_eq!(self.open.insert(id, number), None, "an id in use");
                    if let Some(command) = self.commands.get_mut(&number) {
                        assert!(!dup && !command.seen && command.fate.is_none(), "{number} is sent once");
                        command.seen = true;
                    }
                }
                Seen::Pubrel(id) => {
                    let number = self.released[&id];
                    assert_eq!(self.open.insert(id, number), None);
                }
            }
        }
    }

    fn answer(&mut self, pick: usize, refuse: bool) {
        self.read();
        let free = (1..u16::MAX).find(|id| !self.open.contains_key(id)).expect("few are in use");
        assert!(self.outgoing.acknowledged(free, 0).is_none(), "nobody waits for it");
        let Some((id, number)) = self.open.iter().nth(pick % self.open.len().max(1)) else { return };
        let (id, number) = (*id, *number);
        let reason = if refuse { 0x80 } else { 0 };
        let qos = self.waiting.get(&number).copied();
        if qos == Some(Qos::ExactlyOnce) && !self.released.contains_key(&id) {
            let received = self.outgoing.received(id, !refuse);
            if !refuse {
                assert!(matches!(received, Received::Release(_)));
                self.released.insert(id, number);
                return;
            }
            assert!(matches!(received, Received::Ended(_)));
        } else if qos == Some(Qos::ExactlyOnce) {
            assert!(self.outgoing.completed(id).is_some());
            self.released.remove(&id);
        } else {
            assert!(self.outgoing.acknowledged(id, reason).is_some());
        }
        self.open.remove(&id);
        self.waiting.remove(&number);
        if let Some(command) = self.commands.get_mut(&number) {
            command.fate = Some(if refuse { Fate::Refused { reason } } else { Fate::Acknowledged });
        }
    }

    fn forget(&mut self, pick: usize) {
        // What is encoded counts as sent.
        self.read();
        let count = self.commands.len().max(1);
        let Some(command) = self.commands.values_mut().nth(pick % count) else { return };
        self.outgoing.withdraw(command.order);
        command.waits = None;
        if !command.seen {
            command.fate.get_or_insert(Fate::Gone);
        }
    }

    fn reconnect(&mut self, window: usize) {
        self.outgoing.detach();
        self.outgoing.attach(Terms { window, ..Terms::default() });
        self.window = window;
        self.open.clear();
        self.last = None;
        for command in self.commands.values_mut() {
            command.fate.get_or_insert(Fate::Gone);
        }
    }

    /// Hears what became of commands.
    fn listen(&mut self) {
        self.outgoing.take_fates().tell();
        for (number, command) in &mut self.commands {
            let Some(waits) = &mut command.waits else { continue };
            match waits.try_recv() {
                Err(TryRecvError::Empty) => assert_eq!(command.fate, None, "of {number}"),
                Ok(Fate::Expired) => {
                    assert!(!command.seen && command.expires_ms.is_some_and(|at| at <= self.now_ms));
                    command.fate = Some(Fate::Expired);
                    command.waits = None;
                }
                Ok(fate) => {
                    assert_eq!(Some(fate), command.fate, "of {number}");
                    command.waits = None;
                }
                Err(TryRecvError::Closed) => panic!("nothing is told of {number}"),
            }
        }
    }

    /// Lets everything that is left come to its end.
    fn finish(&mut self) {
        self.reconnect(7);
        while !self.held.is_empty() {
            self.step(&Step::Confirm);
        }
        loop {
            self.step(&Step::Read);
            if self.open.is_empty() {
                break;
            }
            self.step(&Step::Answer { pick: 0, refuse: false });
        }
        assert!(self.waiting.is_empty() && self.outgoing.is_idle() && self.outgoing.commands.is_none());
        assert_eq!((self.outgoing.bytes, self.outgoing.sent), (0, 0));
        assert!(self.commands.values().all(|command| command.fate.is_some() || command.waits.is_none()));
    }
}

proptest! {
    #[test]
    fn a_queue_with_commands_keeps_its_order_its_window_and_its_word(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step);
        }
        model.finish();
    }
}

/// The steps above reach what they are about.
#[test]
fn the_model_sees_every_fate() {
    let mut model = Model::new();
    let steps = [
        Step::Command { lives_ms: None },
        Step::Command { lives_ms: None },
        Step::Command { lives_ms: Some(1) },
        Step::Command { lives_ms: None },
        Step::Read,
        Step::Wait { ms: 2 },
        Step::Answer { pick: 0, refuse: false },
        Step::Answer { pick: 0, refuse: true },
        Step::Read,
        Step::Reconnect { window: 1 },
    ];
    steps.iter().for_each(|step| model.step(step));
    let fates: BTreeSet<_> = model.commands.values().map(|command| format!("{:?}", command.fate)).collect();
    assert_eq!(fates.len(), 4, "{fates:?}");
    model.finish();
}
