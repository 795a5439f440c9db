//! The program of a suite: its command line, and both clusters.

use std::io::Error;
use std::process::ExitCode;

use super::run::{Suite, list, run};
use super::side::Side;
use crate::process::ApacheKafka;
use crate::skipped;

/// Which cases are run.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    filters: Vec<String>,
    exact: bool,
    list: bool,
    /// Print every answer.
    pub(super) verbose: bool,
    ignored: bool,
}

impl Arguments {
    /// Reads a command line as libtest has it; `--answers` prints every answer.
    fn parse(words: impl IntoIterator<Item = String>) -> Self {
        let mut arguments = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => arguments.list = true,
                "--exact" => arguments.exact = true,
                "--answers" => arguments.verbose = true,
                "--ignored" => arguments.ignored = true,
                "--test-threads" | "--color" | "--format" | "--skip" | "-Z" => drop(words.next()),
                option if option.starts_with('-') => {}
                _ => arguments.filters.push(word),
            }
        }
        arguments
    }

    pub(super) fn choose(&self, case: &str) -> bool {
        let fits = |filter: &String| if self.exact { case == filter } else { case.contains(filter.as_str()) };
        !self.ignored && (self.filters.is_empty() || self.filters.iter().any(fits))
    }

    pub(super) fn everything(&self) -> bool {
        self.filters.is_empty() && !self.ignored
    }
}

/// Starts Apache Kafka with so many brokers and these settings, and beside it what `ours` starts; lets `meet` find both
/// where the suite asks them, and compares what the command line chooses.
pub fn run_main<T>(
    suite: Suite,
    brokers: usize,
    settings: &'static [&'static str],
    ours: impl FnOnce() -> Result<T, Error>,
    meet: impl FnOnce(&ApacheKafka, &T) -> Result<(Side, Side), Error>,
) -> ExitCode {
    let arguments = Arguments::parse(std::env::args().skip(1));
    if arguments.list {
        list(&suite, &arguments);
        return ExitCode::SUCCESS;
    }
    if let Some(reason) = ApacheKafka::missing() {
        skipped("Apache Kafka", &reason);
        return ExitCode::SUCCESS;
    }
    let kafka = std::thread::spawn(move || ApacheKafka::start_with(brokers, settings));
    let compared = ours().and_then(|ours| {
        let kafka = kafka.join().map_err(|_| Error::other("starting Apache Kafka panicked"))??;
        let (mut theirs, mut mine) = meet(&kafka, &ours)?;
        run(suite, &arguments, &mut theirs, &mut mine).map_err(Error::other)
    });
    match compared {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(101),
        Err(error) => {
            tell!(stderr, "fidelity: {error}");
            ExitCode::from(101)
        }
    }
}
