// Writes sdk/src/config/kafka_verdicts.txt: which values of producer settings, alone and together, Apache Kafka's own
// producer accepts. Run from the workspace's root with a Kafka 4.3.0 at hand:
//
//     java -cp "$(tests/kafka/kafka-cluster fetch)" tests/tools/ProducerVerdicts.java > sdk/src/config/kafka_verdicts.txt

import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

public class ProducerVerdicts {
    private static final List<String> CASES = List.of(
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

    public static void main(String[] args) {
        System.out.println("# What a producer of Apache Kafka " + AppInfoParser.getVersion() + " says to these settings");
        for (String settings : CASES) {
            Properties properties = new Properties();
            properties.put("bootstrap.servers", "127.0.0.1:1");
            properties.put("key.serializer", ByteArraySerializer.class.getName());
            properties.put("value.serializer", ByteArraySerializer.class.getName());
            for (String setting : settings.split(" ")) {
                int at = setting.indexOf('=');
                properties.put(setting.substring(0, at), setting.substring(at + 1));
            }
            System.out.println((accepted(properties) ? "accepted " : "refused ") + settings);
        }
    }

    private static boolean accepted(Properties properties) {
        try {
            new KafkaProducer<>(properties).close(Duration.ZERO);
            return true;
        } catch (KafkaException refused) {
            return false;
        }
    }
}
