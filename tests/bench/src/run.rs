//! Rounds of clients over workloads.

use std::path::Path;
use std::process::Command;
use std::{fs, thread};

use serde::Serialize;

use crate::broker::Broker;
use crate::client::{self, Built, Report, Setting};
use crate::workload::{self, Workload};
use crate::{Error, Peers, table};

/// Partitions of every topic.
pub(crate) const PARTITIONS: i32 = 6;

/// A row as `--json` prints it: medians of the rounds that count.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) client: &'static str,
    pub(crate) version: String,
    pub(crate) broker: &'static str,
    pub(crate) workload: &'static str,
    pub(crate) records: usize,
    pub(crate) seconds: f64,
    pub(crate) cpu_user_s: f64,
    pub(crate) cpu_sys_s: f64,
    pub(crate) rss_peak_bytes: u64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
}

/// All that happened to one client in one workload.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) client: &'static str,
    pub(crate) workload: Workload,
    reports: Vec<Report>,
    /// Why rounds did not count.
    pub(crate) refused: Vec<String>,
}

/// Runs it all; whether every round of klamm's counted. What peers cannot do is said, but is theirs.
pub(crate) fn peers(options: &Peers) -> Result<bool, Error> {
    let workloads = pick(&workload::ALL, |workload| workload.name, &options.workloads)?;
    let workloads: Vec<_> = workloads
        .into_iter()
        .map(|workload| if options.short { workload.short() } else { workload })
        .collect();
    let (mut clients, mut missing) = (Vec::new(), Vec::new());
    for client in pick(&client::ALL, |client| client.name, &options.clients)? {
        if !options.no_build {
            eprintln!("building {}", client.name);
        }
        match client.build(options.no_build) {
            Ok(built) => clients.push(built),
            Err(error) => missing.push(format!("{}: {error}", client.name)),
        }
    }
    let values = tempfile::tempdir()?;
    let broker = Broker::start(options.broker)?;
    write_values(values.path(), &workload::ALL)?;
    let (values, workers) = (values.path(), options.workers);
    let setting = Setting { broker: &broker, values, partitions: PARTITIONS, workers, mode: None, group: "" };
    warm_up(&clients, &setting);

    let mut cells: Vec<Cell> = Vec::new();
    for workload in &workloads {
        cells.extend(clients.iter().map(|client| Cell::new(client, workload)));
    }
    let about = about();
    for round in 0..options.rounds {
        eprintln!("round {} of {}, load average {}", round + 1, options.rounds, load_average());
        for cells in cells.chunks_mut(clients.len().max(1)) {
            // Each begins once: nobody always comes after the same one.
            let order = (0..cells.len()).map(|i| (i + round) % clients.len());
            for i in order {
                cells[i].round(&clients[i], &setting, round);
            }
        }
    }
    drop(broker);

    let rows: Vec<_> = cells.iter().filter_map(|cell| cell.row(options.broker.name())).collect();
    if options.json {
        for row in &rows {
            println!("{}", serde_json::to_string(row)?);
        }
    } else {
        println!("{about}, {} rounds\n", options.rounds);
        print!("{}", table::all(&workloads, &rows));
    }
    for reason in missing.iter().cloned().chain(cells.iter().flat_map(Cell::complaints)) {
        eprintln!("does not count: {reason}");
    }
    let ours = |name: &str| name == table::REFERENCE;
    let built = clients.iter().any(|client| ours(client.name)) || !wants(options, table::REFERENCE);
    Ok(built && cells.iter().filter(|cell| ours(cell.client)).all(|cell| cell.refused.is_empty()))
}

fn wants(options: &Peers, client: &str) -> bool {
    options.clients.is_empty() || options.clients.iter().any(|wanted| wanted == client)
}

pub(crate) fn pick<T: Copy>(
    all: &[T],
    name: impl Fn(&T) -> &'static str,
    wanted: &[String],
) -> Result<Vec<T>, Error> {
    if let Some(unknown) = wanted.iter().find(|wanted| all.iter().all(|one| name(one) != wanted.as_str())) {
        let known: Vec<_> = all.iter().map(name).collect();
        return Err(format!("there is no {unknown}; there are {}", known.join(", ")).into());
    }
    Ok(all
        .iter()
        .filter(|one| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name(one)))
        .copied()
        .collect())
}

/// Writes the files of values that the workloads need.
pub(crate) fn write_values(dir: &Path, workloads: &[Workload]) -> Result<(), Error> {
    workloads
        .iter()
        .try_for_each(|workload| workload::write_values(&dir.join(workload.size.to_string()), workload.size))
}

/// The broker's own code gets hot first, by whoever is there; what comes of it does not matter.
fn warm_up(clients: &[Built], setting: &Setting<'_>) {
    for workload in [workload::ALL[0], workload::ALL[6]] {
        if let Some(client) = clients.iter().find(|client| client.name == "ceiling").or(clients.first()) {
            let _ = client.run(&workload, setting, &format!("warm-up-{}", workload.name));
        }
    }
}

/// When, where, how busy.
pub(crate) fn about() -> String {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or_else(|_| "?".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let date = run("date", &["-u", "+%Y-%m-%d %H:%M UTC"]);
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("?", |(_, m)| m);
    format!("{date}, {cores} cores of {model}, {}, load average {}", run("uname", &["-sr"]), load_average())
}

pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}

impl Cell {
    fn new(client: &Built, workload: &Workload) -> Self {
        Self { client: client.name, workload: *workload, reports: Vec::new(), refused: Vec::new() }
    }

    fn round(&mut self, client: &Built, setting: &Setting<'_>, round: usize) {
        let topic = format!("{}-{}-{round}", self.workload.name, self.client);
        match client.run(&self.workload, setting, &topic) {
            Ok(report) => {
                let line = table::line(&report);
                eprintln!("{:14} {:14} {line}", self.workload.name, self.client);
                self.reports.push(report);
            }
            Err(error) => {
                eprintln!("{:14} {:14} does not count: {error}", self.workload.name, self.client);
                self.refused.push(error.to_string());
            }
        }
    }

    fn complaints(&self) -> impl Iterator<Item = String> + '_ {
        self.refused.iter().map(|why| format!("{} in {}: {why}", self.client, self.workload.name))
    }

    /// `None` if no round counts.
    fn row(&self, broker: &'static str) -> Option<Row> {
        let of = |value: fn(&Report) -> Option<f64>| median(self.reports.iter().filter_map(value).collect());
        Some(Row {
            client: self.client,
            version: self.reports.first()?.version.clone(),
            broker,
            workload: self.workload.name,
            records: self.workload.records,
            seconds: of(|report| Some(report.seconds))?,
            cpu_user_s: of(|report| Some(report.cpu_user_s))?,
            cpu_sys_s: of(|report| Some(report.cpu_sys_s))?,
            rss_peak_bytes: of(|report| Some(report.rss_peak_bytes as f64))? as u64,
            p50_us: of(|report| report.p50_us),
            p99_us: of(|report| report.p99_us),
            p999_us: of(|report| report.p999_us),
        })
    }
}

/// The middle one; of an even number, the mean of the two.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len().checked_sub(1)? / 2;
    Some((values[middle] + values[values.len() / 2]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
