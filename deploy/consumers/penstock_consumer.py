"""Reads what Penstock gateways write to Event Hubs: unpacks, drops repeats, proves that nothing is missing.

Python 3.9 or later, standard library only; copy this one file. The byte layouts are docs/formats/record-header-v1.md
and docs/formats/packed-v1.md.

    reader = Reader()
    for record in consumer:
        for entry in reader.read(record.topic(), record.partition(), record.value(), record.headers()):
            handle(entry.device, entry.payload)
    report = reader.report()        # records, duplicates, gaps, ...

`entries` unpacks one record and keeps no state, `Chains` judges entries and keeps bounded state, `Reader` is both.
Nothing here is safe to share between threads without a lock.
"""

import base64
import binascii
import calendar
import json
import re
import zlib
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

IDENTITY_HEADER = "penstock"
PACK_HEADER = "penstock-pack"
LANES = ("alerts", "status", "telemetry", "bulk", "dead")
STATUS = 1
FORMATS = ("ndjson", "json-array", "protobuf")
COMPRESSIONS = ("none", "gzip", "deflate")
LOSS_TYPE_SUFFIX = ".outbox.loss.v1"
#: Most bytes of an inflated value. What gateways write is far below it.
BODY_BYTES_MAX = 16 << 20

_U32 = (1 << 32) - 1
_U64 = (1 << 64) - 1


class BadRecord(ValueError):
    """A record that says it is a gateway's, and cannot be read."""


class ForeignRecord(ValueError):
    """A record without a `penstock` header: somebody else wrote it."""


# === Headers ===


@dataclass(frozen=True)
class Identity:
    """Who an entry is, and which entry went to the same topic, partition, lane and stream before it."""

    gateway: str
    log: str
    epoch: int
    lane: int
    seq: int
    prev: int
    stream: str

    @staticmethod
    def parse(value: Any) -> "Identity":
        """Reads the value of the header `penstock`. Raises BadRecord."""
        text = _text(value, IDENTITY_HEADER)
        parts = text.split("/")
        if len(parts) != 7:
            raise BadRecord(f"expected 7 parts between slashes, found {len(parts)}: {text!r}")
        gateway, log, epoch, lane, seq, prev, stream = parts
        good = re.fullmatch(r"[A-Za-z0-9._-]{1,64}", gateway) and re.fullmatch(r"[0-9a-f]{16}", log)
        if not good or stream not in ("l", "b"):
            raise BadRecord(f"no identity: {text!r}")
        identity = Identity(
            gateway, log, _decimal(epoch, _U32), _decimal(lane, 4), _decimal(seq), _decimal(prev), stream
        )
        if identity.prev >= identity.seq:
            raise BadRecord(f"prev is not below seq: {text!r}")
        return identity

    def __str__(self) -> str:
        return f"{self.gateway}/{self.log}/{self.epoch}/{self.lane}/{self.seq}/{self.prev}/{self.stream}"


@dataclass(frozen=True)
class Pack:
    """How the value of a packed record is written."""

    format: str
    compression: str
    first: int
    count: int

    @staticmethod
    def parse(value: Any) -> "Pack":
        """Reads the value of the header `penstock-pack`. Raises BadRecord."""
        text = _text(value, PACK_HEADER)
        parts = text.split("/")
        if parts[0] != "1":
            raise BadRecord(f"packed records of version {parts[0]!r} are not known")
        if len(parts) != 5 or parts[1] not in FORMATS or parts[2] not in COMPRESSIONS:
            raise BadRecord(f"no pack header: {text!r}")
        pack = Pack(parts[1], parts[2], _decimal(parts[3]), _decimal(parts[4], _U32))
        if pack.first == 0 or pack.count == 0:
            raise BadRecord(f"no pack header: {text!r}")
        return pack

    def check(self, identity: Identity) -> None:
        """Raises BadRecord when it cannot be of the record with this identity."""
        beyond = identity.seq - self.first
        if identity.prev >= self.first or beyond < self.count - 1 or (beyond == 0) != (self.count == 1):
            raise BadRecord(f"{self} does not fit {identity}")


