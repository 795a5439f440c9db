//! What the simulation itself promises: the same seed, the same history; what fails says how to see it again.

use broker_lite::sim::{Shrink, explore, traced};
use klamm_tests::sim::{Scenario, Workload, run};

/// Goal: "not repeatable" must never be our own code's fault.
#[test]
fn every_workload_gives_the_same_history_for_the_same_seed_byte_for_byte() {
    for workload in Workload::ALL {
        for seed in 0..4 {
            let once = || traced(seed, |sim| run(sim, Scenario::draw(workload, seed)));
            let ((first, one), (second, two)) = (once(), once());
            let (first, second) = (first.unwrap().unwrap(), second.unwrap().unwrap());
            assert!(one.difference(&two).is_none(), "{workload:?} {seed}: {}", one.difference(&two).unwrap());
            assert_eq!((one.hash(), one.events()), (two.hash(), two.events()));
            assert_eq!(format!("{first:?}"), format!("{second:?}"));
            assert!(one.events() > 1_000, "{one}");
            assert!(first.operations >= 500, "{first:?}");
        }
    }
}

#[test]
fn chance_of_ones_own_is_told_by_the_first_event_that_differs() {
    // `RandomState` is what an iteration over a std HashMap goes by.
    let chance = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
    let history = |sim: broker_lite::sim::Sim| async move {
        sim.note("the same");
        sim.note(chance());
        sim.note("after it");
    };
    let (_, one) = traced(1, history);
    let (_, two) = traced(1, history);
    let difference = one.difference(&two).unwrap();
    assert_eq!((difference.event, difference.of), (1, 3));
    assert!(difference.to_string().starts_with("first difference at event 1 of 3: "), "{difference}");
}

/// Goal: a failing seed is told with its replay and with the least that still fails, as data that can be given back.
#[test]
fn a_failing_seed_is_shrunk_to_what_makes_it_fail() {
    let culprit = |scenario: &Scenario| scenario.schedule.faults.len() >= 2 && scenario.records >= 100;
    let explored = explore(
        [3, 4],
        |seed| Scenario::draw(Workload::Plain, seed),
        |sim, scenario| async move {
            sim.note(scenario.records);
            if culprit(&scenario) { Err(format!("{} records", scenario.records)) } else { Ok(()) }
        },
    );
    assert_eq!((explored.runs, explored.failures.len()), (2, 2));
    let failed = &explored.failures[0];
    assert_eq!(failed.seed, 3);
    let shrunk = &failed.shrunk;
    assert_eq!(
        (shrunk.schedule.faults.len(), shrunk.records, shrunk.producers, shrunk.consumers),
        (2, 150, 1, 0),
        "half of 150 records does not fail any more"
    );
    assert!(shrunk.smaller().iter().all(|smaller| !culprit(smaller)));
    let told = failed.to_string();
    assert!(told.contains("KLAMM_SIM_SEED=3 cargo test a_failing_seed_is_shrunk"), "{told}");
    assert!(told.contains("the same seed gave the same history again"), "{told}");
    let data = told.split("KLAMM_SIM_SCENARIO='").nth(1).and_then(|rest| rest.strip_suffix('\'')).unwrap();
    assert_eq!(&serde_json::from_str::<Scenario>(data).unwrap(), shrunk);
}

/// Goal: a panic in a task of broker or client, which a runtime keeps to itself, is no closed connection and a retry.
#[test]
fn a_task_that_panics_fails_the_run() {
    let (outcome, _) = traced(1, |sim| async move {
        let cluster = sim.cluster().start().await.unwrap();
        // The call of a rule runs on the broker's own task.
        let _rule = cluster.on_any().from(broker_lite::Side::Clients).call(|_| panic!("on purpose"));
        let client =
            klamm::Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle());
        // For the client it is a connection that closed.
        let ready = client.build().unwrap().ready(std::time::Duration::from_secs(1)).await;
        assert!(ready.is_err());
    });
    assert_eq!(outcome, Err("a task panicked: on purpose".to_owned()));
}

#[test]
fn the_program_runs_the_one_seed_that_is_named_and_refuses_nonsense() {
    let program = |seed: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sim"));
        command.args(["--workload", "plain", "--seeds", "50"]).env("KLAMM_SIM_SEED", seed);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (ok, said) = program("7");
    assert!(ok && said.starts_with("Plain: 1 histories (1 distinct), 0 violations"), "{said}");
    assert!(!program("seven").0);
}

/// What seeds have found, each as the scenario that was left of it.
#[test]
fn no_scenario_that_once_failed_fails_again() {
    #[derive(serde::Deserialize)]
    struct Found {
        what: String,
        seed: u64,
        scenario: Scenario,
    }
    let folder = klamm_tests::workspace().join("tests/tests/scenarios");
    let mut held = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let Found { what, seed, scenario } =
            serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        let (outcome, _) = traced(seed, |sim| run(sim, scenario));
        let failure = outcome.unwrap().err().map(|failure| failure.to_string());
        assert_eq!(failure, None, "{what}");
        held += 1;
    }
    assert!(held > 0);
}
