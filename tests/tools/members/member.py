#!/usr/bin/env python3
"""A member of a consumer group: member.py CLIENT BOOTSTRAP GROUP TOPIC STRATEGY

CLIENT is kafka-python, aiokafka or confluent (librdkafka), STRATEGY range or cooperative-sticky. It reads from the
beginning, commits by itself as its client does, and prints

    owns PARTITION...               whenever that has changed
    read PARTITION OFFSET VALUE     for each record

A line on standard input, or its end, lets it leave the group in order; the last line is then

    left
"""
import asyncio
import sys
import threading
import time

CLIENT, BOOTSTRAP, GROUP, TOPIC, STRATEGY = sys.argv[1:]
HEARTBEAT_MS = 300
leaving = threading.Event()


def wait_for_the_end():
    sys.stdin.readline()
    leaving.set()


def say(*words):
    print(*words, flush=True)


class Owned:
    """Says what is owned when it has changed."""

    def __init__(self):
        self.told = None

    def now(self, partitions):
        partitions = sorted(partitions)
        if partitions != self.told:
            self.told = partitions
            say("owns", *partitions)


def kafka_python():
    from kafka import ConsumerRebalanceListener, KafkaConsumer
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
    from kafka.coordinator.assignors.range import RangePartitionAssignor

    owned = Owned()

    class Listener(ConsumerRebalanceListener):
        mine = set()

        def on_partitions_assigned(self, assigned):
            self.mine |= {name.partition for name in assigned}
            owned.now(self.mine)

        def on_partitions_revoked(self, revoked):
            self.mine -= {name.partition for name in revoked}
            owned.now(self.mine)

    assignor = {"range": RangePartitionAssignor, "cooperative-sticky": CooperativeStickyAssignor}[STRATEGY]
    consumer = KafkaConsumer(
        bootstrap_servers=BOOTSTRAP.split(","),
        group_id=GROUP,
        auto_offset_reset="earliest",
        heartbeat_interval_ms=HEARTBEAT_MS,
        partition_assignment_strategy=[assignor],
    )
    consumer.subscribe([TOPIC], listener=Listener())
    # 3.0.12 forgets an attempt to join that outlasts the poll it began in: `join_group_async` (kafka/coordinator/base.py) begins
    # another one if it finds the last one done, and nobody asks at all if only the metadata had called for it, because by then
    # `need_rejoin` (kafka/coordinator/consumer.py) finds its snapshots equal; it spins then, without partitions or heartbeats,
    # whosever the brokers are. So it has to know the topic before it joins, and to poll for longer than joining takes.
    while not consumer.partitions_for_topic(TOPIC):
        time.sleep(0.05)
    while not leaving.is_set():
        for records in consumer.poll(timeout_ms=2000).values():
            for record in records:
                say("read", record.partition, record.offset, record.value.decode())
    consumer.close()


def confluent():
    from confluent_kafka import Consumer

    def committed(error, partitions):
        if error or any(name.error for name in partitions):
            print("commit:", error, *partitions, file=sys.stderr, flush=True)

    consumer = Consumer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": GROUP,
            "auto.offset.reset": "earliest",
            "heartbeat.interval.ms": HEARTBEAT_MS,
            "partition.assignment.strategy": STRATEGY,
            "on_commit": committed,
        }
    )
    consumer.subscribe([TOPIC])
    owned = Owned()
    while not leaving.is_set():
        record = consumer.poll(0.1)
        if record is not None and record.error() is None:
            say("read", record.partition(), record.offset(), record.value().decode())
        owned.now(name.partition for name in consumer.assignment())
    consumer.close()


async def aiokafka():
    from aiokafka import AIOKafkaConsumer
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor

    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=BOOTSTRAP,
        group_id=GROUP,
        auto_offset_reset="earliest",
        heartbeat_interval_ms=HEARTBEAT_MS,
        partition_assignment_strategy=[{"range": RangePartitionAssignor}[STRATEGY]],
    )
    await consumer.start()
    owned = Owned()
    while not leaving.is_set():
        for records in (await consumer.getmany(timeout_ms=100)).values():
            for record in records:
                say("read", record.partition, record.offset, record.value.decode())
        owned.now(name.partition for name in consumer.assignment())
    await consumer.stop()


threading.Thread(target=wait_for_the_end, daemon=True).start()
if CLIENT == "kafka-python":
    kafka_python()
elif CLIENT == "confluent":
    confluent()
elif CLIENT == "aiokafka":
    asyncio.run(aiokafka())
else:
    sys.exit(f"there is no client {CLIENT}")
say("left")
