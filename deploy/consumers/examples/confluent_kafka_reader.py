"""Prints the entries that a topic holds now, each once, read with confluent-kafka.

    python3 confluent_kafka_reader.py HOST:PORT TOPIC [security.protocol=SASL_SSL ...]
"""

import sys

from confluent_kafka import Consumer, KafkaException, TopicPartition
from output import Output, settings

PATIENCE_SECONDS = 30


def main(bootstrap, topic, *more):
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "penstock-example",
            "enable.auto.commit": False,
            "check.crcs": True,
            **settings(more),
        }
    )
    output = Output()
    partitions = consumer.list_topics(topic, PATIENCE_SECONDS).topics[topic].partitions
    ends = {}
    for partition in partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), PATIENCE_SECONDS)
        if low < high:
            ends[partition] = high
    consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
    while ends:
        message = consumer.poll(PATIENCE_SECONDS)
        if message is None:
            sys.exit(f"nothing came for {PATIENCE_SECONDS} s")
        if message.error():
            raise KafkaException(message.error())
        _kind, timestamp_ms = message.timestamp()
        partition = message.partition()
        output.record(topic, partition, message.value(), message.headers(), message.key(), timestamp_ms)
        if partition in ends and message.offset() + 1 >= ends[partition]:
            del ends[partition]
    consumer.close()
    return output.finish()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
