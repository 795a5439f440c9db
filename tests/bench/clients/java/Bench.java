// Java's own clients in the benchmark: send with a callback, a semaphore of `window` permits; poll in a group (mode=consume).

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.Callback;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

public class Bench {
    static final int WARM_UP = 1000;
    /** Fields 14 and 15 of /proc/self/stat count in hundredths of a second. */
    static final double TICK = 0.01;

    final Map<String, String> job = new HashMap<>();
    final AtomicInteger failed = new AtomicInteger();
    final AtomicReference<String> failure = new AtomicReference<>();
    KafkaProducer<byte[], byte[]> producer;
    byte[][] values;
    long[] latencies = {};

    public static void main(String[] arguments) throws Exception {
        new Bench().run(arguments);
    }

    int number(String key) {
        return Integer.parseInt(job.get(key));
    }

    void run(String[] arguments) throws Exception {
        for (String argument : arguments) {
            int at = argument.indexOf('=');
            job.put(argument.substring(0, at), argument.substring(at + 1));
        }
        if ("consume".equals(job.get("mode"))) {
            read();
            return;
        }
        readValues();
        Properties properties = new Properties();
        properties.put("bootstrap.servers", job.get("bootstrap"));
        properties.put("acks", "all");
        properties.put("enable.idempotence", "true");
        properties.put("linger.ms", job.get("linger"));
        properties.put("batch.size", job.get("batch"));
        properties.put("compression.type", job.get("compression"));
        producer = new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());

        flood(WARM_UP);
        if (failed.get() > 0) throw new IllegalStateException(failure.get());
        System.out.println("ready");
        new BufferedReader(new InputStreamReader(System.in)).readLine();

        int records = number("records");
        double[] before = cpu();
        long began = System.nanoTime();
        if (number("rate") > 0) pace(records, number("rate")); else flood(records);
        double seconds = (System.nanoTime() - began) / 1e9;
        double[] after = cpu();

        report(records, seconds, before, after, "");
        producer.close();
    }

    void report(int records, double seconds, double[] before, double[] after, String more) throws Exception {
        Arrays.sort(latencies);
        System.out.printf(Locale.ROOT, "{\"version\":\"%s\",\"records\":%d,\"failed\":%d,\"failure\":%s,\"seconds\":%f,"
                + "\"cpu_user_s\":%f,\"cpu_sys_s\":%f,\"rss_peak_bytes\":%d,\"p50_us\":%s,\"p99_us\":%s,\"p999_us\":%s%s}%n",
                AppInfoParser.getVersion(), records, failed.get(), quoted(failure.get()), seconds, after[0] - before[0],
                after[1] - before[1], peakMemory(), quantile(0.5), quantile(0.99), quantile(0.999), more);
    }

    /** Reads by group subscribe; the clock runs from the call that subscribes. */
    void read() throws Exception {
        int records = number("records");
        int size = number("size");
        boolean stamped = number("rate") > 0;
        if (stamped) latencies = new long[records];
        Properties properties = new Properties();
        properties.put("bootstrap.servers", job.get("bootstrap"));
        properties.put("group.id", job.get("group"));
        properties.put("auto.offset.reset", "earliest");
        try (var consumer = new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
            System.out.println("ready");
            in.readLine();
            double[] before = cpu();
            long began = System.nanoTime();
            consumer.subscribe(List.of(job.get("topic")));
            double first = 0;
            int seen = 0;
            long sum = 0;
            while (seen < records) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    byte[] value = record.value();
                    if (seen == 0) first = (System.nanoTime() - began) / 1e9;
                    if (value.length != size) fail(new IllegalStateException("a value of " + value.length + " bytes"));
                    if (stamped && seen < records) latencies[seen] = nanos() - ByteBuffer.wrap(value).getLong();
                    seen++;
                    sum += (value[0] & 0xff) + (value[value.length - 1] & 0xff);
                }
            }
            double seconds = (System.nanoTime() - began) / 1e9;
            String more = String.format(Locale.ROOT, ",\"first_s\":%f,\"sum\":%d", first, sum);
            report(seen, seconds, before, cpu(), more);
            // The connections are looked at before they are closed.
            in.readLine();
        }
    }

    static long nanos() {
        Instant now = Instant.now();
        return now.getEpochSecond() * 1_000_000_000L + now.getNano();
    }

    void flood(int records) throws InterruptedException {
        int size = number("window");
        Semaphore window = new Semaphore(size);
        Callback callback = (metadata, error) -> {
            if (error != null) fail(error);
            window.release();
        };
        for (int i = 0; i < records; i++) {
            window.acquire();
            producer.send(record(i), callback);
        }
        window.acquire(size);
    }

    void pace(int records, int rate) throws InterruptedException {
        latencies = new long[records];
        Semaphore done = new Semaphore(0);
        long next = System.nanoTime();
        for (int i = 0; i < records; i++) {
            next += 1_000_000_000L / rate;
            for (long left; (left = next - System.nanoTime()) > 0; ) LockSupport.parkNanos(left);
            int index = i;
            long sent = System.nanoTime();
            producer.send(record(i), (metadata, error) -> {
                latencies[index] = System.nanoTime() - sent;
                if (error != null) fail(error);
                done.release();
            });
        }
        done.acquire(records);
    }

    ProducerRecord<byte[], byte[]> record(int i) {
        return new ProducerRecord<>(job.get("topic"), values[i % values.length]);
    }

    void fail(Exception error) {
        failed.incrementAndGet();
        failure.compareAndSet(null, error.toString());
    }

    void readValues() throws Exception {
        byte[] all = Files.readAllBytes(Path.of(job.get("values")));
        int size = number("size");
        values = new byte[all.length / size][];
        for (int i = 0; i < values.length; i++) values[i] = Arrays.copyOfRange(all, i * size, (i + 1) * size);
    }

    String quantile(double q) {
        if (latencies.length == 0) return "null";
        return Double.toString(latencies[(int) Math.round((latencies.length - 1) * q)] / 1e3);
    }

    static String quoted(String text) {
        return text == null ? "null" : '"' + text.replace('"', '\'').replace('\n', ' ') + '"';
    }

    static double[] cpu() throws Exception {
        String stat = Files.readString(Path.of("/proc/self/stat"));
        String[] fields = stat.substring(stat.lastIndexOf(')') + 2).split(" ");
        return new double[] {Long.parseLong(fields[11]) * TICK, Long.parseLong(fields[12]) * TICK};
    }

    static long peakMemory() throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) return Long.parseLong(line.replaceAll("[^0-9]", "")) * 1024;
        }
        return 0;
    }
}
