//! The order of acknowledgements on one connection.
//!
//! One queue holds, in the order of the publishes ([MQTT-4.6.0-2]), what is owed to the client:
//! PUBACK, PUBREC, PUBCOMP and refusals. Each waits for a ticket of the outbox; when that is
//! durable, everything up to it is released. What waits for nothing of its own, such as a refusal
//! or a PUBCOMP, waits for what was submitted before it.

use std::collections::VecDeque;

use super::codec::Reason;

/// Capacity above which an empty queue gives its memory back, in replies.
const KEPT_MAX: usize = 32;

/// What is owed for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// PUBACK.
    Puback(Reason),
    /// PUBREC.
    Pubrec(Reason),
    /// PUBCOMP.
    Pubcomp(Reason),
    /// PUBREL, for a delivery.
    Pubrel,
    /// A packet of its own, such as SUBACK.
    Packet,
    /// Nothing; marks the end of a submission, whose bytes are free again.
    Submitted,
}

#[derive(Debug, Clone, Copy)]
struct Owed {
    /// The last ticket that must be durable before this is sent.
    ticket: u64,
    bytes: u32,
    id: u16,
    reply: Reply,
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub(super) struct Acks {
    queue: VecDeque<Owed>,
    /// What [`Reply::Packet`] stands for, in order.
    packets: VecDeque<Box<[u8]>>,
    /// The last ticket taken.
    last: u64,
    /// Bytes submitted and not durable.
    bytes: usize,
    /// Replies that end an exchange the client counts against its window.
    open: usize,
}

impl Acks {
    /// Queues a reply. `in_batch` says that something was encoded for the submission that comes next,
    /// so that the reply has to wait for it.
    #[inline]
    pub(super) fn push(&mut self, reply: Reply, id: u16, in_batch: bool) {
        let ticket = self.last + u64::from(in_batch);
        self.open += usize::from(reply.ends_exchange());
        self.queue.push_back(Owed { ticket, bytes: 0, id, reply });
    }

    /// Queues a packet; the rest is as with [`Self::push`].
    pub(super) fn push_packet(&mut self, packet: Box<[u8]>, in_batch: bool) {
        self.packets.push_back(packet);
        self.push(Reply::Packet, 0, in_batch);
    }

    /// Notes that the batch was submitted with `ticket`, the next one of this connection.
    pub(super) fn submitted(&mut self, ticket: u64, bytes: usize) {
        debug_assert_eq!(ticket, self.last + 1, "tickets of a connection are consecutive");
        self.last = ticket;
        self.bytes += bytes;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.queue.push_back(Owed { ticket, bytes, id: 0, reply: Reply::Submitted });
    }

    /// Releases everything up to the durable ticket, in order.
    #[inline]
    pub(super) fn release(&mut self, durable: u64, mut send: impl FnMut(Reply, u16, &[u8])) {
        while let Some(owed) = self.queue.front().copied().filter(|owed| owed.ticket <= durable) {
            self.queue.pop_front();
            if owed.reply == Reply::Submitted {
                self.bytes = self.bytes.saturating_sub(usize::try_from(owed.bytes).unwrap_or(usize::MAX));
            } else if owed.reply == Reply::Packet {
                send(owed.reply, owed.id, &self.packets.pop_front().unwrap_or_default());
            } else {
                self.open -= usize::from(owed.reply.ends_exchange());
                send(owed.reply, owed.id, &[]);
            }
        }
        if self.packets.is_empty() && self.packets.capacity() > 0 {
            self.packets = VecDeque::new();
        }
        if self.queue.is_empty() && self.queue.capacity() > KEPT_MAX {
            self.queue = VecDeque::new();
        }
    }

