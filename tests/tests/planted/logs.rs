//! Schedules against what replicas keep: lost power, and logs that part.

use broker_lite::{Cut, PowerLoss, Side};
use tokio::time::sleep;

use crate::frame::{Done, Run, Sent, TOPIC, Writer, ms};

/// Far longer than it takes to commit where nobody waits for the disk.
const SLOW: u64 = 400;

fn slow_disks(run: &Run) -> Done<Vec<broker_lite::DiskFault>> {
    let slow = |id: i32| Ok(run.cluster.disk(id)?.slow(ms(SLOW)));
    run.cluster.broker_ids().into_iter().map(slow).collect()
}

async fn restart_all(run: &Run) -> Done {
    for broker in run.cluster.broker_ids() {
        run.cluster.restart(broker).await?;
    }
    Ok(())
}

/// All lose power in the moment in which a record is acknowledged.
pub(crate) async fn power_fails_after_the_answer(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    let slow = slow_disks(run)?;
    writer.write().await?;
    run.cluster.power_off_all();
    drop(slow);
    restart_all(run).await
}

/// Every process dies with a record that no disk has yet. They start again, the record is acknowledged, and the power
/// fails.
pub(crate) async fn power_fails_after_a_restart(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    let slow = slow_disks(run)?;
    let sent = writer.send().await?;
    sleep(ms(SLOW / 2)).await;
    for broker in run.cluster.broker_ids() {
        run.cluster.kill(broker)?;
    }
    restart_all(run).await?;
    writer.settle(sent).await;
    run.cluster.power_off_all();
    drop(slow);
    restart_all(run).await
}

/// A follower loses power while it writes; when it is back and has got more, it leads.
pub(crate) async fn power_fails_within_a_write(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    writer.begin().await?;
    let (leader, follower, other) = run.leader_and_followers()?;
    let slow = run.cluster.disk(follower)?.slow(ms(SLOW));
    let sent = writer.send().await?;
    sleep(ms(SLOW / 2)).await;
    run.cluster.power_off_with(follower, PowerLoss::Torn)?;
    drop(slow);
    run.cluster.restart(follower).await?;
    writer.settle(sent).await;
    run.until_isr(&[leader, follower, other]).await;
    writer.write().await?;
    run.leave_alone(follower, [leader, other]).await
}

/// The leader takes a record that it cannot replicate, and another broker is elected. Returns the new leader, the
/// record, and what keeps the old leader alone.
pub(crate) async fn depose(run: &Run, writer: &Writer<'_>) -> Done<(i32, Sent, [Cut; 2])> {
    let (old, _, _) = run.leader_and_followers()?;
    let alone = [run.cluster.cut(old, Side::Brokers), run.cluster.cut(old, Side::Controller)];
    let sent = writer.send().await?;
    let new = run.until_leader_is_not(old).await?;
    // The others learn of it before what the old leader has sent reaches them.
    sleep(ms(100)).await;
    Ok((new, sent, alone))
}

/// The old leader comes back when the new one has gone on for longer than its log.
pub(crate) async fn a_deposed_leader_returns(run: &Run) -> Done {
    let (writer, rival) = (run.writer("writer")?, run.writer("rival")?);
    writer.begin().await?;
    rival.begin().await?;
    let (old, _, _) = run.leader_and_followers()?;
    let (_, sent, alone) = depose(run, &writer).await?;
    // Nobody is to ask it who leads.
    let alone = (alone, run.cluster.cut(old, Side::Clients));
    for _ in 0..3 {
        rival.write().await?;
    }
    drop(alone);
    writer.settle(sent).await;
    Ok(())
}

/// The log of a deposed leader was durable further than it is to be cut back. It is cut, and its process dies before what it
/// has copied since is on its disk, or another checkpoint; it starts again, leads, and its power fails.
pub(crate) async fn a_deposed_leader_is_killed_while_it_catches_up(run: &Run) -> Done {
    let (writer, rival) = (run.impatient_writer("writer")?, run.writer("rival")?);
    writer.begin().await?;
    rival.begin().await?;
    let (old, second, third) = run.leader_and_followers()?;
    // Or its record would be sent again, to the next leader.
    let others = [run.cluster.cut(second, Side::Clients), run.cluster.cut(third, Side::Clients)];
    let (_, sent, alone) = depose(run, &writer).await?;
    writer.settle(sent).await;
    drop(others);
    let alone = (alone, run.cluster.cut(old, Side::Clients));
    rival.write().await?;
    // First the replica says what is to be in its checkpoint, then that is written.
    sleep(ms(5_500)).await;
    run.until_checkpoints_are_written().await;
    let slow = run.cluster.disk(old)?.slow(ms(5_000));
    drop(alone);
    let epoch = |broker| Some(run.cluster.log(broker, TOPIC, 0)?.last()?.leader_epoch);
    while epoch(old) != epoch(second) {
        sleep(ms(20)).await;
    }
    run.cluster.kill(old)?;
    run.cluster.restart(old).await?;
    run.until_isr(&[old, second, third]).await;
    for other in [second, third] {
        run.cluster.kill(other)?;
    }
    run.until_leader_is(old).await;
    run.cluster.power_off(old)?;
    drop(slow);
    // Nobody has come to an end in order, so the last leader is elected.
    for broker in [old, second, third] {
        run.cluster.restart(broker).await?;
    }
    Ok(())
}

/// The leader dies before its followers know what is committed; the one that leads next dies, too, before the last
/// one has fetched anything from it.
pub(crate) async fn two_leaders_die_in_turn(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    writer.begin().await?;
    let (first, second, third) = run.leader_and_followers()?;
    let apart = run.cluster.cut(second, third);
    writer.write().await?;
    run.cluster.kill(first)?;
    run.until_leader_is(second).await;
    // The third learns of its new leader.
    sleep(ms(100)).await;
    run.cluster.kill(second)?;
    run.until_leader_is(third).await;
    drop(apart);
    run.cluster.restart(first).await?;
    run.cluster.restart(second).await?;
    writer.write().await
}
