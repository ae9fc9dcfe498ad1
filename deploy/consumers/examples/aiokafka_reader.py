"""Prints the entries that a topic holds now, each once, read with aiokafka.

    python3 aiokafka_reader.py HOST:PORT TOPIC
"""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, TopicPartition
from output import Output

PATIENCE_SECONDS = 30


async def main(bootstrap, topic):
    output = Output()
    # Without a group every partition is assigned.
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = sorted(consumer.assignment())
        highs = await consumer.end_offsets(partitions)
        lows = await consumer.beginning_offsets(partitions)
        ends = {each: highs[each] for each in partitions if lows[each] < highs[each]}
        while ends:
            record = await asyncio.wait_for(consumer.getone(), PATIENCE_SECONDS)
            output.record(topic, record.partition, record.value, record.headers, record.key, record.timestamp)
            partition = TopicPartition(topic, record.partition)
            if partition in ends and record.offset + 1 >= ends[partition]:
                del ends[partition]
    finally:
        await consumer.stop()
    return output.finish()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
