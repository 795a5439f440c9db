// Records the golden bytes in sdk/wire/tests/golden; see README.md beside this file.
//
//     Recorder messages OUT                  what Kafka's own classes serialise, no broker needed
//     Recorder broker OUT BOOTSTRAP DATA     what a broker stores (in its log dir DATA) and answers
//     Recorder read-ours DIR                 reads the batches that our encoder wrote

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.InputStream;
import java.lang.reflect.Method;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.message.ApiVersionsRequestData;
import org.apache.kafka.common.message.FetchRequestData;
import org.apache.kafka.common.message.MetadataRequestData;
import org.apache.kafka.common.message.RequestHeaderData;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.record.internal.BaseRecords;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.SimpleRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.Utils;

public class Recorder {
    static final List<String> APIS = List.of(
        "Produce", "Fetch", "ListOffsets", "Metadata", "ApiVersions", "CreateTopics", "DeleteTopics",
        "InitProducerId", "OffsetForLeaderEpoch", "AlterPartition", "DescribeConfigs", "DescribeCluster",
        "BrokerRegistration", "BrokerHeartbeat", "AllocateProducerIds");
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");

    public static void main(String[] args) throws Exception {
        Path out = Path.of(args[1]);
        Files.createDirectories(out);
        switch (args[0]) {
            case "messages" -> Messages.record(out);
            case "broker" -> new Broker(out, args[2], Path.of(args[3])).record();
            case "read-ours" -> readOurs(out);
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    /** Fails unless every codec's batch passes Kafka's checks and holds the golden records, then the large ones. */
    static void readOurs(Path place) throws Exception {
        for (String codec : CODECS) {
            var records = MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(place.resolve(codec + ".bin"))));
            int i = 0;
            for (var batch : records.batches()) {
                batch.ensureValid();
                require(batch.compressionType().name.equals(codec), codec);
                require(batch.producerId() == 5 && batch.producerEpoch() == 6 && batch.baseSequence() == 7, "producer");
                for (var record : batch) {
                    var wanted = i < 23 ? Broker.goldenRecord("ours", i) : Broker.largeRecord("ours", i - 23);
                    require(record.offset() == i && record.timestamp() == wanted.timestamp(), codec + " record " + i);
                    require(Arrays.equals(Utils.toNullableArray(record.key()), wanted.key()), codec + " key " + i);
                    require(Arrays.equals(Utils.toNullableArray(record.value()), wanted.value()), codec + " value " + i);
                    require(Arrays.equals(record.headers(), wanted.headers().toArray()), codec + " headers " + i);
                    i++;
                }
            }
            require(i == 27, codec + ": " + i + " records");
        }
        System.err.println("Kafka reads every batch we wrote");
    }

    static void require(boolean holds, String what) {
        if (!holds) throw new IllegalStateException(what + " differs");
    }

    static byte[] bytes(ApiMessage message, short version) {
        return MessageUtil.byteBufferToArray(MessageUtil.toByteBufferAccessor(message, version).buffer());
    }

    static String line(String api, int version, String what, byte[] body) {
        return api + " " + version + " " + what + " " + HexFormat.of().formatHex(body) + "\n";
    }

    /** Every message in every stable version, its fields filled by the schema in the jar. */
    static final class Messages {
        /** How the fields of one message are filled. */
        enum Fill { FULL, NULL_LEAVES, EMPTY }

        static final ObjectMapper JSON = new ObjectMapper().enable(JsonParser.Feature.ALLOW_COMMENTS);

        final String outer;
        final short version;
        final Fill fill;
        final Map<String, JsonNode> structs = new HashMap<>();
        int serial;

        Messages(String outer, short version, Fill fill) {
            this.outer = outer;
            this.version = version;
            this.fill = fill;
        }

        static void record(Path out) throws Exception {
            for (String kind : List.of("Request", "Response")) {
                StringBuilder lines = new StringBuilder();
                for (String api : APIS) {
                    record(api, kind, lines);
                }
                Files.writeString(out.resolve(kind.toLowerCase() + "s.hex"), lines);
            }
        }

        static void record(String api, String kind, StringBuilder lines) throws Exception {
            JsonNode schema;
            try (InputStream in = Recorder.class.getResourceAsStream("/common/message/" + api + kind + ".json")) {
                schema = JSON.readTree(in);
            }
            ApiMessageType type = null;
            for (ApiMessageType candidate : ApiMessageType.values()) {
                if (candidate.name.equals(api)) type = candidate;
            }
            for (short version = type.lowestSupportedVersion(); version <= type.highestSupportedVersion(false); version++) {
                for (Fill fill : Fill.values()) {
                    Messages filler = new Messages("org.apache.kafka.common.message." + api + kind + "Data", version, fill);
                    if (schema.has("commonStructs")) {
                        for (JsonNode struct : schema.get("commonStructs")) {
                            filler.structs.put(struct.get("name").asText(), struct.get("fields"));
                        }
                    }
                    Object message = filler.struct("", schema.get("fields"));
                    String what = fill.name().toLowerCase().replace('_', '-');
                    lines.append(line(api, version, what, bytes((ApiMessage) message, version)));
                }
            }
        }