    /// The last ticket submitted; zero if none was.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Replies and submissions that wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is owed.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes submitted and not durable.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Exchanges that the client counts against its window and that end with a reply queued here.
    pub(super) const fn open(&self) -> usize {
        self.open
    }
}

impl Reply {
    /// Whether the client may send one more publish after it. PUBREC that accepts does not count: the
    /// exchange goes on until PUBCOMP.
    const fn ends_exchange(self) -> bool {
        match self {
            Self::Puback(_) | Self::Pubcomp(_) => true,
            Self::Pubrec(reason) => reason.code() >= 0x80,
            Self::Pubrel | Self::Packet | Self::Submitted => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(acks: &mut Acks, durable: u64) -> Vec<(Reply, u16)> {
        let mut sent = Vec::new();
        acks.release(durable, |reply, id, _| sent.push((reply, id)));
        sent
    }

    const PUBACK: Reply = Reply::Puback(Reason::Success);
    const PUBREC: Reply = Reply::Pubrec(Reason::Success);
    const PUBCOMP: Reply = Reply::Pubcomp(Reason::Success);
    const REFUSAL: Reply = Reply::Puback(Reason::NotAuthorized);

    #[test]
    fn nothing_is_released_before_its_ticket_is_durable() {
        let mut acks = Acks::default();
        acks.push(PUBACK, 1, true);
        acks.push(PUBREC, 2, true);
        acks.submitted(1, 300);
        acks.push(PUBACK, 3, true);
        acks.submitted(2, 100);
        assert_eq!((acks.bytes(), acks.open(), acks.last()), (400, 2, 2));
        assert_eq!(released(&mut acks, 0), []);
        assert_eq!(released(&mut acks, 1), [(PUBACK, 1), (PUBREC, 2)]);
        assert_eq!(acks.bytes(), 100);
        assert_eq!(released(&mut acks, 2), [(PUBACK, 3)]);
        assert!(acks.is_empty() && acks.bytes() == 0 && acks.open() == 0);
    }

    #[test]
    fn refusals_and_pubcomp_wait_for_what_came_before_them_only() {
        let mut acks = Acks::default();
        acks.push(REFUSAL, 1, false);
        acks.push(PUBACK, 2, true);
        acks.push(REFUSAL, 3, true);
        acks.push(PUBCOMP, 4, true);
        acks.submitted(1, 10);
        acks.push(PUBCOMP, 5, false);
        assert_eq!(released(&mut acks, 0), [(REFUSAL, 1)]);
        assert_eq!(released(&mut acks, 1), [(PUBACK, 2), (REFUSAL, 3), (PUBCOMP, 4), (PUBCOMP, 5)]);
    }

    #[test]
    fn packets_keep_their_place_in_the_order() {
        let mut acks = Acks::default();
        acks.push(PUBACK, 1, true);
        acks.push_packet(b"first".as_slice().into(), true);
        acks.push_packet(b"second".as_slice().into(), true);
        acks.submitted(1, 1);
        acks.push(Reply::Pubrel, 2, false);
        let mut sent = Vec::new();
        acks.release(1, |reply, _, packet| sent.push((reply, packet.to_vec())));
        let packet = |text: &[u8]| (Reply::Packet, text.to_vec());
        assert_eq!(sent, [(PUBACK, vec![]), packet(b"first"), packet(b"second"), (Reply::Pubrel, vec![])]);
        assert!(acks.is_empty() && acks.open() == 0);
    }

    #[test]
    fn an_idle_queue_owns_little() {
        let mut acks = Acks::default();
        for id in 1..1000 {
            acks.push(PUBACK, id, true);
        }
        acks.submitted(1, 1);
        assert_eq!(released(&mut acks, 1).len(), 999);
        assert!(acks.queue.capacity() <= KEPT_MAX);
        assert_eq!(size_of::<Owed>(), 16);
    }

    proptest::proptest! {
        #[test]
        fn the_order_of_publishes_is_the_order_of_replies(
            batches in proptest::collection::vec((0_u16..20, 0_u16..5), 1..20), step in 1_u64..5,
        ) {
            let mut acks = Acks::default();
            let (mut next, mut ticket) = (0, 0);
            for (stored, refused) in batches {
                for place in 0..stored + refused {
                    acks.push(if place < stored { PUBACK } else { REFUSAL }, next, stored > 0);
                    next += 1;
                }
                if stored > 0 {
                    ticket += 1;
                    acks.submitted(ticket, 1);
                }
            }
            let mut ids = Vec::new();
            for durable in (0..=ticket + step).step_by(usize::try_from(step).unwrap()) {
                ids.extend(released(&mut acks, durable).into_iter().map(|(_, id)| id));
            }
            proptest::prop_assert_eq!(ids, (0..next).collect::<Vec<_>>());
        }
    }
}
