"""Entries in, verdicts and counts out."""

import json
import os
import random
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..")]

import packing  # noqa: E402
from penstock_consumer import BadRecord, Chains, Entry, ForeignRecord, Identity, Loss, Ranges, Reader  # noqa: E402

LOG = "00000000000000aa"


def entry(prev, seq, gateway="g", log=LOG, lane=2, stream="l", payload=b"", epoch=1):
    return Entry(Identity(gateway, log, epoch, lane, seq, prev, stream), payload)


def loss_event(first, last, gateway="g", lane="telemetry", kind="io.penstock.outbox.loss.v1"):
    data = {"log": LOG, "lane": lane, "first": first, "last": last, "reason": "dead-letter"}
    return json.dumps({"type": kind, "source": f"/gateways/{gateway}", "data": data}).encode()


class ChainsTest(unittest.TestCase):
    def check(self, pairs, expected, losses=(), from_start=True):
        """Offers (prev, seq) pairs; expects (gaps, explained, duplicates, reordered)."""
        chains = Chains(from_start=from_start)
        for prev, seq in pairs:
            chains.offer("t", 0, entry(prev, seq))
        for first, last in losses:
            chains.explain(Loss("g", LOG, 2, first, last, "x"))
        report = chains.report()
        got = (report.gaps, report.explained, report.duplicates, report.reordered)
        self.assertEqual(got, expected, (pairs, losses))
        self.assertEqual(report.entries, len(pairs))

    def test_an_intact_chain_has_nothing_wrong(self):
        self.check([], (0, 0, 0, 0))
        self.check([(0, 3), (3, 4), (4, 90)], (0, 0, 0, 0))

    def test_a_missing_record_is_a_gap(self):
        self.check([(0, 3), (4, 7)], (1, 0, 0, 0))
        self.check([(0, 3), (4, 7), (9, 10), (10, 11)], (2, 0, 0, 0))
        self.check([(2, 3), (3, 4)], (1, 0, 0, 0))

    def test_who_begins_in_the_middle_misses_nothing_before(self):
        self.check([(2, 3), (3, 4)], (0, 0, 0, 0), from_start=False)
        self.check([(2, 3), (4, 5)], (1, 0, 0, 0), from_start=False)

    def test_a_named_loss_explains_the_gap_whose_record_it_names(self):
        self.check([(0, 3), (9, 12)], (0, 1, 0, 0), [(8, 9)])
        self.check([(0, 3), (9, 12)], (1, 0, 0, 0), [(7, 8)])
        self.check([(0, 3), (9, 12), (14, 15)], (1, 1, 0, 0), [(8, 9)])

    def test_a_repeat_is_a_duplicate_and_harms_nothing(self):
        self.check([(0, 3), (3, 4), (3, 4), (0, 3), (4, 5)], (0, 0, 2, 0))

    def test_a_late_first_occurrence_is_reordered_and_closes_its_gap(self):
        self.check([(0, 1), (2, 3), (1, 2)], (0, 0, 0, 1))
        self.check([(0, 1), (3, 4), (1, 2), (2, 3)], (0, 0, 0, 2))
        self.check([(0, 1), (3, 4), (2, 3)], (1, 0, 0, 1))

    def test_a_chain_that_begins_anew_proves_nothing_about_what_lay_between(self):
        self.check([(0, 3), (0, 9), (9, 10)], (1, 0, 0, 0))
        self.check([(0, 3), (0, 4)], (0, 0, 0, 0))

    def test_what_an_entry_meant_is_said_at_once(self):
        chains = Chains()
        offer = lambda prev, seq: tuple(chains.offer("t", 0, entry(prev, seq)))  # noqa: E731
        self.assertEqual(offer(4, 5), (True, False, None))
        self.assertEqual(offer(8, 10), (True, False, (6, 8)))
        self.assertEqual(offer(8, 10), (False, False, None))
        self.assertEqual(offer(6, 8), (True, True, None))
        self.assertEqual([(gap.first, gap.last) for gap in chains.gaps()], [(6, 6)])

    def test_chains_do_not_mix(self):
        chains = Chains(from_start=True)
        others = [{}, {"gateway": "h"}, {"log": "00000000000000ab"}, {"lane": 3}, {"stream": "b"}]
        for topic, partition in (("t", 0), ("t", 1), ("u", 0)):
            for other in others:
                self.assertTrue(chains.offer(topic, partition, entry(0, 5, **other)).new)
        # The epoch is no part of a position.
        self.assertFalse(chains.offer("t", 0, entry(0, 5, epoch=2)).new)
        self.assertEqual((chains.report().gaps, chains.report().duplicates), (0, 1))

    def test_loss_records_of_the_gateway_itself_are_taken(self):
        def explained(payload, lane=1, gateway="g"):
            chains = Chains(from_start=True)
            chains.offer("t", 0, entry(0, 3))
            chains.offer("t", 0, entry(5, 6))
            chains.offer("s", 0, entry(0, 1, lane=lane, gateway=gateway, payload=payload))
            return chains.report().explained == 1

        self.assertTrue(explained(loss_event(4, 5)))
        self.assertFalse(explained(loss_event(4, 4)))
        self.assertFalse(explained(loss_event(4, 5), lane=2), "a device cannot say so")
        self.assertFalse(explained(loss_event(4, 5, gateway="other")), "nor another gateway")
        self.assertFalse(explained(loss_event(4, 5), gateway="h"))
        self.assertFalse(explained(loss_event(4, 5, lane="bulk")))
        self.assertFalse(explained(loss_event(4, 5, kind="io.penstock.other.v1")))
        for junk in (b"x.outbox.loss.v1", b'[".outbox.loss.v1"]', b'{"type":".outbox.loss.v1","data":[]}'):
            self.assertFalse(explained(junk))

    def test_the_state_survives_a_restart(self):
        before = Chains()
        for prev, seq in ((4, 5), (8, 10)):
            before.offer("t", 0, entry(prev, seq))
        before.explain(Loss("g", LOG, 2, 8, 8, "x"))
        after = Chains()
        after.restore(json.loads(json.dumps(before.state())))
        self.assertFalse(after.offer("t", 0, entry(8, 10)).new)
        self.assertEqual((after.report().explained, after.report().duplicates), (1, 1))
        with self.assertRaises(ValueError):
            after.restore({"version": 2})

    def test_memory_is_bounded_and_says_what_it_forgot(self):
        chains = Chains(chains_max=3, ranges_max=4)
        for gap in range(100):
            chains.offer("t", 0, entry(gap * 3 + 2, gap * 3 + 3))
        self.assertEqual(chains.report().joined, 96)
        self.assertEqual(len(list(chains.gaps())), 3)
        for partition in (1, 2):
            chains.offer("t", partition, entry(0, 1))
        chains.offer("t", 1, entry(1, 2))
        chains.offer("t", 3, entry(0, 1))
        self.assertEqual((chains.report().forgotten, len(chains.state()["chains"])), (1, 3))
        self.assertFalse(chains.offer("t", 2, entry(0, 1)).new, "the one unused for longest went")
        for log in range(10):
            chains.explain(Loss("g", f"{log:016x}", 2, 1, 2, "x"))
        self.assertEqual(len(chains.state()["losses"]), 3)
        self.assertEqual(chains.report().joined, 96, "what was counted stays counted")

    def test_ranges_behave_like_a_set(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        for round in range(300):
            ranges, model = Ranges(), set()
            for _ in range(rng.randrange(40)):
                first = rng.randrange(1, 80)
                last = first + rng.randrange(12)
                ranges.add(first, last)
                model.update(range(first, last + 1))
            where = f"seed {seed} round {round}"
            self.assertEqual({at for at in range(100) if at in ranges}, model, where)
            self.assertEqual(ranges.last(), max(model, default=0), where)
            pairs = ranges.pairs()
            self.assertTrue(all(one[1] + 1 < two[0] for one, two in zip(pairs, pairs[1:])), where)
            holes = {at for first, last in ranges.holes() for at in range(first, last + 1)}
            self.assertEqual(holes, set(range(1, ranges.last())) - model, where)

    def test_repeats_of_an_honest_gateway_are_duplicates_only(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        for round in range(200):
            seqs, seq = [], 0
            for _ in range(rng.randrange(1, 40)):
                seq += rng.randrange(1, 9)
                seqs.append(seq)
            chains, sent, fresh = Chains(from_start=True), 0, []
            while sent < len(seqs):
                start, end = rng.randrange(sent + 1), rng.randrange(sent, len(seqs)) + 1
                for place in range(start, end):
                    offered = chains.offer("t", 0, entry(seqs[place - 1] if place else 0, seqs[place]))
                    if offered.new:
                        fresh.append(seqs[place])
                sent = max(sent, end)
            report = chains.report()
            where = f"seed {seed} round {round}"
            self.assertEqual(fresh, seqs, where)
            self.assertEqual((report.gaps, report.reordered), (0, 0), where)
            self.assertEqual(report.entries, len(seqs) + report.duplicates, where)


class ReaderTest(unittest.TestCase):
    def test_packs_cut_differently_give_each_entry_once(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        for round in range(50):
            made = [packing.entry(seq * 2 + 1, b"%d" % seq) for seq in range(40)]
            reader, fresh, at = Reader(Chains(from_start=True)), [], 0
            while at < len(made):
                at = rng.randrange(max(0, at - 6), at + 1)  # a crash: what was confirmed last goes out again
                count = rng.randrange(1, 9)
                pack, prev = made[at : at + count], made[at - 1]["seq"] if at else 0
                format = rng.choice(("ndjson", "json-array", "protobuf"))
                headers, value = packing.packed(format, rng.choice(("none", "deflate")), prev, pack)
                fresh += [each.identity.seq for each in reader.read("t", 0, value, headers)]
                at += len(pack)
            report = reader.report()
            where = f"seed {seed} round {round}"
            self.assertEqual(fresh, [each["seq"] for each in made], where)
            self.assertEqual((report.gaps, report.reordered, report.bad), (0, 0, 0), where)
            self.assertEqual(report.entries, len(made) + report.duplicates, where)

    def test_what_cannot_be_read_is_counted(self):
        reader = Reader()
        with self.assertRaises(ForeignRecord):
            reader.read("t", 0, b"x", None)
        with self.assertRaises(BadRecord):
            reader.read("t", 0, b"x", {"penstock": "x"})
        self.assertEqual(len(reader.read("t", 0, b"x", {"penstock": f"g/{LOG}/1/2/5/4/l"})), 1)
        report = reader.report()
        self.assertEqual((report.records, report.foreign, report.bad, report.entries), (3, 1, 1, 1))

    def test_a_pack_with_an_entry_missing_shows_the_gap(self):
        reader = Reader(Chains(from_start=True))
        for prev, seqs in ((0, (1, 2)), (4, (5, 6))):
            pack = [packing.entry(seq, b"1") for seq in seqs]
            headers, value = packing.packed("ndjson", "gzip", prev, pack)
            reader.read("t", 0, value, headers)
        self.assertEqual([(gap.first, gap.last, gap.explained) for gap in reader.chains.gaps()], [(3, 4, False)])


if __name__ == "__main__":
    unittest.main()
