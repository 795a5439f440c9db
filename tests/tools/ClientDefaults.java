// Writes sdk/src/config/kafka_producer.txt and kafka_consumer.txt: every setting of Kafka's producer or consumer with its
// default, as Apache Kafka's own classes define them. Run from the workspace's root with a Kafka 4.3.0 at hand:
//
//     for kind in producer consumer; do
//       java -cp "$(tests/kafka/kafka-cluster fetch)" tests/tools/ClientDefaults.java $kind > sdk/src/config/kafka_$kind.txt
//     done

import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.utils.AppInfoParser;

public class ClientDefaults {
    public static void main(String[] args) {
        boolean producer = args[0].equals("producer");
        ConfigDef defined = producer ? ProducerConfig.configDef() : ConsumerConfig.configDef();
        String name = producer ? "ProducerConfig" : "ConsumerConfig";
        System.out.println("# " + name + " of Apache Kafka " + AppInfoParser.getVersion() + ": name = default; without \"=\" there is none");
        new TreeMap<>(defined.configKeys()).forEach((setting, key) -> {
            if (key.internalConfig) return;
            boolean given = key.hasDefault() && key.defaultValue != null;
            String value = given ? ConfigDef.convertToString(key.defaultValue, key.type).replace("class ", "") : "";
            System.out.println((given ? setting + " = " + value : setting).stripTrailing());
        });
    }
}
