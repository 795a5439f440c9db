// Writes sdk/core/src/assign/tests/kafka.txt: random groups, what Apache Kafka's own assignors make of each, and bytes
// of the consumer protocol. Run from the workspace's root with a Kafka 4.3.0 at hand:
//
//     java -cp "$(tests/kafka/kafka-cluster fetch)" tests/tools/Assignments.java > sdk/core/src/assign/tests/kafka.txt
//
// A group is `case`, then `t NAME PARTITIONS RACKS` for each topic (racks: a letter for each rack that has a replica, `-`
// for none, one word a partition, `*` if nobody has a rack), then `m ID INSTANCE RACK GENERATION TOPICS OWNED` for each
// member in the order of the JoinGroup answer (topics by letter; owned as a0.3,b1), then one line an assignor: for each
// partition, topic by topic, the letter of the member that gets it, `-` if nobody does now. `!` is an exception, `?` a
// partition that does not exist or has two owners. A topic with -1 partitions is not in the metadata.
//
// `bytes KIND VERSION HEX MEANING` is a serialised subscription or assignment.

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeSet;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Assignment;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.GroupSubscription;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Subscription;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.common.Cluster;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;

@SuppressWarnings("removal")
public class Assignments {
    private static final int CASES = 1010;
    private static final String LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    private static final List<String> WORDS = List.of("orders", "payments", "clicks", "a", "b.c", "Audit_log", "x-1", "x-10");

    private final Random random = new Random(7);
    private final List<String> topics = new ArrayList<>();
    private final Map<String, Integer> counts = new LinkedHashMap<>();
    private final Map<TopicPartition, List<String>> racks = new HashMap<>();
    private final List<Member> members = new ArrayList<>();

    private static final class Member {
        String id;
        String instance;
        String rack;
        Integer generation;
        List<String> topics = new ArrayList<>();
        List<TopicPartition> owned = new ArrayList<>();
    }

    public static void main(String[] args) {
        for (int i = 0; i < CASES; i++) new Assignments(i).record();
        bytes();
    }

    private Assignments(int number) {
        random.setSeed(1000003L * number + 7);
        boolean large = number % 50 == 49;
        boolean racked = chance(45);
        makeTopics(large, racked);
        makeMembers(large, racked);
        makePast();
    }

    private boolean chance(int percent) {
        return random.nextInt(100) < percent;
    }

    private void makeTopics(boolean large, boolean racked) {
        List<String> words = new ArrayList<>(WORDS);
        Collections.shuffle(words, random);
        topics.addAll(words.subList(0, 1 + random.nextInt(large ? 8 : 5)));
        int same = 1 + random.nextInt(8);
        boolean alike = chance(40);
        String brokers = "uvw".substring(0, 2 + random.nextInt(2));
        int replicas = 1 + random.nextInt(brokers.length());
        for (String topic : topics) {
            int count = chance(4) ? -1 : alike ? same : 1 + random.nextInt(large ? 24 : 9);
            counts.put(topic, count);
            for (int p = 0; racked && p < count; p++) {
                List<String> all = new ArrayList<>(Arrays.asList(brokers.split("")));
                Collections.shuffle(all, random);
                racks.put(new TopicPartition(topic, p), new ArrayList<>(new TreeSet<>(all.subList(0, chance(5) ? 0 : replicas))));
            }
        }
    }

    private void makeMembers(boolean large, boolean racked) {
        int size = 1 + random.nextInt(large ? 40 : chance(20) ? 20 : 7);
        boolean equal = chance(50);
        boolean statics = chance(25);
        for (int i = 0; i < size; i++) {
            Member member = new Member();
            member.id = WORDS.get(random.nextInt(3)).substring(0, 1) + Integer.toString(random.nextInt(36 * 36 * 36 * 36), 36) + i;
            member.instance = statics && chance(60) ? "i" + Integer.toString(random.nextInt(1000)) + "." + i : null;
            member.rack = racked && !chance(15) ? String.valueOf("uvwz".charAt(random.nextInt(chance(90) ? 3 : 4))) : null;
            for (String topic : topics) if (equal || chance(60)) member.topics.add(topic);
            if (member.topics.isEmpty() && !chance(5)) member.topics.add(topics.get(random.nextInt(topics.size())));
            members.add(member);
        }
    }