@dataclass(frozen=True)
class Entry:
    """One message of a device, as it was published."""

    identity: Identity
    #: The payload. From a JSON pack: the same JSON value, with line breaks between its parts as spaces.
    payload: bytes
    #: The device key; None where the caller of a per-message record did not give the record's key.
    device: Optional[str] = None
    #: The MQTT topic; None in per-message records unless the gateway sends headers "full" or "cloudevents".
    topic: Optional[str] = None
    #: When the gateway took it in, Unix milliseconds; None where the caller did not give the record's timestamp.
    received_ms: Optional[int] = None
    #: From packed records, where known: device_time_ms, content_type, tenant, site, class, stream, traceparent,
    #: tracestate, and user, a list of (name, value). From per-message records: the other headers as they came; of a
    #: name that repeats the last one.
    properties: Dict[str, Any] = field(default_factory=dict)

    def json(self) -> Any:
        """The payload read as JSON."""
        return json.loads(self.payload)


def entries(
    value: Optional[bytes], headers: Any, key: Any = None, timestamp_ms: Optional[int] = None
) -> List[Entry]:
    """The entries of a record, one or many, in order. Keeps no state.

    `headers` are pairs of name and value, or a mapping; names, values and the key may be text or bytes. Raises ForeignRecord
    when there is no `penstock` header, BadRecord when the record is not what its headers say.
    """
    named = _named(headers)
    if IDENTITY_HEADER not in named:
        raise ForeignRecord("no penstock header")
    identity = Identity.parse(named.pop(IDENTITY_HEADER))
    value = b"" if value is None else bytes(value)
    if PACK_HEADER in named:
        pack = Pack.parse(named.pop(PACK_HEADER))
        pack.check(identity)
        return _unpacked(pack, identity, _inflate(pack.compression, value))
    device = key if key is None or isinstance(key, str) else _utf8(bytes(key), "key")
    topic = received = None
    for names in _FULL:
        topic = topic or named.get(names[0])
        received = received or named.get(names[1])
    if received is not None:
        timestamp_ms = _time_ms(_text(received, "received"))
    topic = topic if topic is None or isinstance(topic, str) else _utf8(bytes(topic), "topic")
    return [Entry(identity, value, device, topic, timestamp_ms, named)]


#: Where full headers, and those of CloudEvents, say the topic and the time of reception.
_FULL = (("penstock-topic", "penstock-received"), ("ce_topic", "ce_receivedtime"))


def _named(headers: Any) -> Dict[str, Any]:
    pairs = headers.items() if hasattr(headers, "items") else headers or ()
    named: Dict[str, Any] = {}
    for name, value in pairs:
        name = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        if name in named and name in (IDENTITY_HEADER, PACK_HEADER):
            raise BadRecord(f"several headers {name}")
        named[name] = value
    return named


# === Values ===


def _inflate(compression: str, value: bytes) -> bytes:
    if compression == "none":
        body, whole = value, True
    else:
        stream = zlib.decompressobj(31 if compression == "gzip" else -15)
        try:
            body = stream.decompress(value, BODY_BYTES_MAX + 1)
        except zlib.error as error:
            raise BadRecord(f"no {compression} stream: {error}") from None
        whole = stream.eof and not stream.unused_data
    if len(body) > BODY_BYTES_MAX:
        raise BadRecord(f"more than {BODY_BYTES_MAX} bytes")
    if not whole:
        raise BadRecord(f"no whole {compression} stream")
    return body


def _unpacked(pack: Pack, identity: Identity, body: bytes) -> List[Entry]:
    found: List[Entry] = []
    prev = identity.prev
    read = {"ndjson": _from_lines, "json-array": _from_array, "protobuf": _from_message}[pack.format]
    for seq, parts in read(body):
        place = len(found)
        in_place = seq == pack.first if place == 0 else seq > prev
        in_place = in_place and (seq == identity.seq if place == pack.count - 1 else seq < identity.seq)
        if place >= pack.count or not in_place:
            raise BadRecord(f"seq {seq} is out of place in {pack}")
        own = Identity(
            identity.gateway, identity.log, identity.epoch, identity.lane, seq, prev, identity.stream
        )
        found.append(Entry(own, *parts))
        prev = seq
    if len(found) != pack.count:
        raise BadRecord(f"{len(found)} entries where the header says {pack.count}")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


