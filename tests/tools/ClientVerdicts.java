// Writes sdk/src/config/kafka_producer_verdicts.txt and kafka_consumer_verdicts.txt: which values of settings, alone and
// together, Apache Kafka's own producer or consumer accepts. Run from the workspace's root with a Kafka 4.3.0 at hand:
//
//     for kind in producer consumer; do
//       java -cp "$(tests/kafka/kafka-cluster fetch)" tests/tools/ClientVerdicts.java $kind > sdk/src/config/kafka_${kind}_verdicts.txt
//     done

import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

public class ClientVerdicts {
    private static final List<String> PRODUCER = List.of(
        "acks=all", "acks=-1", "acks=1", "acks=0", "acks=2", "acks=none",
        "enable.idempotence=true acks=all", "enable.idempotence=true acks=1", "enable.idempotence=true acks=0",
        "enable.idempotence=true retries=0", "enable.idempotence=true retries=1",
        "enable.idempotence=true max.in.flight.requests.per.connection=5",
        "enable.idempotence=true max.in.flight.requests.per.connection=6",
        "max.in.flight.requests.per.connection=6", "max.in.flight.requests.per.connection=0",
        "acks=1 max.in.flight.requests.per.connection=6", "retries=0 max.in.flight.requests.per.connection=6",
        "enable.idempotence=false max.in.flight.requests.per.connection=6",
        "enable.idempotence=false acks=1 retries=0", "enable.idempotence=maybe",
        "retries=0", "retries=-1", "retries=2147483648",
        "delivery.timeout.ms=30005", "delivery.timeout.ms=30004", "delivery.timeout.ms=-1", "delivery.timeout.ms=0",
        "delivery.timeout.ms=1000 linger.ms=0 request.timeout.ms=1000",
        "delivery.timeout.ms=1000 linger.ms=1 request.timeout.ms=1000",
        "linger.ms=600000", "linger.ms=-1", "linger.ms=0", "linger.ms=1.5",
        "batch.size=0", "batch.size=-1", "batch.size=2147483647", "batch.size=2147483648",
        "buffer.memory=0", "buffer.memory=-1", "max.block.ms=0", "max.block.ms=-1", "max.block.ms=9223372036854775807",
        "max.request.size=0", "max.request.size=-1", "request.timeout.ms=-1",
        "compression.type=none", "compression.type=gzip", "compression.type=snappy", "compression.type=lz4",
        "compression.type=lzma", "compression.type=",
        "compression.type=gzip compression.gzip.level=-1", "compression.type=gzip compression.gzip.level=0",
        "compression.type=gzip compression.gzip.level=1", "compression.type=gzip compression.gzip.level=9",
        "compression.type=gzip compression.gzip.level=10", "compression.gzip.level=5", "compression.gzip.level=10",
        "compression.type=lz4 compression.lz4.level=9", "compression.type=lz4 compression.lz4.level=17",
        "compression.type=lz4 compression.lz4.level=18", "compression.type=lz4 compression.lz4.level=0",
        "compression.zstd.level=3", "compression.zstd.level=23", "compression.zstd.level=-131073",
        "partitioner.class=org.apache.kafka.clients.producer.RoundRobinPartitioner", "partitioner.class=no.such.Class",
        "partitioner.ignore.keys=true", "partitioner.ignore.keys=1",
        "partitioner.adaptive.partitioning.enable=false", "partitioner.adaptive.partitioning.enable=no",
        "partitioner.availability.timeout.ms=0", "partitioner.availability.timeout.ms=-1",
        "partitioner.availability.timeout.ms=1000",
        "retry.backoff.ms=-1", "retry.backoff.max.ms=-1", "reconnect.backoff.ms=-1", "reconnect.backoff.max.ms=-1",
        "retry.backoff.ms=0", "send.buffer.bytes=-1", "send.buffer.bytes=-2", "receive.buffer.bytes=-1",
        "receive.buffer.bytes=-2", "metadata.max.age.ms=-1", "metadata.max.idle.ms=4999", "metadata.max.idle.ms=5000",
        "metadata.recovery.strategy=none", "metadata.recovery.strategy=pray",
        "metadata.recovery.rebootstrap.trigger.ms=-1", "metadata.recovery.rebootstrap.trigger.ms=0",
        "connections.max.idle.ms=-1", "client.dns.lookup=use_all_dns_ips", "client.dns.lookup=default",
        "security.protocol=PLAINTEXT", "security.protocol=NONE", "transaction.timeout.ms=60000");