        static boolean in(int version, String range) {
            if (range == null || range.equals("none")) return false;
            if (range.endsWith("+")) return version >= Integer.parseInt(range.substring(0, range.length() - 1));
            String[] ends = range.split("-");
            return version >= Integer.parseInt(ends[0]) && version <= Integer.parseInt(ends[ends.length - 1]);
        }

        Object struct(String name, JsonNode fields) throws Exception {
            Class<?> type = Class.forName(name.isEmpty() ? outer : outer + "$" + name);
            Object message = type.getDeclaredConstructor().newInstance();
            for (JsonNode field : fields) {
                if (!in(version, field.get("versions").asText())) continue;
                String setter = "set" + field.get("name").asText();
                for (Method method : type.getMethods()) {
                    if (method.getName().equals(setter)) {
                        method.invoke(message, value(field, method.getParameterTypes()[0]));
                    }
                }
            }
            return message;
        }

        Object value(JsonNode field, Class<?> parameter) throws Exception {
            String type = field.get("type").asText();
            boolean nullable = field.has("nullableVersions") && in(version, field.get("nullableVersions").asText());
            boolean branch = type.startsWith("[]") || structure(type, field) != null;
            if (nullable && (fill == Fill.EMPTY || fill == Fill.NULL_LEAVES && !branch)) return null;
            if (type.startsWith("[]")) {
                Collection<Object> list = parameter == List.class ? new ArrayList<>()
                    : cast(parameter.getDeclaredConstructor().newInstance());
                int length = fill == Fill.FULL ? 2 : fill == Fill.EMPTY ? 0 : 1;
                for (int i = 0; i < length; i++) list.add(element(type.substring(2), field, Object.class));
                return list;
            }
            return element(type, field, parameter);
        }

        @SuppressWarnings("unchecked")
        static Collection<Object> cast(Object collection) {
            return (Collection<Object>) collection;
        }

        JsonNode structure(String type, JsonNode field) {
            String bare = type.startsWith("[]") ? type.substring(2) : type;
            if (field.has("fields")) structs.put(bare, field.get("fields"));
            return structs.get(bare);
        }

        Object element(String type, JsonNode field, Class<?> parameter) throws Exception {
            serial++;
            boolean blank = fill == Fill.EMPTY;
            switch (type) {
                case "bool": return !blank;
                case "int8": return (byte) (blank ? 0 : serial);
                case "int16": return (short) (blank ? -1 : 1000 + serial);
                case "uint16": return blank ? 0 : 65000 + serial;
                case "int32": return blank ? -1 : 100_000_000 + serial;
                case "uint32": return blank ? 0L : 4_000_000_000L + serial;
                case "int64": return blank ? -1L : 1_000_000_000_000_000L + serial;
                case "float64": return blank ? 0.0 : serial + 0.5;
                case "string": return blank ? "" : field.get("name").asText() + "-é-" + serial;
                case "uuid": return blank ? Uuid.ZERO_UUID : new Uuid(0x0102030405060708L, serial);
                case "records": return blank ? MemoryRecords.EMPTY : records();
                case "bytes":
                    byte[] bytes = blank ? new byte[0] : new byte[] {0, (byte) serial, -1};
                    return parameter == ByteBuffer.class ? ByteBuffer.wrap(bytes) : bytes;
                default: return struct(type, structure(type, field));
            }
        }

        static BaseRecords records() {
            return MemoryRecords.withRecords(Compression.NONE,
                new SimpleRecord(1_700_000_000_000L, "key".getBytes(), "value".getBytes()),
                new SimpleRecord(1_700_000_000_001L, (byte[]) null, (byte[]) null));
        }
    }

    /** What a broker stores and answers. Topics `golden-*`, one partition each. */
    static final class Broker {
        final Path out;
        final String bootstrap;
        final Path data;
        final StringBuilder answers = new StringBuilder();
        final Map<String, Uuid> ids = new HashMap<>();

        Broker(Path out, String bootstrap, Path data) {
            this.out = out;
            this.bootstrap = bootstrap;
            this.data = data;
        }

