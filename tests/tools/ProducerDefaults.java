// Writes sdk/src/config/kafka_producer.txt: every producer setting with its type and default, as Apache Kafka's own
// class defines them. Run from the workspace's root with a Kafka 4.3.0 at hand:
//
//     java -cp "$(tests/kafka/kafka-cluster fetch)" tests/tools/ProducerDefaults.java > sdk/src/config/kafka_producer.txt

import java.util.TreeMap;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.utils.AppInfoParser;

public class ProducerDefaults {
    public static void main(String[] args) {
        System.out.println("# ProducerConfig of Apache Kafka " + AppInfoParser.getVersion() + ": name = default; without \"=\" there is none");
        new TreeMap<>(ProducerConfig.configDef().configKeys()).forEach((name, key) -> {
            if (key.internalConfig) return;
            boolean given = key.hasDefault() && key.defaultValue != null;
            System.out.println((given ? name + " = " + ConfigDef.convertToString(key.defaultValue, key.type) : name).stripTrailing());
        });
    }
}