    private static final String NAMES = "org.apache.kafka.clients.consumer.";
    private static final List<String> CONSUMER = List.of(
        "fetch.min.bytes=0", "fetch.min.bytes=-1", "fetch.min.bytes=2147483647", "fetch.min.bytes=2147483648",
        "fetch.max.wait.ms=0", "fetch.max.wait.ms=-1", "fetch.max.bytes=0", "fetch.max.bytes=-1",
        "fetch.min.bytes=100 fetch.max.bytes=10",
        "max.partition.fetch.bytes=0", "max.partition.fetch.bytes=-1", "max.partition.fetch.bytes=2147483648",
        "max.poll.records=1", "max.poll.records=0", "max.poll.records=-1", "max.poll.records=many",
        "auto.offset.reset=earliest", "auto.offset.reset=latest", "auto.offset.reset=none", "auto.offset.reset=first",
        "auto.offset.reset=EARLIEST", "auto.offset.reset=by_duration:PT1H", "auto.offset.reset=by_duration:P1DT2H3M",
        "auto.offset.reset=by_duration:1h", "auto.offset.reset=by_duration:-PT1H", "auto.offset.reset=by_duration:PT0S",
        "auto.offset.reset=by_duration:", "auto.offset.reset=",
        "isolation.level=read_committed", "isolation.level=read_uncommitted", "isolation.level=serializable",
        "isolation.level=READ_COMMITTED",
        "check.crcs=false", "check.crcs=maybe", "allow.auto.create.topics=false", "allow.auto.create.topics=1",
        "exclude.internal.topics=false", "client.rack=", "client.rack=a",
        "group.id=g", "group.id=", "group.id=g group.instance.id=i", "group.id=g group.instance.id=",
        "group.instance.id=i", "group.id=g group.instance.id=a/b", "group.id=g group.instance.id=.",
        "group.id=g group.instance.id=" + "i".repeat(249), "group.id=g group.instance.id=" + "i".repeat(250),
        "group.id=g group.instance.id=a.b_c-D9", "group.id=g group.instance.id=a:b",
        "group.id=g session.timeout.ms=6000", "group.id=g session.timeout.ms=3000", "group.id=g session.timeout.ms=3001", "group.id=g session.timeout.ms=0",
        "group.id=g session.timeout.ms=-1", "group.id=g heartbeat.interval.ms=45000", "group.id=g heartbeat.interval.ms=44999", "group.id=g heartbeat.interval.ms=0",
        "group.id=g heartbeat.interval.ms=-1", "group.id=g max.poll.interval.ms=1", "group.id=g max.poll.interval.ms=0", "group.id=g max.poll.interval.ms=-1",
        "group.id=g max.poll.interval.ms=1000 session.timeout.ms=6000",
        "enable.auto.commit=true", "group.id=g enable.auto.commit=true", "enable.auto.commit=false", "enable.auto.commit=2",
        "group.id=g auto.commit.interval.ms=0", "group.id=g auto.commit.interval.ms=1", "group.id=g auto.commit.interval.ms=-1",
        "request.timeout.ms=0", "request.timeout.ms=1", "request.timeout.ms=-1", "default.api.timeout.ms=0",
        "default.api.timeout.ms=-1", "default.api.timeout.ms=1 request.timeout.ms=2",
        "group.id=g partition.assignment.strategy=" + NAMES + "RangeAssignor",
        "group.id=g partition.assignment.strategy=" + NAMES + "StickyAssignor," + NAMES + "RoundRobinAssignor",
        "group.id=g partition.assignment.strategy=" + NAMES + "RangeAssignor," + NAMES + "RangeAssignor",
        "group.id=g partition.assignment.strategy=", "group.id=g partition.assignment.strategy=no.such.Class",
        "group.protocol=classic", "group.protocol=consumer", "group.protocol=CLASSIC", "group.protocol=new",
        "group.remote.assignor=uniform", "interceptor.classes=",
        "retry.backoff.ms=-1", "reconnect.backoff.ms=-1", "receive.buffer.bytes=-1", "receive.buffer.bytes=-2",
        "send.buffer.bytes=-1", "send.buffer.bytes=-2", "metadata.max.age.ms=-1", "connections.max.idle.ms=-1",
        "metadata.recovery.strategy=none", "metadata.recovery.strategy=pray", "security.protocol=NONE",
        "client.dns.lookup=default", "metadata.max.age.ms=0", "socket.connection.setup.timeout.ms=0",
        "socket.connection.setup.timeout.max.ms=0", "receive.buffer.bytes=0", "send.buffer.bytes=0",
        "partition.assignment.strategy=range");

    public static void main(String[] args) {
        boolean producer = args[0].equals("producer");
        System.out.println("# What a " + args[0] + " of Apache Kafka " + AppInfoParser.getVersion() + " says to these settings");
        for (String settings : producer ? PRODUCER : CONSUMER) {
            Properties properties = new Properties();
            properties.put("bootstrap.servers", "127.0.0.1:1");
            for (String side : List.of("key", "value")) {
                if (producer) properties.put(side + ".serializer", ByteArraySerializer.class.getName());
                else properties.put(side + ".deserializer", ByteArrayDeserializer.class.getName());
            }
            for (String setting : settings.split(" ")) {
                int at = setting.indexOf('=');
                properties.put(setting.substring(0, at), setting.substring(at + 1));
            }
            System.out.println((accepted(producer, properties) ? "accepted " : "refused ") + settings);
        }
    }

    private static boolean accepted(boolean producer, Properties properties) {
        try {
            if (producer) new KafkaProducer<>(properties).close(Duration.ZERO);
            else new KafkaConsumer<>(properties).close(CloseOptions.timeout(Duration.ZERO));
            return true;
        } catch (KafkaException refused) {
            return false;
        }
    }
}
