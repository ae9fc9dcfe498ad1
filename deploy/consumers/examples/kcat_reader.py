"""Prints the entries in a topic that kcat reads, each once.

    kcat -C -e -q -b HOST:PORT -t TOPIC -f '%t %p %T %K %S %h\\n%k%s\\n' | python3 kcat_reader.py
"""

import sys

from output import Output


def records(stream):
    """Topic, partition, value, headers, key and timestamp of each record in the output of kcat."""
    for line in stream:
        topic, partition, timestamp, key_bytes, value_bytes, headers = line.decode().rstrip("\n").split(" ", 5)
        key = stream.read(max(int(key_bytes), 0))
        value = stream.read(max(int(value_bytes), 0))
        if stream.read(1) != b"\n":
            sys.exit("the output of kcat is cut off or of another format")
        # A comma in the value of another header makes a piece that nobody looks for.
        pairs = [tuple(pair.split("=", 1)) for pair in headers.split(",") if "=" in pair]
        yield topic, int(partition), value, pairs, key, int(timestamp)


def main():
    output = Output()
    for record in records(sys.stdin.buffer):
        output.record(*record)
    return output.finish()


if __name__ == "__main__":
    sys.exit(main())