#: Numbers stay text: payloads are handed on as they are, and may hold more digits than Python converts.
_JSON = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse)
_SPACE = re.compile(r"[ \t\r\n]*")
_TEXTS = ("content_type", "tenant", "site", "class", "stream", "traceparent", "tracestate")
_KNOWN = frozenset(
    ("seq", "device", "topic", "received", "payload", "payload_text", "payload_base64", "device_time")
    + ("user", "user_list")
    + _TEXTS
)
_Parts = Tuple[int, Tuple[bytes, str, str, int, Dict[str, Any]]]


def _from_lines(body: bytes) -> Iterator[_Parts]:
    text = _utf8(body, "value")
    if not text.endswith("\n"):
        raise BadRecord("the value is no ndjson")
    for line in text[:-1].split("\n"):
        parts, end = _from_object(line, _space(line, 0))
        if end != len(line):
            raise BadRecord("a line holds more than one object")
        yield parts


def _from_array(body: bytes) -> Iterator[_Parts]:
    text = _utf8(body, "value")
    at = _space(text, 0)
    opening = "["
    while text[at : at + 1] == opening:
        parts, at = _from_object(text, _space(text, at + 1))
        yield parts
        opening = ","
    if opening == "[" or text[at : at + 1] != "]" or _space(text, at + 1) != len(text):
        raise BadRecord("the value is no json-array")


def _space(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]


def _from_object(text: str, at: int) -> Tuple[_Parts, int]:
    """Reads the object at `at`; returns its parts and where what follows it begins."""
    members: Dict[str, Tuple[Any, str]] = {}
    if text[at : at + 1] != "{":
        raise BadRecord("an entry is no JSON object")
    try:
        at = _space(text, at + 1)
        closed = text[at : at + 1] == "}"
        while not closed:
            name, at = _JSON.raw_decode(text, at)
            at = _space(text, at)
            if not isinstance(name, str) or text[at : at + 1] != ":":
                raise BadRecord("an entry is no JSON object")
            start = _space(text, at + 1)
            value, end = _JSON.raw_decode(text, start)
            if name in _KNOWN:
                if name in members:
                    raise BadRecord(f"{name} stands twice in an entry")
                members[name] = (value, text[start:end])
            at = _space(text, end)
            closed = text[at : at + 1] == "}"
            if not closed:
                if text[at : at + 1] != ",":
                    raise BadRecord("an entry is no JSON object")
                at = _space(text, at + 1)
    except BadRecord:
        raise
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"an entry is no JSON object: {error}") from None
    return _json_parts(members), _space(text, at + 1)


