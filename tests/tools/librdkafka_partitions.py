#!/usr/bin/env python3
"""Writes sdk/src/partitioner/librdkafka.txt: where librdkafka's own partitioners place keys.

The functions are those that librdkafka exports (rd_kafka_msg_partitioner_*), called in the library that
confluent-kafka brings along:

    pip install confluent-kafka==2.16.1
    tests/tools/librdkafka_partitions.py > sdk/src/partitioner/librdkafka.txt
"""

import ctypes
import pathlib
import random

import confluent_kafka

package = pathlib.Path(confluent_kafka.__file__).parent
library = next(package.parent.glob("confluent_kafka.libs/librdkafka*"))
librdkafka = ctypes.CDLL(str(library))

chance = random.Random(4)
keys = [b"", b"a", b"kafka", b"foobar", b"123456789", bytes(range(256))]
keys += [chance.randbytes(length) for length in range(1, 40)]

print(f"# librdkafka {confluent_kafka.libversion()[0]}: partitioner, key in hex, number of partitions, partition")
for name in ["consistent", "consistent_random", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random"]:
    place = getattr(librdkafka, f"rd_kafka_msg_partitioner_{name}")
    place.restype = ctypes.c_int32
    place.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p]
    for key in keys:
        if name == "consistent_random" and not key:
            continue  # placed by chance
        for count in [1, 6, 17, 2**31 - 1]:
            print(name, key.hex() or "-", count, place(None, key, len(key), count, None, None))