    private void makePast() {
        int kind = random.nextInt(4); // 0: a new group
        if (kind == 0) return;
        int generation = 1 + random.nextInt(9);
        int newcomers = random.nextInt(3);
        List<Member> old = members.subList(0, Math.max(1, members.size() - newcomers));
        boolean uneven = chance(40);
        int turn = 0;
        for (String topic : topics) {
            for (int p = 0; p < counts.get(topic); p++) {
                if (chance(8)) continue;
                List<Member> able = old.stream().filter(m -> m.topics.contains(topic)).collect(Collectors.toList());
                if (able.isEmpty() || chance(3)) able = old;
                Member owner = able.get(uneven ? random.nextInt(1 + random.nextInt(able.size())) : turn++ % able.size());
                owner.owned.add(new TopicPartition(topic, p));
                if (kind == 3 && chance(12)) old.get(random.nextInt(old.size())).owned.add(new TopicPartition(topic, p));
            }
        }
        for (Member member : old) {
            member.owned = sorted(member.owned);
            member.generation = generation;
            if (kind != 1 && chance(25)) member.generation = chance(60) ? Integer.valueOf(generation - 1) : null;
        }
    }

    private static List<TopicPartition> sorted(List<TopicPartition> all) {
        return all.stream().distinct()
            .sorted(Comparator.comparing(TopicPartition::topic).thenComparing(TopicPartition::partition))
            .collect(Collectors.toList());
    }

    private String owned(Member member) {
        if (member.owned.isEmpty()) return "-";
        return member.owned.stream().map(tp -> letter(tp.topic()) + tp.partition()).collect(Collectors.joining(","));
    }

    private String letter(String topic) {
        return String.valueOf((char) ('a' + topics.indexOf(topic)));
    }

    private void record() {
        System.out.println("case");
        for (String topic : topics) {
            StringBuilder where = new StringBuilder();
            for (int p = 0; p < counts.get(topic) && !racks.isEmpty(); p++) {
                List<String> here = racks.get(new TopicPartition(topic, p));
                where.append(p == 0 ? "" : ",").append(here.isEmpty() ? "-" : String.join("", here));
            }
            System.out.println("t " + topic + " " + counts.get(topic) + " " + (where.length() == 0 ? "*" : where));
        }
        for (Member m : members) {
            String subscribed = m.topics.stream().map(this::letter).collect(Collectors.joining());
            System.out.println(String.join(" ", "m", m.id, m.instance == null ? "-" : m.instance, m.rack == null ? "-" : m.rack,
                m.generation == null ? "-" : m.generation.toString(), subscribed.isEmpty() ? "-" : subscribed, owned(m)));
        }
        answer(new RangeAssignor(), RangeAssignor::new);
        answer(new RoundRobinAssignor(), RoundRobinAssignor::new);
        answer(new StickyAssignor(), StickyAssignor::new);
        answer(new CooperativeStickyAssignor(), CooperativeStickyAssignor::new);
    }

    private void answer(ConsumerPartitionAssignor leader, Supplier<ConsumerPartitionAssignor> each) {
        Map<String, Subscription> subscriptions = new HashMap<>();
        for (Member m : members) {
            ConsumerPartitionAssignor own = each.get();
            ByteBuffer data = null;
            if (m.generation != null) {
                own.onAssignment(new Assignment(m.owned), new ConsumerGroupMetadata("g", m.generation, m.id, Optional.empty()));
                data = own.subscriptionUserData(new TreeSet<>(m.topics));
            }
            // An eager member has given everything up before it joins.
            boolean eager = !(leader instanceof CooperativeStickyAssignor);
            Subscription subscription = new Subscription(m.topics, data, eager ? List.of() : m.owned,
                m.generation == null ? -1 : m.generation, Optional.ofNullable(m.rack));
            if (m.instance != null) subscription.setGroupInstanceId(Optional.of(m.instance));
            subscriptions.put(m.id, subscription);
        }
        System.out.println(leader.name() + " " + render(leader, subscriptions));
    }

