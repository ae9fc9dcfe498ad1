"""One record in, its entries out."""

import base64
import json
import os
import random
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..")]

import packing  # noqa: E402
from penstock_consumer import BODY_BYTES_MAX, BadRecord, ForeignRecord, Identity, Pack, entries  # noqa: E402

VECTORS = os.path.join(HERE, "vectors.json")


def as_vector(entry):
    shown = {"seq": entry.identity.seq, "prev": entry.identity.prev, "device": entry.device, "topic": entry.topic}
    shown.update(received_ms=entry.received_ms, payload_base64=base64.b64encode(entry.payload).decode())
    shown["properties"] = {
        name: [list(pair) for pair in value] if name == "user" else value
        for name, value in entry.properties.items()
    }
    return shown


class Vectors(unittest.TestCase):
    def setUp(self):
        with open(VECTORS, encoding="utf-8") as file:
            self.vectors = json.load(file)

    def test_good_vectors_give_their_entries(self):
        self.assertGreater(len(self.vectors["good"]), 10)
        for vector in self.vectors["good"]:
            with self.subTest(vector["name"]):
                found = entries(base64.b64decode(vector["value_base64"]), vector["headers"])
                self.assertEqual([as_vector(entry) for entry in found], vector["entries"])

    def test_bad_vectors_are_refused(self):
        self.assertGreater(len(self.vectors["bad"]), 20)
        for vector in self.vectors["bad"]:
            with self.subTest(vector["name"]), self.assertRaises(BadRecord):
                entries(base64.b64decode(vector["value_base64"]), vector["headers"])

    def test_vectors_that_a_gateway_wrote(self):
        folder = os.path.join(HERE, "..", "..", "..", "docs", "formats", "vectors", "packed-v1")
        with open(os.path.join(folder, "index.json"), encoding="utf-8") as file:
            vectors = json.load(file)
        self.assertGreater(len(vectors), 10)
        for vector in vectors:
            headers = {"penstock": vector["penstock"], "penstock-pack": vector["penstock_pack"]}
            with open(os.path.join(folder, vector["file"]), "rb") as file:
                value = file.read()
            with self.subTest(vector["file"], headers=headers):
                if vector.get("error"):
                    self.assertRaises(BadRecord, entries, value, headers)
                    continue
                found = entries(value, headers)
                self.assertEqual(len(found), len(vector["entries"]))
                for entry, expected in zip(found, vector["entries"]):
                    text = expected.get("json", expected.get("text"))
                    payload = base64.b64decode(expected["base64"]) if text is None else text.encode()
                    shown = (entry.identity.seq, entry.device, entry.topic, entry.received_ms, entry.payload)
                    names = ("seq", "device", "topic", "received_ms")
                    self.assertEqual(shown, tuple(expected[name] for name in names) + (payload,))

    def test_the_file_holds_what_the_packer_makes(self):
        made = json.loads(json.dumps(packing.vectors()))
        # How a value is compressed may differ from one zlib to the next; what is in it may not.
        for vectors in (made, self.vectors):
            for vector in vectors["good"] + vectors["bad"]:
                if "gzip" in vector["name"] or "deflate" in vector["name"]:
                    del vector["value_base64"]
        self.assertEqual(made, self.vectors)


class Headers(unittest.TestCase):
    def test_identities_have_one_spelling(self):
        text = "site-7/00c0ffee12345678/3/2/1041/1038/l"
        self.assertEqual(Identity.parse(text.encode()), Identity("site-7", "00c0ffee12345678", 3, 2, 1041, 1038, "l"))
        self.assertEqual(str(Identity.parse(text)), text)
        for bad in (
            text + "/",
            text.replace("site-7", "site 7"),
            text.replace("00c0ffee", "00C0FFEE"),
            text.replace("/3/", "/03/"),
            text.replace("/3/", "/4294967296/"),
            text.replace("/2/", "/5/"),
            text.replace("/1041/", "/1038/"),
            text.replace("/l", "/x"),
            text.replace("/1041/", "/+1041/"),
            text.replace("/1041/", "/18446744073709551616/"),
            "\u0663".join(text.split("3")),
            text + "\n",
            b"\xff",
            None,
        ):
            with self.subTest(bad), self.assertRaises(BadRecord):
                Identity.parse(bad)

    def test_a_pack_must_fit_its_identity(self):
        def check(pack, seq, prev, fits):
            identity = Identity("g", "00000000000000aa", 1, 2, seq, prev, "l")
            try:
                Pack.parse(pack).check(identity)
                self.assertTrue(fits, (pack, seq, prev))
            except BadRecord:
                self.assertFalse(fits, (pack, seq, prev))

        check("1/ndjson/none/5/3", 7, 4, True)
        check("1/ndjson/none/5/2", 70, 0, True)
        check("1/ndjson/none/5/1", 5, 4, True)
        check("1/ndjson/none/5/4", 7, 4, False)
        check("1/ndjson/none/5/1", 7, 4, False)
        check("1/ndjson/none/5/3", 7, 5, False)
        check("1/ndjson/none/8/1", 7, 4, False)
        check("1/ndjson/none/5/2", 5, 4, False)

    def test_headers_come_in_the_shapes_of_the_clients(self):
        name, value = "penstock", "g/00000000000000aa/1/2/5/4/l"
        for headers in (
            [(name, value.encode())],
            ((name, value.encode()), ("other", b"\xff")),
            {name: value},
            {name.encode(): value.encode(), b"\xff": 1},
        ):
            found = entries(b"payload", headers, b"pump-7", 7)
            self.assertEqual((found[0].identity.seq, found[0].payload, found[0].device), (5, b"payload", "pump-7"))
            self.assertEqual(found[0].received_ms, 7)
        self.assertEqual(entries(b"", [(name, value)], "pump-\u00fc")[0].device, "pump-\u00fc")
        with self.assertRaises(BadRecord):
            entries(b"", [(name, value)], b"\xff")
        for foreign in (None, [], {}, [("other", b"x")]):
            with self.assertRaises(ForeignRecord):
                entries(b"payload", foreign)
        with self.assertRaises(BadRecord):
            entries(b"payload", [(name, value.encode())] * 2)

    def test_other_headers_and_an_empty_value_are_handed_on(self):
        found = entries(None, [("penstock", b"g/00000000000000aa/1/2/5/4/l"), ("unit", b"C")])
        self.assertEqual((found[0].payload, found[0].device), (b"", None))
        self.assertEqual(found[0].properties, {"unit": b"C"})


    def test_full_headers_and_those_of_cloudevents_name_the_topic_and_the_time(self):
        identity = ("penstock", b"g/00000000000000aa/1/2/5/4/l")
        for topic, received in (("penstock-topic", "penstock-received"), ("ce_topic", "ce_receivedtime")):
            headers = [identity, (topic, b"a/b"), (received, b"2023-11-14T22:13:20.123Z")]
            found = entries(b"x", headers, b"pump-7", 7)[0]
            self.assertEqual((found.topic, found.received_ms), ("a/b", 1_700_000_000_123))
            with self.assertRaises(BadRecord):
                entries(b"x", [identity, (received, b"yesterday")])


