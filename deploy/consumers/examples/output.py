"""What the examples share: an entry as a line of JSON on stdout, the counts on stderr, the exit code."""

import base64
import json
import os
import sys
from dataclasses import asdict

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from penstock_consumer import BadRecord, Chains, ForeignRecord, Reader  # noqa: E402


class Output:
    """Reads a topic from its first record on and prints each entry once."""

    def __init__(self):
        self.reader = Reader(Chains(from_start=True))

    def record(self, topic, partition, value, headers, key, timestamp_ms):
        try:
            found = self.reader.read(topic, partition, value, headers, key, timestamp_ms)
        except (BadRecord, ForeignRecord) as error:
            print(f"{topic} {partition}: {error}", file=sys.stderr)
            return
        for entry in found:
            shown = {"topic": topic, "partition": partition, **asdict(entry.identity), "device": entry.device}
            shown.update(mqtt_topic=entry.topic, received_ms=entry.received_ms)
            try:
                shown["payload"] = entry.payload.decode()
            except UnicodeDecodeError:
                shown["payload_base64"] = base64.b64encode(entry.payload).decode()
            print(json.dumps(shown))

    def finish(self):
        """Prints the counts; the exit code says whether something is wrong with them."""
        report = self.reader.report()
        print(json.dumps(asdict(report)), file=sys.stderr)
        return 1 if report.gaps or report.reordered or report.bad else 0


def settings(pairs):
    """`name=value` arguments as a mapping."""
    return dict(pair.split("=", 1) for pair in pairs)
