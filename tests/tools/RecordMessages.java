import java.lang.reflect.*;
import java.nio.ByteBuffer;
import java.util.*;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.metadata.MetadataRecordType;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.errors.UnsupportedVersionException;
import org.apache.kafka.common.utils.ImplicitLinkedHashCollection;
import org.apache.kafka.metadata.MetadataRecordSerde;
import org.apache.kafka.server.common.ApiMessageAndVersion;

/**
 * Prints one random message of every api in every version, and one metadata record of every type and
 * version, as Kafka's own classes write them: the golden bytes of tests/golden/kafka-4.3.0-messages.txt.
 *
 * <pre>java -cp 'LIBS/*' tests/tools/RecordMessages.java > tests/golden/kafka-4.3.0-messages.txt</pre>
 *
 * where LIBS is the libs folder of Kafka 4.3.0. The same every time: the seed is fixed.
 */
public class RecordMessages {
    static final Random RANDOM = new Random(43);
    static final Set<String> NOT_FIELDS = Set.of("_unknownTaggedFields", "next", "prev");

    public static void main(String[] args) throws Exception {
        System.out.println("# side or record, api key or type, version, bytes; written by tests/tools/RecordMessages.java");
        for (ApiMessageType api : ApiMessageType.values()) {
            if (api.lowestSupportedVersion() > api.highestSupportedVersion(true)) {
                continue; // removed, only its key is still taken
            }
            print("request", api, api.newRequest());
            print("response", api, api.newResponse());
        }
        MetadataRecordSerde serde = new MetadataRecordSerde();
        for (MetadataRecordType type : MetadataRecordType.values()) {
            for (short v = type.lowestSupportedVersion(); v <= type.highestSupportedVersion(); v++) {
                Set<String> skip = new HashSet<>();
                ApiMessage m = filled(type.newMetadataRecord().getClass(), v, skip);
                ApiMessageAndVersion record = new ApiMessageAndVersion(m, v);
                ObjectSerializationCache cache = new ObjectSerializationCache();
                ByteBuffer out = ByteBuffer.allocate(serde.recordSize(record, cache));
                serde.write(record, cache, new ByteBufferAccessor(out));
                System.out.println("record " + type.id() + " " + v + " " + HexFormat.of().formatHex(out.array()));
            }
        }
    }

    static void print(String side, ApiMessageType api, ApiMessage blank) throws Exception {
        for (short v = blank.lowestSupportedVersion(); v <= blank.highestSupportedVersion(); v++) {
            ApiMessage m = filled(blank.getClass(), v, new HashSet<>());
            ByteBuffer b = MessageUtil.toByteBufferAccessor(m, v).buffer();
            byte[] bytes = new byte[b.remaining()];
            b.get(bytes);
            System.out.println(side + " " + api.apiKey() + " " + v + " " + HexFormat.of().formatHex(bytes));
        }
    }

    static ApiMessage filled(Class<? extends ApiMessage> type, short v, Set<String> skip) throws Exception {
        while (true) {
            ApiMessage m = (ApiMessage) fill(type, skip);
            try {
                m.size(new ObjectSerializationCache(), v);
                MessageUtil.toByteBufferAccessor(m, v);
                return m;
            } catch (UnsupportedVersionException e) {
                // The exception names the field that this version has no room for: leave it as it is.
                String name = e.getMessage().replaceAll(".*(?:non-default|Can't write) (\\S+) .*", "$1");
                if (!skip.add(name)) throw e;
            }
        }
    }

    static Object fill(Class<?> type, Set<String> skip) throws Exception {
        Object o = type.getDeclaredConstructor().newInstance();
        for (Field f : type.getDeclaredFields()) {
            if (Modifier.isStatic(f.getModifiers()) || NOT_FIELDS.contains(f.getName()) || skip.contains(f.getName())) {
                continue;
            }
            f.setAccessible(true);
            Object value = value(f.getType(), f.getGenericType(), skip);
            if (value != null) f.set(o, value);
        }
        return o;
    }

    static byte[] bytes() {
        byte[] bytes = new byte[RANDOM.nextInt(140)];
        RANDOM.nextBytes(bytes);
        return bytes;
    }

    static String text() {
        return "abcdefgh".substring(0, RANDOM.nextInt(8));
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    static Object value(Class<?> t, Type generic, Set<String> skip) throws Exception {
        if (t == boolean.class || t == Boolean.class) return RANDOM.nextBoolean();
        if (t == byte.class || t == Byte.class) return (byte) RANDOM.nextInt();
        if (t == short.class || t == Short.class) return (short) RANDOM.nextInt();
        if (t == int.class || t == Integer.class) return RANDOM.nextInt();
        if (t == long.class || t == Long.class) return RANDOM.nextLong();
        if (t == double.class) return RANDOM.nextDouble();
        if (t == String.class) return text();
        if (t == Uuid.class) return new Uuid(RANDOM.nextLong(), RANDOM.nextLong());
        if (t == byte[].class) return bytes();
        if (t == ByteBuffer.class) return ByteBuffer.wrap(bytes());
        if (BaseRecords.class.isAssignableFrom(t)) {
            return MemoryRecords.readableRecords(ByteBuffer.wrap(bytes()));
        }
        if (t == List.class) {
            Type e = ((ParameterizedType) generic).getActualTypeArguments()[0];
            List list = new ArrayList();
            for (int i = RANDOM.nextInt(3); i >= 0; i--) list.add(value((Class) e, e, skip));
            return list;
        }
        if (ImplicitLinkedHashCollection.class.isAssignableFrom(t)) {
            Collection c = (Collection) t.getDeclaredConstructor().newInstance();
            Class e = (Class) ((ParameterizedType) t.getGenericSuperclass()).getActualTypeArguments()[0];
            for (int i = RANDOM.nextInt(3); i >= 0; i--) c.add(fill(e, skip));
            return c;
        }
        return fill(t, skip);
    }
}
