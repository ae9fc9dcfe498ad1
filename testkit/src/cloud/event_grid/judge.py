"""Judges CloudEvents with libraries that were not written here, and by rules of the project.

`python judge.py FILE BYTES` reads a file with one event in JSON on each line and prints one line of JSON: how many events
there are, and for each judge how many it refuses, with line numbers and reasons. BYTES is the size that an event may have.
`judge.mjs` asks the libraries for JavaScript; `judge.rs` beside it puts both together.
"""

import base64
import json
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from os import cpu_count

from azure.core.messaging import CloudEvent as AzureEvent
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

# Complaints that are told of each judge; the others are only counted.
TOLD = 100
# Lines that a process gets at a time.
PART = 5_000

CORE = {"id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema"}
REQUIRED = ("specversion", "id", "source", "type")
EXTENSION = re.compile("[a-z0-9]{1,20}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
# What the type String of the specification must not have: control characters, surrogates, noncharacters.
FORBIDDEN = re.compile(
    "[\0-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
    + "]"
)


class Wrong(Exception):
    """A rule of the project that an event breaks."""


def members(pairs):
    """The members of an object, none of which may be there twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Wrong(f"a member is there twice: {sorted(name for name, _ in pairs)}")
    return found


def constant(name):
    raise Wrong(f"{name} is no JSON")


def rules(line, most):
    if len(line) > most:
        raise Wrong(f"{len(line)} bytes, {most} are possible")
    event = json.loads(line.decode("utf-8"), object_pairs_hook=members, parse_constant=constant)
    if not isinstance(event, dict):
        raise Wrong("not an object")
    for name in REQUIRED:
        if not isinstance(event.get(name), str) or not event[name]:
            raise Wrong(f"{name} is missing, empty or not text")
    if event["specversion"] != "1.0":
        raise Wrong(f"specversion is {event['specversion']}")
    if "data" in event and "data_base64" in event:
        raise Wrong("both data and data_base64 are there")
    for name, value in event.items():
        if name == "data":
            # The interface of the service describes an object and nothing else.
            if not isinstance(value, dict):
                raise Wrong("data is not an object")
        elif name == "data_base64":
            base64.b64decode(value, validate=True)
        else:
            attribute(name, value)


def attribute(name, value):
    if not EXTENSION.fullmatch(name):
        raise Wrong(f"the name {name} is not 1 to 20 of a to z and 0 to 9")
    if isinstance(value, str):
        if FORBIDDEN.search(value):
            raise Wrong(f"{name} has a character that text must not have")
        if name in CORE and not value:
            raise Wrong(f"{name} is empty")
        if name == "time" and not TIME.fullmatch(value):
            raise Wrong(f"time is {value}")
    elif name in CORE:
        raise Wrong(f"{name} is not text")
    elif isinstance(value, int):
        # A Boolean is one too.
        if not -(2**31) <= value < 2**31:
            raise Wrong(f"{name} does not fit into 32 bits")
    else:
        raise Wrong(f"{name} is neither text nor a whole number nor a Boolean")


FORMAT = JSONFormat()
JUDGES = {
    "rules": rules,
    "python cloudevents": lambda line, _most: FORMAT.read(CloudEvent, line),
    "python azure-core": lambda line, _most: AzureEvent.from_json(line.decode("utf-8")),
}


def judge(first, lines, most):
    """Complaints of each judge about lines of which the first has that number."""
    complaints = {name: [] for name in JUDGES}
    for number, line in enumerate(lines, first):
        for name, check in JUDGES.items():
            try:
                check(line, most)
            except Exception as error:  # Whatever a library raises is its word for no.
                complaints[name].append((number, f"{type(error).__name__}: {error}"[:500]))
    return complaints


def parts(path):
    first, lines = 1, []
    with open(path, "rb") as file:
        for line in file:
            lines.append(line.rstrip(b"\n"))
            if len(lines) == PART:
                yield first, lines
                first, lines = first + PART, []
    if lines:
        yield first, lines


def main():
    path, most = sys.argv[1], int(sys.argv[2])
    events = 0
    refused = {name: {"refused": 0, "complaints": []} for name in JUDGES}
    with ProcessPoolExecutor(cpu_count()) as pool:
        answers = []
        for first, lines in parts(path):
            events += len(lines)
            answers.append(pool.submit(judge, first, lines, most))
        for answer in answers:
            for name, complaints in answer.result().items():
                refused[name]["refused"] += len(complaints)
                refused[name]["complaints"] = (refused[name]["complaints"] + complaints)[:TOLD]
    print(json.dumps({"events": events, "judges": refused}))


if __name__ == "__main__":
    main()