        void record() throws Exception {
            try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", bootstrap))) {
                List<NewTopic> topics = new ArrayList<>();
                for (String codec : CODECS) topics.add(topic(codec, "CreateTime"));
                for (String codec : CODECS.subList(1, 5)) topics.add(topic("large-" + codec, "CreateTime"));
                topics.add(topic("transaction", "CreateTime"));
                topics.add(topic("log-append-time", "LogAppendTime"));
                var created = admin.createTopics(topics);
                created.all().get();
                for (NewTopic topic : topics) ids.put(topic.name(), created.topicId(topic.name()).get());
            }
            for (String codec : CODECS) {
                // without idempotence, as producer ids depend on what the cluster did before
                produce("golden-" + codec, Map.of("compression.type", codec, "enable.idempotence", "false"));
                keep("golden-" + codec, "batch-" + codec + ".bin");
            }
            for (String codec : CODECS.subList(1, 5)) {
                // more than one block of every codec's framing
                try (var producer = producer(Map.of("compression.type", codec, "enable.idempotence", "false"))) {
                    for (int i = 0; i < 4; i++) producer.send(largeRecord("golden-large-" + codec, i));
                    producer.flush();
                }
                keep("golden-large-" + codec, "batch-large-" + codec + ".bin");
            }
            produce("golden-log-append-time", Map.of("compression.type", "lz4"));
            keep("golden-log-append-time", "batch-log-append-time.bin");
            transactions("golden-transaction");
            awaitMarkers("golden-transaction", 8);
            keep("golden-transaction", "batch-transaction.bin");
            converse();
            Files.writeString(out.resolve("answers.hex"), answers);
        }

        /**
         * The records are years old: without retention.ms the broker deletes them half a minute after its start,
         * and without segment.ms the first marker, which has today's date, begins a new file.
         */
        static NewTopic topic(String name, String timestampType) {
            return new NewTopic("golden-" + name, 1, (short) 1)
                .configs(Map.of("message.timestamp.type", timestampType, "retention.ms", "-1",
                    "segment.ms", Long.toString(Long.MAX_VALUE)));
        }

        KafkaProducer<byte[], byte[]> producer(Map<String, String> settings) {
            Properties properties = new Properties();
            properties.put("bootstrap.servers", bootstrap);
            properties.put("linger.ms", "1000"); // each flush makes one batch
            properties.put("batch.size", "1000000");
            properties.putAll(settings);
            return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
        }

        void produce(String topic, Map<String, String> settings) {
            try (var producer = producer(settings)) {
                for (int i = 0; i < 20; i++) producer.send(goldenRecord(topic, i));
                producer.flush();
                for (int i = 20; i < 23; i++) producer.send(goldenRecord(topic, i));
                producer.flush();
            }
        }

        void transactions(String topic) {
            try (var producer = producer(Map.of("transactional.id", "golden"))) {
                producer.initTransactions();
                producer.beginTransaction();
                for (int i = 0; i < 3; i++) producer.send(goldenRecord(topic, i));
                producer.commitTransaction();
                producer.beginTransaction();
                for (int i = 3; i < 6; i++) producer.send(goldenRecord(topic, i));
                producer.flush(); // or the records of an aborted transaction are never sent
                producer.abortTransaction();
            }
        }

