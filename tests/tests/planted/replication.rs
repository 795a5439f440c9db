//! Schedules against who counts as in sync, and who leads.

use broker_lite::{ApiKey, Side, Stage};
use tokio::time::sleep;

use crate::frame::{Done, Run, TOPIC, ms};
use crate::logs::depose;

/// Long enough for an answer that needs no follower, and too short for anybody to count as lagging or dead.
const MOMENT: u64 = 200;

/// The leader takes a record that it cannot replicate, and dies.
pub(crate) async fn the_leader_dies_with_what_only_it_has(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    writer.begin().await?;
    let (leader, _, _) = run.leader_and_followers()?;
    let alone = run.cluster.cut(leader, Side::Brokers);
    let sent = writer.send().await?;
    sleep(ms(MOMENT)).await;
    run.cluster.kill(leader)?;
    run.until_leader_is_not(leader).await?;
    drop(alone);
    run.cluster.restart(leader).await?;
    writer.settle(sent).await;
    Ok(())
}

/// One follower gets a record, and dies with the leader; the other one does not, and leads.
pub(crate) async fn one_follower_lags_and_survives(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    writer.begin().await?;
    let (leader, fast, slow) = run.leader_and_followers()?;
    let apart = run.cluster.cut(leader, slow);
    let sent = writer.send().await?;
    sleep(ms(MOMENT)).await;
    run.leave_alone(slow, [leader, fast]).await?;
    drop(apart);
    writer.settle(sent).await;
    Ok(())
}

/// The leader proposes to go on without a follower that lags, the controller does not hear of it, and the leader dies
/// with the other follower.
pub(crate) async fn a_shrink_waits_and_the_lagging_one_survives(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    writer.begin().await?;
    let (leader, fast, slow) = run.leader_and_followers()?;
    let gate = run.cluster.on(ApiKey::AlterPartition).from(leader).hold();
    let apart = run.cluster.cut(leader, slow);
    let sent = writer.send().await?;
    gate.hit().await;
    // The next fetch of the other follower at the latest.
    sleep(ms(500)).await;
    run.leave_alone(slow, [leader, fast]).await?;
    drop((apart, gate));
    writer.settle(sent).await;
    Ok(())
}

/// The processes of these die, and start again when their sessions are long over and the network has healed. Nobody
/// has to lead meanwhile.
async fn die_for_a_while<C>(run: &Run, brokers: [i32; 2], cuts: C) -> Done {
    for broker in brokers {
        run.cluster.kill(broker)?;
    }
    sleep(ms(2_000)).await;
    drop(cuts);
    for broker in brokers {
        run.cluster.restart(broker).await?;
    }
    Ok(())
}

/// A follower lags, leaves the ISR, returns, and leaves it again; a proposal to take it in that was on its way all the
/// time arrives when it is gone. Then the others die.
pub(crate) async fn an_expansion_comes_late_and_the_lagging_one_survives(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    writer.begin().await?;
    let (leader, fast, slow) = run.leader_and_followers()?;
    let apart = run.cluster.cut(leader, slow);
    let sent = writer.send().await?;
    run.until_isr(&[leader, fast]).await;
    let gate = run.cluster.on(ApiKey::AlterPartition).from(leader).times(1).hold();
    drop(apart);
    gate.hit().await;
    // The leader takes its proposal for lost, and asks again.
    run.until_isr(&[leader, fast, slow]).await;
    writer.settle(sent).await;
    let apart = run.cluster.cut(leader, slow);
    let sent = writer.send().await?;
    run.until_isr(&[leader, fast]).await;
    writer.settle(sent).await;
    // The leader would notice, and propose to shrink once more.
    let unheard = run.cluster.cut(leader, Side::Controller);
    gate.release();
    sleep(ms(50)).await;
    die_for_a_while(run, [leader, fast], [apart, unheard]).await?;
    writer.write().await
}

/// A follower returns, and is not heard of by the controller any more. The leader's proposal to take it in is on its
/// way all the time; when it is asked again it is refused, and the follower is no longer waited for. It is back, with
/// less than the others, when the first request arrives. Then the others die.
pub(crate) async fn a_refused_expansion_comes_late_and_the_lagging_one_survives(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    writer.begin().await?;
    let (leader, fast, slow) = run.leader_and_followers()?;
    let apart = run.cluster.cut(leader, slow);
    let sent = writer.send().await?;
    run.until_isr(&[leader, fast]).await;
    let proposals = || run.cluster.on(ApiKey::AlterPartition).from(leader).times(1);
    let first = proposals().hold();
    drop(apart);
    first.hit().await;
    let again = proposals().hold();
    let unheard = run.cluster.cut(slow, Side::Controller);
    // Its session ends.
    sleep(ms(2_000)).await;
    drop(again);
    writer.settle(sent).await;
    let apart = run.cluster.cut(leader, slow);
    let sent = writer.send().await?;
    writer.settle(sent).await;
    drop(unheard);
    sleep(ms(2_000)).await;
    // The leader would notice, and propose to shrink.
    let unheard = run.cluster.cut(leader, Side::Controller);
    first.release();
    sleep(ms(50)).await;
    die_for_a_while(run, [leader, fast], [apart, unheard]).await?;
    writer.write().await
}

/// A deposed leader asks its successor where their logs part. The answer is held, until the successor is deposed, too,
/// and both others have committed more; then the third leader dies before anybody can fetch from it again.
pub(crate) async fn an_earlier_leader_answers_late(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    writer.begin().await?;
    let (first, _, _) = run.leader_and_followers()?;
    let (second, sent, alone) = depose(run, &writer).await?;
    let fetches = run.cluster.on(ApiKey::Fetch).broker(second).from(first).topic(TOPIC, 0);
    let gate = fetches.at(Stage::BeforeAnswer).hold();
    drop(alone);
    gate.hit().await;
    let deaf = run.cluster.cut(second, Side::Controller);
    let third = run.until_leader_is_not(second).await?;
    run.until_isr(&[first, third]).await;
    writer.settle(sent).await;
    writer.write().await?;
    let apart = run.cluster.cut(first, third);
    gate.release();
    sleep(ms(50)).await;
    run.cluster.kill(third)?;
    run.until_leader_is(first).await;
    drop((apart, deaf));
    run.cluster.restart(third).await?;
    writer.write().await
}

/// A replica out of sync is the only one that is left for a while.
pub(crate) async fn the_one_out_of_sync_survives(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    writer.begin().await?;
    let (leader, fast, slow) = run.leader_and_followers()?;
    let apart = run.cluster.cut(leader, slow);
    let sent = writer.send().await?;
    run.until_isr(&[leader, fast]).await;
    writer.settle(sent).await;
    die_for_a_while(run, [leader, fast], apart).await?;
    writer.write().await
}
