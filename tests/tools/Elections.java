// Writes broker-lite/core/src/controller/elections.txt: random changes to partitions, and what Apache Kafka's own
// controller makes of each. Run from the workspace's root with a Kafka 4.3.0 at hand:
//
//     java -cp "$KAFKA_HOME/libs/*" tests/tools/Elections.java > broker-lite/core/src/controller/elections.txt
//
// A line is `before | change | after`. Before and after: replicas; ISR; ELR; last known ELR; leader; recovery state.
// Change: ISR asked for; active brokers; broker back from an unclean death; min.insync.replicas; unclean election
// allowed; recovery state asked for. Nobody is -1.

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.metadata.PartitionChangeRecord;
import org.apache.kafka.controller.PartitionChangeBuilder;
import org.apache.kafka.metadata.LeaderRecoveryState;
import org.apache.kafka.metadata.PartitionRegistration;
import org.apache.kafka.server.common.MetadataVersion;

public class Elections {
    private static final Uuid DIRECTORY = new Uuid(0, 0);
    private static final int LINES = 1000;
    private final Random random = new Random(3);
    private final Set<String> lines = new LinkedHashSet<>();

    public static void main(String[] args) {
        Elections elections = new Elections();
        while (elections.lines.size() < LINES) elections.walk();
        elections.lines.stream().limit(LINES).forEach(System.out::println);
    }

    private void walk() {
        List<Integer> replicas = IntStream.rangeClosed(1, 1 + random.nextInt(4)).boxed().collect(Collectors.toList());
        Collections.shuffle(replicas, random);
        int min = 1 + random.nextInt(3);
        boolean allowed = random.nextInt(4) == 0;
        Set<Integer> active = new TreeSet<>(replicas);
        PartitionRegistration now = new PartitionRegistration.Builder().setReplicas(array(replicas))
            .setDirectories(replicas.stream().map(id -> DIRECTORY).toArray(Uuid[]::new)).setIsr(array(replicas))
            .setLeader(replicas.get(0)).setLeaderRecoveryState(LeaderRecoveryState.RECOVERED)
            .setLeaderEpoch(0).setPartitionEpoch(0).build();
        for (int step = 0; step < 12; step++) now = step(now, active, min, allowed);
    }

    private PartitionRegistration step(PartitionRegistration now, Set<Integer> active, int min, boolean allowed) {
        int unclean = -1;
        List<Integer> isr = list(now.isr);
        LeaderRecoveryState recovery = now.leaderRecoveryState;
        int any = now.replicas[random.nextInt(now.replicas.length)];
        switch (random.nextInt(7)) {
            case 0: case 1: active.remove(any); break;
            case 2: case 3: active.add(any); break;
            case 4: active.remove(any); unclean = any; break;
            default:
                if (now.leader < 0) return now;
                if (random.nextBoolean()) recovery = LeaderRecoveryState.RECOVERED;
                boolean alone = recovery == LeaderRecoveryState.RECOVERING;
                isr = list(now.replicas);
                isr.removeIf(id -> id != now.leader && (alone || random.nextBoolean()));
        }
        isr.removeIf(id -> !active.contains(id));
        PartitionChangeBuilder builder = new PartitionChangeBuilder(now, Uuid.ONE_UUID, 0, active::contains,
            MetadataVersion.LATEST_PRODUCTION, Math.min(min, now.replicas.length), true)
            .setTargetIsr(isr).setTargetLeaderRecoveryState(recovery)
            .setUseLastKnownLeaderInBalancedRecovery(true).setDefaultDirProvider(id -> DIRECTORY);
        if (unclean >= 0) builder.setUncleanShutdownReplicas(List.of(unclean));
        if (allowed) builder.setElection(PartitionChangeBuilder.Election.UNCLEAN);
        PartitionRegistration next =
            builder.build().map(record -> now.merge((PartitionChangeRecord) record.message())).orElse(now);
        String change = String.join(";", text(isr), text(active), "" + unclean, "" + min, "" + allowed,
            "" + recovery.value());
        lines.add(state(now) + "|" + change + "|" + state(next));
        return next;
    }

    private static String state(PartitionRegistration p) {
        return String.join(";", text(list(p.replicas)), text(list(p.isr)), text(new TreeSet<>(list(p.elr))),
            text(list(p.lastKnownElr)), "" + p.leader, "" + p.leaderRecoveryState.value());
    }

    private static String text(Iterable<Integer> ids) {
        List<String> texts = new ArrayList<>();
        ids.forEach(id -> texts.add(id.toString()));
        return String.join(",", texts);
    }

    private static List<Integer> list(int[] ids) {
        return Arrays.stream(ids).boxed().collect(Collectors.toList());
    }

    private static int[] array(List<Integer> ids) {
        return ids.stream().mapToInt(Integer::intValue).toArray();
    }
}