        /** Waits until every offset below `end` is decided: a broker writes its markers after it has answered. */
        void awaitMarkers(String topic, long end) throws Exception {
            var partition = new TopicPartition(topic, 0);
            var decided = new ListOffsetsOptions(IsolationLevel.READ_COMMITTED);
            try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", bootstrap))) {
                for (int i = 0; i < 300; i++) {
                    var stable = admin.listOffsets(Map.of(partition, OffsetSpec.latest()), decided);
                    if (stable.partitionResult(partition).get().offset() == end) return;
                    Thread.sleep(100);
                }
            }
            throw new IllegalStateException("no markers in " + topic + " after 30 s");
        }

        /** Record i; sdk/wire/tests/golden.rs makes the same ones. */
        static ProducerRecord<byte[], byte[]> goldenRecord(String topic, int i) {
            byte[] key = i % 3 == 0 ? null : i % 3 == 1 ? new byte[0] : ("key-" + i).getBytes(StandardCharsets.UTF_8);
            byte[] value = i % 4 == 0 ? null : i % 4 == 1 ? new byte[0]
                : ("value-" + i + ";").repeat(i % 4 == 2 ? 40 : 1).getBytes(StandardCharsets.UTF_8);
            List<Header> headers = new ArrayList<>();
            if (i % 5 == 1) headers.add(new RecordHeader("null", (byte[]) null));
            if (i % 5 == 2) headers.add(new RecordHeader("", new byte[0]));
            if (i % 5 == 3) {
                headers.add(new RecordHeader("twice", new byte[] {(byte) i}));
                headers.add(new RecordHeader("twice", new byte[] {(byte) 0xff, 0}));
            }
            // every other record is older than the first
            long timestamp = 1_700_000_000_000L + 7L * i - (i % 2) * 1000L;
            return new ProducerRecord<>(topic, 0, timestamp, key, value, headers);
        }

        static ProducerRecord<byte[], byte[]> largeRecord(String topic, int i) {
            byte[] value = ("value-" + i + ";").repeat(7000).getBytes(StandardCharsets.UTF_8);
            return new ProducerRecord<>(topic, 0, 1_700_000_000_000L, null, value);
        }

        void keep(String topic, String file) throws Exception {
            Files.write(out.resolve(file), Files.readAllBytes(data.resolve(topic + "-0/00000000000000000000.log")));
        }

        void converse() throws Exception {
            String[] address = bootstrap.split(",")[0].split(":");
            try (Socket socket = new Socket(address[0], Integer.parseInt(address[1]))) {
                for (short v = 0; v <= 4; v++) {
                    answer(socket, "ApiVersions", v, "live", new ApiVersionsRequestData()
                        .setClientSoftwareName("golden").setClientSoftwareVersion("1"));
                }
                // a version that no broker knows is answered in version 0 with error 35
                unsupported(socket);
                for (short v = 12; v <= 13; v++) {
                    answer(socket, "Metadata", v, "live", new MetadataRequestData().setTopics(null));
                    answer(socket, "Metadata", v, "unknown-topic", new MetadataRequestData().setAllowAutoTopicCreation(false)
                        .setTopics(List.of(new MetadataRequestData.MetadataRequestTopic().setName("no-such-topic"))));
                }
                for (short v = 4; v <= 18; v++) {
                    String codec = CODECS.get(v % CODECS.size());
                    answer(socket, "Fetch", v, codec, fetch(v, "golden-" + codec, 0, 1 << 20));
                }
                for (String codec : CODECS) {
                    answer(socket, "Fetch", (short) 17, codec, fetch((short) 17, "golden-" + codec, 0, 1 << 20));
                }
                answer(socket, "Fetch", (short) 17, "transaction", fetch((short) 17, "golden-transaction", 0, 1 << 20));
                int first = ByteBuffer.wrap(Files.readAllBytes(out.resolve("batch-none.bin"))).getInt(8) + 12;
                answer(socket, "Fetch", (short) 17, "cut", fetch((short) 17, "golden-none", 0, first + 30));
                answer(socket, "Fetch", (short) 17, "out-of-range", fetch((short) 17, "golden-none", 1000, 1 << 20));
            }
        }

        FetchRequestData fetch(short version, String topic, long offset, int maxBytes) {
            var partition = new FetchRequestData.FetchPartition().setPartition(0).setFetchOffset(offset)
                .setPartitionMaxBytes(maxBytes);
            var wanted = new FetchRequestData.FetchTopic().setPartitions(List.of(partition));
            if (version >= 13) wanted.setTopicId(ids.get(topic));
            else wanted.setTopic(topic);
            return new FetchRequestData().setMaxWaitMs(500).setMinBytes(1).setMaxBytes(1 << 20)
                .setIsolationLevel((byte) 1).setTopics(List.of(wanted));
        }

        void answer(Socket socket, String api, short version, String what, ApiMessage request) throws Exception {
            ApiMessageType type = ApiMessageType.fromApiKey(request.apiKey());
            byte[] reply = exchange(socket, request.apiKey(), version, type.requestHeaderVersion(version), bytes(request, version));
            int header = type.responseHeaderVersion(version) == 0 ? 4 : 5; // correlation id, empty tagged fields
            byte[] body = Arrays.copyOfRange(reply, header, reply.length);
            answers.append(line(api, version, what, body));
        }

        void unsupported(Socket socket) throws Exception {
            byte[] reply = exchange(socket, (short) 18, (short) 99, (short) 2, new byte[] {1, 1, 0});
            answers.append(line("ApiVersions", 0, "to-version-99", Arrays.copyOfRange(reply, 4, reply.length)));
        }

        static byte[] exchange(Socket socket, short key, short version, short headerVersion, byte[] body) throws Exception {
            byte[] header = bytes(new RequestHeaderData().setRequestApiKey(key).setRequestApiVersion(version)
                .setCorrelationId(7).setClientId("golden"), headerVersion);
            var to = new DataOutputStream(socket.getOutputStream());
            to.writeInt(header.length + body.length);
            to.write(header);
            to.write(body);
            to.flush();
            var from = new DataInputStream(socket.getInputStream());
            byte[] reply = new byte[from.readInt()];
            from.readFully(reply);
            return reply;
        }
    }
}
