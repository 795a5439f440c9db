//! Schedules against what clients are told, and what they make of it.

use broker_lite::{ApiKey, ErrorCode, Fault, Side, Stage};

use crate::frame::{Done, Run, Writer, ms};
use crate::logs::depose;

/// A record is committed, and the leader dies before it says so.
pub(crate) async fn the_leader_dies_before_its_answer(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    writer.begin().await?;
    let (leader, _, _) = run.leader_and_followers()?;
    let death = run.cluster.on(ApiKey::Produce).times(1).at(Stage::AfterCommit).then(Fault::Kill);
    let sent = writer.send().await?;
    death.hit().await;
    run.until_leader_is_not(leader).await?;
    writer.settle(sent).await;
    run.cluster.restart(leader).await?;
    Ok(())
}

/// A leader takes a record that it cannot replicate; its producer gives up, a consumer asks for it, and the leader dies.
pub(crate) async fn a_reader_of_a_leader_without_followers(run: &Run) -> Done {
    let (writer, rival) = (run.impatient_writer("writer")?, run.writer("rival")?);
    let reader = run.reader("reader")?;
    rival.write().await?;
    writer.begin().await?;
    reader.read_for(ms(500)).await?;
    let (leader, _, _) = run.leader_and_followers()?;
    let alone = run.cluster.cut(leader, Side::Brokers);
    let sent = writer.send().await?;
    reader.read_for(ms(400)).await?;
    writer.settle(sent).await;
    run.cluster.kill(leader)?;
    run.until_leader_is_not(leader).await?;
    drop(alone);
    rival.write().await?;
    run.cluster.restart(leader).await?;
    reader.read_for(ms(1_000)).await
}

/// A record is committed, and the connection breaks before it is said.
pub(crate) async fn an_answer_is_lost(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    writer.begin().await?;
    let lost = run.cluster.on(ApiKey::Produce).times(1).at(Stage::AfterCommit).then(Fault::DropConnection);
    writer.write().await?;
    lost.hit().await;
    writer.write().await
}

/// A producer without idempotence has two records to send, and the first is refused once.
pub(crate) async fn the_first_of_two_requests_is_refused(run: &Run) -> Done {
    send_two(run, &run.plain_writer("writer")?, ErrorCode::NOT_ENOUGH_REPLICAS).await
}

/// Two records are too large together.
pub(crate) async fn a_batch_of_two_is_too_large(run: &Run) -> Done {
    send_two(run, &run.lingering_writer("writer")?, ErrorCode::MESSAGE_TOO_LARGE).await
}

/// Sends two records, one after the other; the first request is answered by `refusal`.
async fn send_two(run: &Run, writer: &Writer<'_>, refusal: ErrorCode) -> Done {
    writer.begin().await?;
    let refused = run.cluster.on(ApiKey::Produce).times(1).then(Fault::Error(refusal));
    let (first, second) = (writer.send().await?, writer.send().await?);
    writer.settle(first).await;
    writer.settle(second).await;
    refused.hit().await;
    Ok(())
}

/// A leader that was deposed gives up what it could not replicate, and says so.
pub(crate) async fn a_deposed_leader_refuses(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    writer.begin().await?;
    let (_, sent, alone) = depose(run, &writer).await?;
    drop(alone);
    writer.settle(sent).await;
    Ok(())
}

/// A consumer's connection breaks while it waits for an answer.
pub(crate) async fn a_connection_breaks_under_a_fetch(run: &Run) -> Done {
    let writer = run.writer("writer")?;
    for _ in 0..3 {
        writer.write().await?;
    }
    let broken = run.cluster.on(ApiKey::Fetch).client("reader").times(1).then(Fault::DropConnection);
    let reader = run.reader("reader")?;
    reader.read_for(ms(1_000)).await?;
    broken.hit().await;
    Ok(())
}

/// A consumer that has read everything goes on at another leader.
pub(crate) async fn a_reader_follows_an_election(run: &Run) -> Done {
    let (writer, reader) = (run.writer("writer")?, run.reader("reader")?);
    writer.write().await?;
    writer.write().await?;
    reader.read_for(ms(500)).await?;
    let (leader, _, _) = run.leader_and_followers()?;
    run.cluster.shutdown_broker(leader).await?;
    writer.write().await?;
    reader.read_for(ms(1_000)).await?;
    run.cluster.restart(leader).await?;
    Ok(())
}
