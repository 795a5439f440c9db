use super::*;

async fn history(sim: Sim) -> Result<u64, Box<dyn std::error::Error>> {
    let cluster = sim.cluster().brokers(3).topic("t", Some(2), Some(3)).start().await?;
    let leader = cluster.leader_of("t", 0).ok_or("no leader")?;
    cluster.kill(leader)?;
    cluster.until_leader("t", 0, |found| found.is_some_and(|found| found != leader)).await;
    cluster.restart(leader).await?;
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    sim.note(format_args!("{:?}", cluster.leader_counts()));
    Ok(sim.trace().hash())
}

#[test]
fn the_same_seed_gives_the_same_history_and_another_seed_another_one() {
    let hashes: Vec<_> = (0..8).map(|seed| run(seed, history).unwrap()).collect();
    let again: Vec<_> = (0..8).map(|seed| run(seed, history).unwrap()).collect();
    assert_eq!(hashes, again);
    let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!(distinct.len(), 8);
}