    private String render(ConsumerPartitionAssignor leader, Map<String, Subscription> subscriptions) {
        Map<TopicPartition, String> owner = new HashMap<>();
        try {
            Map<String, Assignment> all = leader.assign(cluster(), new GroupSubscription(subscriptions)).groupAssignment();
            for (int i = 0; i < members.size(); i++) {
                for (TopicPartition tp : all.get(members.get(i).id).partitions()) {
                    boolean known = tp.partition() < counts.get(tp.topic());
                    if (!known || owner.put(tp, String.valueOf(LETTERS.charAt(i))) != null) return "?";
                }
            }
        } catch (RuntimeException e) {
            return "!";
        }
        StringBuilder line = new StringBuilder("=");
        for (String topic : topics)
            for (int p = 0; p < counts.get(topic); p++) line.append(owner.getOrDefault(new TopicPartition(topic, p), "-"));
        return line.toString();
    }

    private Cluster cluster() {
        List<Node> nodes = new ArrayList<>();
        List<PartitionInfo> partitions = new ArrayList<>();
        for (String topic : topics) {
            for (int p = 0; p < counts.get(topic); p++) {
                List<String> here = racks.getOrDefault(new TopicPartition(topic, p), List.of());
                Node[] replicas = here.isEmpty() ? new Node[] {new Node(9, "h", 9, null)}
                    : here.stream().map(rack -> new Node(rack.charAt(0), "h", 9, rack)).toArray(Node[]::new);
                nodes.addAll(Arrays.asList(replicas));
                partitions.add(new PartitionInfo(topic, p, replicas[0], replicas, replicas));
            }
        }
        return new Cluster("c", nodes, partitions, Collections.emptySet(), Collections.emptySet());
    }

    private static void bytes() {
        TopicPartition a0 = new TopicPartition("a", 0), a7 = new TopicPartition("a", 7), b1 = new TopicPartition("b.c", 1);
        ByteBuffer data = ByteBuffer.wrap(new byte[] {1, 2, 3});
        for (short version = 0; version <= 3; version++) {
            show("subscription", version, "full", ConsumerProtocol.serializeSubscription(
                new Subscription(List.of("a", "b.c"), data, List.of(a0, a7, b1), 5, Optional.of("r1")), version));
            show("subscription", version, "bare", ConsumerProtocol.serializeSubscription(
                new Subscription(List.of("a"), null, List.of(), -1, Optional.empty()), version));
            show("assignment", version, "full", ConsumerProtocol.serializeAssignment(new Assignment(List.of(a0, a7, b1), data), version));
            show("assignment", version, "bare", ConsumerProtocol.serializeAssignment(new Assignment(List.of(), null), version));
        }
        StickyAssignor sticky = new StickyAssignor();
        sticky.onAssignment(new Assignment(List.of(a0, a7, b1)), new ConsumerGroupMetadata("g", 5, "m", Optional.empty()));
        show("sticky", (short) 1, "full", sticky.subscriptionUserData(new TreeSet<>()));
        CooperativeStickyAssignor cooperative = new CooperativeStickyAssignor();
        show("cooperative-sticky", (short) 0, "bare", cooperative.subscriptionUserData(new TreeSet<>()));
        cooperative.onAssignment(new Assignment(List.of()), new ConsumerGroupMetadata("g", 5, "m", Optional.empty()));
        show("cooperative-sticky", (short) 0, "full", cooperative.subscriptionUserData(new TreeSet<>()));
    }

    private static void show(String kind, short version, String meaning, ByteBuffer buffer) {
        StringBuilder hex = new StringBuilder();
        while (buffer.hasRemaining()) hex.append(String.format("%02x", buffer.get()));
        System.out.println(String.join(" ", "bytes", kind, Short.toString(version), hex.toString(), meaning));
    }
}