class Values(unittest.TestCase):
    def test_what_is_packed_is_what_is_read(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        for round in range(60):
            packed, seq, prev = [], rng.randrange(1, 1 << 50), 0
            prev = seq - rng.randrange(1, min(seq, 9) + 1)
            for _ in range(rng.randrange(1, 30)):
                packed.append(packing.entry(seq, payload(rng), text(rng), properties(rng)))
                seq += rng.choice((1, 1, 1, 2, 70))
            for format in ("ndjson", "json-array", "protobuf"):
                compression = rng.choice(("none", "gzip", "deflate"))
                headers, value = packing.packed(format, compression, prev, packed)
                expected = packing.shown("", headers, value, prev, packed)["entries"]
                found = [as_vector(entry) for entry in entries(value, headers)]
                expected = json.loads(json.dumps(expected))
                self.assertEqual(found, expected, f"seed {seed} round {round} {format} {compression}")

    def test_junk_is_refused_and_nothing_else_happens(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        packed = [packing.entry(5, b'{"a":[1,2]}', properties=packing.USER), packing.entry(8, b"\xff")]
        for round in range(3000):
            format = rng.choice(("ndjson", "json-array", "protobuf"))
            headers, value = packing.packed(format, rng.choice(("none", "gzip", "deflate")), 4, packed)
            junk = bytearray(value)
            for _ in range(rng.randrange(1, 4)):
                junk[rng.randrange(len(junk))] = rng.randrange(256)
            try:
                seqs = [entry.identity.seq for entry in entries(bytes(junk), headers)]
                self.assertEqual(seqs, [5, 8], f"seed {seed} round {round}")
            except BadRecord:
                pass
            except Exception as error:  # noqa: BLE001
                self.fail(f"seed {seed} round {round}: {error!r}")

    def test_a_bomb_is_refused(self):
        zeros = b" " * (BODY_BYTES_MAX + 1)
        for compression in ("none", "gzip", "deflate"):
            headers, _ = packing.packed("ndjson", compression, 4, [packing.entry(5, b"1")])
            with self.assertRaisesRegex(BadRecord, "more than"):
                entries(packing.compressed(compression, zeros), headers)

    def test_deep_json_is_refused(self):
        headers, value = packing.packed("ndjson", "none", 4, [packing.entry(5, b"[]")])
        deep = b"[" * 100_000 + b"]" * 100_000
        with self.assertRaises(BadRecord):
            entries(value.replace(b"[]", deep), headers)

    def test_numbers_keep_their_digits(self):
        for payload_text in (b"1" * 5000, b"0.1000", b"1E+2", b"123456789012345678901234567890"):
            headers, value = packing.packed("ndjson", "none", 4, [packing.entry(5, b"7")])
            value = value.replace(b'"payload":7', b'"payload":' + payload_text)
            self.assertEqual(entries(value, headers)[0].payload, payload_text)


def text(rng):
    return "".join(rng.choice('ab"\\/\u00fc\u20ac\U0001f600 ') for _ in range(rng.randrange(1, 9)))


def payload(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return json.dumps({text(rng): rng.random(), "n": [rng.randrange(1 << 70), None, True]}).encode()
    if kind == 1:
        return ("x" + text(rng) + "\n\t" + text(rng)).encode()
    return bytes(rng.randrange(256) for _ in range(rng.randrange(20)))


def properties(rng):
    chosen = {name: value for name, value in packing.PROPERTIES.items() if rng.random() < 0.2}
    if rng.random() < 0.3:
        chosen["user"] = [(text(rng), text(rng)) for _ in range(rng.randrange(1, 5))]
    return chosen


if __name__ == "__main__":
    unittest.main()