def _json_parts(members: Dict[str, Tuple[Any, str]]) -> _Parts:
    def string(name: str) -> str:
        value, raw = members.get(name, (None, ""))
        if not isinstance(value, str) or not raw.startswith('"'):
            raise BadRecord(f"bad or missing {name} in an entry")
        return value

    seq = _decimal(members.get("seq", (None, ""))[1])
    if seq == 0:
        raise BadRecord("bad or missing seq in an entry")
    payloads = [name for name in ("payload", "payload_text", "payload_base64") if name in members]
    if len(payloads) != 1:
        raise BadRecord("an entry has one payload")
    try:
        if payloads[0] == "payload":
            payload = members["payload"][1].encode()
        elif payloads[0] == "payload_text":
            payload = string("payload_text").encode()
        else:
            payload = base64.b64decode(string("payload_base64"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise BadRecord(f"bad {payloads[0]} in an entry: {error}") from None
    properties: Dict[str, Any] = {name: string(name) for name in _TEXTS if name in members}
    if "device_time" in members:
        properties["device_time_ms"] = _time_ms(string("device_time"))
    if "user" in members:
        properties["user"] = list(_mapping(members["user"][0]).items())
    if "user_list" in members:
        listed = members["user_list"][0]
        pairs = [_mapping(pair) for pair in listed] if isinstance(listed, list) else []
        properties["user"] = [(pair.get("name"), pair.get("value")) for pair in pairs]
    return seq, (payload, string("device"), string("topic"), _time_ms(string("received")), properties)


def _mapping(value: Any) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRecord("user properties are an object")
    return value


def _from_message(body: bytes) -> Iterator[_Parts]:
    for number, kind, value in _fields(body):
        if number == 1:
            yield _message_parts(_expect(value, kind, 2))


_TEXT_FIELDS = {7: "content_type", 8: "tenant", 9: "site", 10: "class", 11: "stream", 12: "traceparent"}
_TEXT_FIELDS[13] = "tracestate"


def _message_parts(message: bytes) -> _Parts:
    seq, device, topic, received_ms, payload = 0, "", "", 0, b""
    properties: Dict[str, Any] = {}
    for number, kind, value in _fields(message):
        if number == 1:
            seq = _expect(value, kind, 0)
        elif number == 2:
            device = _utf8(_expect(value, kind, 2), "device")
        elif number == 3:
            topic = _utf8(_expect(value, kind, 2), "topic")
        elif number == 4:
            received_ms = _expect(value, kind, 0)
        elif number == 5:
            payload = _expect(value, kind, 2)
        elif number == 6:
            properties["device_time_ms"] = _expect(value, kind, 0)
        elif number in _TEXT_FIELDS:
            properties[_TEXT_FIELDS[number]] = _utf8(_expect(value, kind, 2), _TEXT_FIELDS[number])
        elif number == 14:
            pair = {1: "", 2: ""}
            for part, part_kind, text in _fields(_expect(value, kind, 2)):
                pair[part] = _utf8(_expect(text, part_kind, 2), "user") if part in (1, 2) else ""
            properties.setdefault("user", []).append((pair[1], pair[2]))
    if seq == 0:
        raise BadRecord("bad or missing seq in an entry")
    return seq, (payload, device, topic, received_ms, properties)


def _fields(message: bytes) -> Iterator[Tuple[int, int, Any]]:
    """The fields of a protobuf message: number, wire type, value."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if not 1 <= number < 1 << 29 or kind not in (0, 1, 2, 5):
            raise BadRecord("no protobuf message")
        if kind == 0:
            value, at = _varint(message, at)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if size is None:
                size, at = _varint(message, at)
            value = message[at : at + size]
            at += size
            if at > len(message):
                raise BadRecord("a protobuf message ends early")
        yield number, kind, value


def _varint(message: bytes, at: int) -> Tuple[int, int]:
    value = 0
    for place in range(10):
        if at >= len(message):
            raise BadRecord("a protobuf message ends early")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            break
    if byte >= 0x80 or value > _U64:
        raise BadRecord("no protobuf message")
    return value, at


def _expect(value: Any, kind: int, expected: int) -> Any:
    if kind != expected:
        raise BadRecord("a protobuf field is of another type")
    return value


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode("ascii")
    except (TypeError, UnicodeDecodeError):
        raise BadRecord(f"header {name} is no text") from None


def _utf8(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadRecord(f"{name} is not UTF-8") from None


def _decimal(text: str, most: int = _U64) -> int:
    """A number in its only spelling: digits, no leading zero."""
    if re.fullmatch(r"0|[1-9][0-9]{0,19}", text) and int(text) <= most:
        return int(text)
    raise BadRecord(f"not a number that is possible here: {text[:40]!r}")


_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)", re.ASCII)
_FRACTION = re.compile(r"(?:\.(\d{1,9}))?Z", re.ASCII)


def _time_ms(text: str) -> int:
    fraction = _FRACTION.fullmatch(text, 19)
    if fraction is None:
        raise BadRecord(f"no time: {text[:40]!r}")
    return _second(text[:19]) * 1000 + int(((fraction[1] or "") + "000")[:3])


@lru_cache(maxsize=64)
def _second(text: str) -> int:
    match = _TIME.fullmatch(text)
    parts = tuple(int(part) for part in match.groups()) if match else ()
    # The calendar would take the 30th of February for the 2nd of March.
    if not parts or not 1 <= parts[1] <= 12 or not 1970 <= parts[0]:
        raise BadRecord(f"no time: {text!r}")
    days = calendar.monthrange(parts[0], parts[1])[1]
    if not 1 <= parts[2] <= days or parts[3] > 23 or parts[4] > 59 or parts[5] > 59:
        raise BadRecord(f"no time: {text!r}")
    return calendar.timegm(parts)


# === Chains ===


@dataclass(frozen=True)
class Loss:
    """A range of a lane that a named policy let go; it explains a gap."""

    gateway: str
    log: str
    lane: int
    first: int
    last: int
    reason: str


def loss_of(entry: Entry) -> Optional[Loss]:
    """The loss record that an entry of lane `status` carries about its own gateway, if it is one."""
    if entry.identity.lane != STATUS or LOSS_TYPE_SUFFIX.encode() not in entry.payload:
        return None
    try:
        event = entry.json()
        data = event["data"]
        own = event["source"] == f"/gateways/{entry.identity.gateway}"
        if not own or not event["type"].endswith(LOSS_TYPE_SUFFIX):
            return None
        lane = LANES.index(data["lane"])
        first, last = int(data["first"]), int(data["last"])
        return Loss(entry.identity.gateway, data["log"], lane, first, last, str(data["reason"]))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


class Ranges:
    """A set of positions as ranges, both ends included. Beyond `most` ranges the two lowest are joined, counted."""

    def __init__(self, most: int = 1024) -> None:
        self._firsts: List[int] = []
        self._lasts: List[int] = []
        self._most = most
        self.joined = 0

    def add(self, first: int, last: int) -> None:
        """Adds a range, joining what it touches."""
        if first > last:
            return
        start = bisect_right(self._lasts, first - 2)
        end = bisect_right(self._firsts, last + 1)
        if start < end:
            first = min(first, self._firsts[start])
            last = max(last, self._lasts[end - 1])
        self._firsts[start:end] = [first]
        self._lasts[start:end] = [last]
        if len(self._firsts) > self._most:
            del self._firsts[1], self._lasts[0]
            self.joined += 1

    def __contains__(self, position: int) -> bool:
        place = bisect_right(self._firsts, position)
        return place > 0 and position <= self._lasts[place - 1]

    def last(self) -> int:
        """The highest position, 0 when empty."""
        return self._lasts[-1] if self._lasts else 0

    def holes(self) -> Iterator[Tuple[int, int]]:
        """What lies between the ranges, and before the first one from 1."""
        expected = 1
        for first, last in zip(self._firsts, self._lasts):
            if expected < first:
                yield expected, first - 1
            expected = last + 1

    def pairs(self) -> List[Tuple[int, int]]:
        """The ranges in order."""
        return list(zip(self._firsts, self._lasts))


class ChainKey(NamedTuple):
    """What is ordered by itself: a gateway's log and lane in one partition and stream."""

    gateway: str
    log: str
    lane: int
    topic: str
    partition: int
    stream: str


class Gap(NamedTuple):
    """Something is missing: at least the record of `last`; what else of the range was sent here, nobody says."""

    chain: ChainKey
    first: int
    last: int
    #: A loss record names it.
    explained: bool


class Offered(NamedTuple):
    """What an entry meant to its chain."""

    #: Seen for the first time.
    new: bool
    #: Seen for the first time after a later one.
    late: bool
    #: The range before it that is missing, as far as is known now.
    gap: Optional[Tuple[int, int]]


@dataclass
class Report:
    """Counts since the start. `bad`, `reordered` and `gaps` are what should worry."""

    records: int = 0
    entries: int = 0
    #: Entries that were seen before; `Reader` does not hand them out.
    duplicates: int = 0
    #: Entries seen for the first time after a later one of their chain.
    reordered: int = 0
    #: Gaps that nothing explains, now.
    gaps: int = 0
    #: Gaps that a loss record explains, now.
    explained: int = 0
    #: Records without a `penstock` header.
    foreign: int = 0
    #: Records that are not what their headers say.
    bad: int = 0
    #: Old gaps forgotten for want of room.
    joined: int = 0
    #: Chains forgotten for want of room; a repeat in one of them is not recognised.
    forgotten: int = 0


class Chains:
    """Judges entries: drops repeats by (gateway, log, lane, topic, partition, stream, seq), proves by `prev` that none
    is missing, and takes loss records as explanations.

    Offer the entries of a partition in the order of offsets. `from_start` says that every partition is read from its
    first record, and that retention removed none: only then is something missing before the first entry of a chain.
    Memory is bounded by `chains_max` chains (the one unused for longest is forgotten) of `ranges_max` gaps.
    """

    def __init__(self, from_start: bool = False, chains_max: int = 65_536, ranges_max: int = 1024) -> None:
        self._from_start = from_start
        self._chains_max = chains_max
        self._ranges_max = ranges_max
        self._chains: "OrderedDict[ChainKey, Ranges]" = OrderedDict()
        self._losses: "OrderedDict[Tuple[str, str, int], Ranges]" = OrderedDict()
        self._joined = 0
        self.counts = Report()

    def offer(self, topic: str, partition: int, entry: Entry) -> Offered:
        """Takes the next entry of a partition."""
        identity = entry.identity
        loss = loss_of(entry)
        if loss is not None:
            self.explain(loss)
        self.counts.entries += 1
        key = ChainKey(identity.gateway, identity.log, identity.lane, topic, partition, identity.stream)
        seen = self._chains.get(key)
        if seen is None:
            seen = self._chains[key] = Ranges(self._ranges_max)
            if len(self._chains) > self._chains_max:
                self._joined += self._chains.popitem(last=False)[1].joined
                self.counts.forgotten += 1
            seen.add(identity.prev + 1 if self._from_start else 1, identity.seq)
            missing = self._from_start and identity.prev > 0
            return Offered(True, False, (1, identity.prev) if missing else None)
        self._chains.move_to_end(key)
        if identity.seq in seen:
            self.counts.duplicates += 1
            return Offered(False, False, None)
        newest = seen.last()
        # A chain that begins anew above what was seen proves nothing about what lay between.
        first = identity.prev + 1 if identity.prev else identity.seq
        seen.add(first, identity.seq)
        if identity.seq < newest:
            self.counts.reordered += 1
            return Offered(True, True, None)
        return Offered(True, False, (newest + 1, first - 1) if newest + 1 < first else None)

    def explain(self, loss: Loss) -> None:
        """Takes note of a named loss. `offer` does so by itself for entries of lane `status`."""
        key = (loss.gateway, loss.log, loss.lane)
        ranges = self._losses.setdefault(key, Ranges(self._ranges_max))
        ranges.add(max(loss.first, 1), loss.last)
        self._losses.move_to_end(key)
        if len(self._losses) > self._chains_max:
            self._losses.popitem(last=False)

    def gaps(self) -> Iterator[Gap]:
        """Everything that is missing now."""
        for key, seen in self._chains.items():
            losses = self._losses.get((key.gateway, key.log, key.lane), ())
            for first, last in seen.holes():
                yield Gap(key, first, last, last in losses)

    def report(self) -> Report:
        """The counts, with the gaps as they are now."""
        report = Report(**asdict(self.counts))
        for gap in self.gaps():
            report.explained += gap.explained
            report.gaps += not gap.explained
        report.joined = self._joined + sum(seen.joined for seen in self._chains.values())
        return report

    def state(self) -> Dict[str, Any]:
        """What `restore` needs, as plain JSON. Keep it with the offsets: repeats are recognised across a restart."""
        chains = [[list(key), seen.pairs()] for key, seen in self._chains.items()]
        losses = [[list(key), seen.pairs()] for key, seen in self._losses.items()]
        return {"version": 1, "chains": chains, "losses": losses}

    def restore(self, state: Dict[str, Any]) -> None:
        """Takes up what `state` gave, before anything is offered."""
        if state.get("version") != 1:
            raise ValueError("the state is of another version")
        for key, pairs in state["chains"]:
            seen = self._chains[ChainKey(*key)] = Ranges(self._ranges_max)
            for first, last in pairs:
                seen.add(first, last)
        for key, pairs in state["losses"]:
            gateway, log, lane = key
            for first, last in pairs:
                self.explain(Loss(gateway, log, lane, first, last, ""))


class Reader:
    """Unpacks records and hands out each entry once."""

    def __init__(self, chains: Optional[Chains] = None) -> None:
        self.chains = Chains() if chains is None else chains

    def read(
        self,
        topic: str,
        partition: int,
        value: Optional[bytes],
        headers: Any,
        key: Any = None,
        timestamp_ms: Optional[int] = None,
    ) -> List[Entry]:
        """The entries of the record that were not seen before, in order. Raises as `entries` does, counted."""
        counts = self.chains.counts
        counts.records += 1
        try:
            found = entries(value, headers, key, timestamp_ms)
        except ForeignRecord:
            counts.foreign += 1
            raise
        except BadRecord:
            counts.bad += 1
            raise
        return [entry for entry in found if self.chains.offer(topic, partition, entry).new]

    def report(self) -> Report:
        """The counts so far."""
        return self.chains.report()
