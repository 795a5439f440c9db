//! Kafka's own Java tools, run against broker-lite.

use std::io::Error;
use std::process::Command;

use crate::process::{ApacheKafka, BrokerLite, kafka_tool, run_with_input};
use crate::{skipped, workspace};

/// A cluster for the tools, if they can run here.
///
/// # Errors
///
/// broker-lite does not start.
pub fn cluster(arguments: &[&str]) -> Result<Option<BrokerLite>, Error> {
    match ApacheKafka::missing() {
        None => BrokerLite::up(arguments).map(Some),
        Some(reason) => {
            skipped("Kafka's Java tools", &reason);
            Ok(None)
        }
    }
}

/// What a tool prints, whether it succeeds or not.
///
/// # Errors
///
/// It could not be started.
pub fn tool(cluster: &BrokerLite, class: &str, arguments: &[&str]) -> Result<String, Error> {
    let all = [&["--bootstrap-server", cluster.bootstrap()], arguments].concat();
    let output = kafka_tool(class, &all)?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// As [`tool`], with lines on its standard input.
///
/// # Errors
///
/// It could not be started or fed.
pub fn tool_with_input(
    cluster: &BrokerLite,
    class: &str,
    arguments: &[&str],
    input: &str,
) -> Result<String, Error> {
    let mut command = Command::new(workspace().join("tests/kafka/kafka-cluster"));
    command.args(["tool", class, "--bootstrap-server", cluster.bootstrap()]).args(arguments);
    let output = run_with_input(&mut command, input.as_bytes().to_vec())?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Looks for lines in what a tool has printed.
///
/// # Panics
///
/// If one of them is not there.
#[track_caller]
#[allow(clippy::panic, reason = "tests report by panicking")]
pub fn expect(printed: &str, lines: &[&str]) {
    for line in lines {
        assert!(printed.contains(line), "no {line:?} in:\n{printed}");
    }
}
