"""Packs entries as docs/formats/packed-v1.md says, written apart from the gateway; and makes the test vectors.

    python3 tests/packing.py > tests/vectors.json
"""

import base64
import gzip
import json
import time
import zlib

GATEWAY = "site-7/00c0ffee12345678/3/2"


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def sized(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def number(field, value):
    return varint(field << 3) + varint(value)


def rfc3339(ms):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + ".%03dZ" % (ms % 1000)


TEXTS = ("content_type", "tenant", "site", "class", "stream", "traceparent", "tracestate")


def json_entry(entry):
    """An entry as a JSON object. `payload` is bytes; what is JSON stays as it is."""
    parts = {"seq": entry["seq"], "device": entry["device"], "topic": entry["topic"]}
    parts["received"] = rfc3339(entry["received_ms"])
    properties = entry.get("properties", {})
    if "device_time_ms" in properties:
        parts["device_time"] = rfc3339(properties["device_time_ms"])
    parts.update({name: properties[name] for name in TEXTS if name in properties})
    user = properties.get("user", [])
    if user and len({name for name, _ in user}) == len(user):
        parts["user"] = dict(user)
    elif user:
        parts["user_list"] = [{"name": name, "value": value} for name, value in user]
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return text[:-1] + "," + json_payload(entry["payload"]) + "}"


def json_payload(payload):
    try:
        text = payload.decode()
        if any(ord(letter) < 32 and letter not in "\t\r\n\b\f" for letter in text):
            raise ValueError
    except ValueError:
        return '"payload_base64":"%s"' % base64.b64encode(payload).decode()
    try:
        json.loads(text, parse_constant=lambda _: 1 / 0)
        return '"payload":' + text.strip().replace("\r", " ").replace("\n", " ")
    except (ValueError, ZeroDivisionError):
        return '"payload_text":' + json.dumps(text, ensure_ascii=False)


def message(entry):
    properties = entry.get("properties", {})
    out = number(1, entry["seq"]) + sized(2, entry["device"].encode()) + sized(3, entry["topic"].encode())
    out += number(4, entry["received_ms"]) + sized(5, entry["payload"])
    if "device_time_ms" in properties:
        out += number(6, properties["device_time_ms"])
    for field, name in enumerate(TEXTS, 7):
        if name in properties:
            out += sized(field, properties[name].encode())
    for name, value in properties.get("user", []):
        out += sized(14, sized(1, name.encode()) + sized(2, value.encode()))
    return out


def body(format, entries):
    if format == "ndjson":
        return "".join(json_entry(entry) + "\n" for entry in entries).encode()
    if format == "json-array":
        return ("[" + ",".join(map(json_entry, entries)) + "]").encode()
    return b"".join(sized(1, message(entry)) for entry in entries)


def compressed(compression, data):
    if compression == "gzip":
        return gzip.compress(data, 6, mtime=0)
    if compression == "deflate":
        stream = zlib.compressobj(6, zlib.DEFLATED, -15)
        return stream.compress(data) + stream.flush()
    return data


def packed(format, compression, prev, entries, stream="l"):
    """Headers and value of a packed record."""
    first, last = entries[0]["seq"], entries[-1]["seq"]
    headers = {
        "penstock": f"{GATEWAY}/{last}/{prev}/{stream}",
        "penstock-pack": f"1/{format}/{compression}/{first}/{len(entries)}",
    }
    return headers, compressed(compression, body(format, entries))


def entry(seq, payload, device="pump-7", properties=None):
    made = {"seq": seq, "device": device, "topic": f"devices/{device}/telemetry"}
    made.update(received_ms=1_700_000_000_123 + seq % 1000, payload=payload, properties=properties or {})
    return made


PROPERTIES = {
    "device_time_ms": 1_699_999_999_007,
    "content_type": "application/json",
    "tenant": "acme",
    "site": "north",
    "class": "pump",
    "stream": "fast",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "k=v",
}
USER = {"user": [("unit", "\u00b0C"), ('a"b\\', "")]}
REPEATED_USER = {"user": [("a", "1"), ("b", "2"), ("a", "3")]}


def vectors():
    """Packed records with what is in them, and records that must be refused."""
    plain = [entry(1041, b'{"t":21.5}'), entry(1043, b"[1, 2]", "\u00fc-9"), entry(1050, b"21.5 C")]
    odd = [
        entry(2, b""),
        entry(3, b"\x00\xff", properties=PROPERTIES),
        entry(4, 'text with "quotes", \\ and \u20ac\n'.encode(), properties={**PROPERTIES, **USER}),
        entry(900, b"-0.10e5", properties=REPEATED_USER),
        entry(2**63 - 1, b'"x"'),
    ]
    good = []
    for format in ("ndjson", "json-array", "protobuf"):
        for compression in ("none", "gzip", "deflate"):
            good.append((f"{format} {compression}", *packed(format, compression, 1038, plain), 1038, plain))
        good.append((f"{format} of odd entries", *packed(format, "none", 0, odd, "b"), 0, odd))
    one = [entry(7, b"1")]
    headers, value = packed("ndjson", "none", 6, one)
    good.append(("one entry", headers, value, 6, one))
    spaced = value.replace(b":", b" : ", 1).replace(b",", b" ,\t", 1)[:-2] + b',"later":{"a":[1]} }\n'
    good.append(("white space and members that are not known", headers, spaced, 6, one))
    return {"good": [shown(*each) for each in good], "bad": list(bad_vectors(plain))}


def shown(name, headers, value, prev, entries):
    listed = []
    for each in entries:
        listed.append({**each, "prev": prev, "payload_base64": b64(each["payload"])})
        del listed[-1]["payload"]
        prev = each["seq"]
    return {"name": name, "headers": headers, "value_base64": b64(value), "entries": listed}


def bad_vectors(plain):
    headers, value = packed("ndjson", "none", 1038, plain)
    pack = headers["penstock-pack"]
    wrong = {
        "fewer entries than said": ({**headers, "penstock-pack": pack.replace("/3", "/4")}, value),
        "more entries than said": ({**headers, "penstock-pack": pack.replace("/3", "/2")}, value),
        "another first seq": ({**headers, "penstock-pack": pack.replace("/1041/", "/1040/")}, value),
        "another last seq": ({**headers, "penstock": f"{GATEWAY}/1051/1038/l"}, value),
        "a first seq not above prev": ({**headers, "penstock": f"{GATEWAY}/1050/1041/l"}, value),
        "a later version": ({**headers, "penstock-pack": pack.replace("1/", "2/", 1)}, value),
        "an unknown compression": ({**headers, "penstock-pack": pack.replace("none", "zstd")}, value),
        "a count of zero": ({**headers, "penstock-pack": "1/ndjson/none/1041/0"}, value),
        "a leading zero": ({**headers, "penstock-pack": pack.replace("/1041", "/01041")}, value),
        "no line break at the end": (headers, value[:-1]),
        "an empty value": (headers, b""),
        "two objects in a line": (headers, value.replace(b"}\n", b"} {}\n", 1)),
        "a seq twice": (headers, value.replace(b"1043", b"1041")),
        "a seq as text": (headers, value.replace(b"1043", b'"1043"')),
        "a payload twice": (headers, value.replace(b'"payload":[', b'"payload":1,"payload":[')),
        "no payload": (headers, value.replace(b'"payload":[', b'"other":[')),
        "no device": (headers, value.replace(b'"device"', b'"other"', 1)),
        "a time that is none": (headers, value.replace(b"2023-11-14", b"2023-02-30", 1)),
        "NaN": (headers, value.replace(b"[1, 2]", b"NaN")),
        "bytes that are not UTF-8": (headers, value.replace(b"21.5 C", b"21.5 \xff")),
    }
    for compression in ("gzip", "deflate"):
        headers, value = packed("ndjson", compression, 1038, plain)
        wrong[f"{compression} cut off"] = (headers, value[:-1])
        wrong[f"more behind {compression}"] = (headers, value + b"x")
        wrong[f"no {compression}"] = (headers, body("ndjson", plain))
    headers, value = packed("json-array", "none", 1038, plain)
    wrong["an array without its end"] = (headers, value[:-1])
    wrong["an array with a comma too many"] = (headers, value[:-1] + b",]")
    wrong["an empty array"] = (headers, b"[]")
    headers, value = packed("protobuf", "none", 1038, plain)
    wrong["a message cut off"] = (headers, value[:-1])
    wrong["a field of another type"] = (headers, value + number(1, 5))
    wrong["a varint that never ends"] = (headers, value + b"\xff" * 11)
    wrong["a group"] = (headers, value + b"\x13")
    for name, (headers, value) in wrong.items():
        yield {"name": name, "headers": headers, "value_base64": b64(value)}


def b64(data):
    return base64.b64encode(data).decode()


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
