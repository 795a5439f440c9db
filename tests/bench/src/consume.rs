//! Rounds of clients that read the same topics, each in a group of its own.
//!
//! ```text
//! fill the topics once ─▶ for each round, workload and client: client ──"ready"──▶ "go" ─▶ subscribe … ──report──▶ sockets, judged
//! ```
//!
//! A round counts only if every record was seen and no value had another size. How many bytes came is what the kernel says
//! of the client's sockets before they are closed; what is needed is the size of the batches as they lie in the log.

use std::process::Command;

use crate::broker::{Broker, Kind};
use crate::client::{self, Built, Report, Running, Setting};
use crate::run::{PARTITIONS, about, load_average, median, pick, write_values};
use crate::workload::Workload;
use crate::{Error, Peers, table};

const fn reading(name: &'static str, size: usize) -> Workload {
    let records = if size == 100 { 2_000_000 } else { 500_000 };
    Workload { name, records, size, batch: 16_384, linger: 5, compression: "none", rate: 0 }
}

/// The last one is read while it is written, one record at a time.
pub(crate) const ALL: [Workload; 3] = [
    reading("read-100B", 100),
    reading("read-1K", 1024),
    Workload { linger: 0, rate: 2000, records: 20_000, ..reading("end-to-end", 100) },
];

/// A run that counted, and how many bytes came for one that was needed.
type Counted = (Report, Option<f64>);

/// All that happened to one client in one workload.
struct Cell {
    client: &'static str,
    workload: Workload,
    reports: Vec<Counted>,
    refused: Vec<String>,
}

/// Runs it all; whether every round of klamm's counted.
pub(crate) fn peers(options: &Peers) -> Result<bool, Error> {
    let workloads = pick(&ALL, |workload| workload.name, &options.workloads)?;
    let workloads: Vec<_> =
        workloads.into_iter().map(|w| if options.short { w.short() } else { w }).collect();
    let mut refused = Vec::new();
    let mut clients = Vec::new();
    for client in pick(&client::READERS, |client| client.name, &options.clients)? {
        match client.build(options.no_build) {
            Ok(built) => clients.push(built),
            Err(error) => refused.push(format!("{}: {error}", client.name)),
        }
    }
    let writer = client::ALL[0].build(options.no_build)?;
    let values = tempfile::tempdir()?;
    write_values(values.path(), &ALL)?;
    let broker = Broker::start(options.broker)?;
    let about = about();
    let (values, workers) = (values.path(), options.workers);
    let setting =
        Setting { broker: &broker, values, partitions: PARTITIONS, workers, mode: None, group: "size" };
    let mut needed = Vec::new();
    for workload in &workloads {
        needed.push(if workload.rate > 0 { 0.0 } else { fill(&writer, workload, &setting)? });
    }
    let mut cells: Vec<_> = workloads
        .iter()
        .flat_map(|workload| clients.iter().map(move |client| (workload, client.name)))
        .map(|(workload, client)| Cell {
            client,
            workload: *workload,
            reports: Vec::new(),
            refused: Vec::new(),
        })
        .collect();
    // A JVM compiles what it runs often: whoever came first would be served by a slower broker.
    for workload in workloads.iter().filter(|_| options.broker == Kind::Kafka) {
        let group = format!("{}-warm-up", workload.name);
        let setting = Setting { group: &group, ..setting };
        if let Some(client) = clients.first() {
            let (report, _) = read(client, &writer, workload, &setting)?;
            eprintln!("{:14} {:15} not counted: {}", workload.name, "warm-up", line(&report));
        }
    }
    for round in 0..options.rounds {
        eprintln!("round {} of {}, load average {}", round + 1, options.rounds, load_average());
        for (cells, needed) in cells.chunks_mut(clients.len().max(1)).zip(&needed) {
            // Each begins once: nobody always comes after the same one.
            for i in (0..clients.len()).map(|i| (i + round) % clients.len()) {
                let cell = &mut cells[i];
                let group = format!("{}-{}-{round}", cell.workload.name, cell.client);
                let setting = Setting { group: &group, ..setting };
                let outcome = read(&clients[i], &writer, &cell.workload, &setting);
                match outcome {
                    Ok((report, received)) => {
                        let ratio = received.filter(|_| *needed > 0.0).map(|bytes| bytes / needed);
                        let said =
                            ratio.map_or(String::new(), |ratio| format!(", {ratio:.3} of the bytes needed"));
                        eprintln!("{:14} {:15} {}{said}", cell.workload.name, cell.client, line(&report));
                        cell.reports.push((report, ratio));
                    }
                    Err(error) => {
                        eprintln!("{:14} {:15} does not count: {error}", cell.workload.name, cell.client);
                        cell.refused.push(error.to_string());
                    }
                }
            }
        }
    }
    println!("{about}, {} rounds\n", options.rounds);
    for workload in &workloads {
        let cells: Vec<_> = cells.iter().filter(|cell| cell.workload.name == workload.name).collect();
        print!("{}", table(workload, &cells));
    }
    let ours = cells.iter().filter(|cell| cell.client.starts_with(table::REFERENCE));
    let whole = ours.flat_map(|cell| &cell.refused).next().is_none();
    let complaints = cells.iter().flat_map(|cell| {
        cell.refused.iter().map(|why| format!("{} in {}: {why}", cell.client, cell.workload.name))
    });
    for reason in refused.iter().cloned().chain(complaints) {
        eprintln!("does not count: {reason}");
    }
    Ok(whole && clients.iter().any(|client| client.name.starts_with(table::REFERENCE)))
}

/// Writes the records that are read; the bytes of their batches.
fn fill(writer: &Built, workload: &Workload, setting: &Setting<'_>) -> Result<f64, Error> {
    setting.broker.create_topic(workload.name, setting.partitions)?;
    let mut process = Running::start(writer, workload, setting, workload.name)?;
    process.line("ready")?;
    process.go()?;
    process.line("{")?;
    process.end()?;
    let size = Setting { mode: Some("consume-size"), ..*setting };
    // What the writer sent to warm up is there, too.
    let all = setting.broker.end_offsets(workload.name, setting.partitions)? as usize;
    let all = Workload { records: all, ..*workload };
    let mut process = Running::start(writer, &all, &size, workload.name)?;
    process.line("ready")?;
    process.go()?;
    let line = process.line("bytes=")?;
    process.line("{")?;
    process.go()?;
    process.end()?;
    Ok(line.trim_start_matches("bytes=").parse()?)
}

fn judge(report: &Report, workload: &Workload) -> Result<(), Error> {
    match (report.failed, report.records == workload.records) {
        (0, true) => Ok(()),
        (0, false) => Err(format!("{} of {} records", report.records, workload.records).into()),
        (failed, _) => {
            Err(format!("{failed} are wrong: {}", report.failure.as_deref().unwrap_or_default()).into())
        }
    }
}

/// One run of one client, and the bytes that came.
fn read(
    client: &Built,
    writer: &Built,
    workload: &Workload,
    setting: &Setting<'_>,
) -> Result<(Report, Option<f64>), Error> {
    match workload.rate {
        0 => one(client, workload, setting),
        _ => end_to_end(client, writer, workload, setting),
    }
}

fn one(client: &Built, workload: &Workload, setting: &Setting<'_>) -> Result<(Report, Option<f64>), Error> {
    let all = setting.broker.end_offsets(workload.name, setting.partitions)? as usize;
    let workload = &Workload { records: all, ..*workload };
    let mut process = Running::start(client, workload, setting, workload.name)?;
    process.line("ready")?;
    process.go()?;
    let report: Report = serde_json::from_str(&process.line("{")?)?;
    let received = received(process.id());
    process.go()?;
    process.end()?;
    judge(&report, workload)?;
    Ok((report, received))
}

/// Reads a fresh topic while another process writes it at an even rate.
fn end_to_end(
    client: &Built,
    writer: &Built,
    workload: &Workload,
    setting: &Setting<'_>,
) -> Result<(Report, Option<f64>), Error> {
    let topic = setting.group;
    setting.broker.create_topic(topic, setting.partitions)?;
    let mut reader = Running::start(client, workload, setting, topic)?;
    reader.line("ready")?;
    let writing = Setting { mode: Some("stamped"), ..*setting };
    let mut writer = Running::start(writer, workload, &writing, topic)?;
    writer.line("ready")?;
    reader.go()?;
    // The group is joined before the first record is written.
    std::thread::sleep(std::time::Duration::from_secs(2));
    writer.go()?;
    let report: Report = serde_json::from_str(&reader.line("{")?)?;
    reader.go()?;
    reader.end()?;
    writer.line("{")?;
    writer.end()?;
    setting.broker.delete_topic(topic)?;
    judge(&report, workload)?;
    Ok((report, None))
}

/// What the kernel says that the sockets of a process have received.
fn received(process: u32) -> Option<f64> {
    let output = Command::new("ss").args(["-tinpHO", "state", "established"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let of = format!("pid={process},");
    let bytes =
        |line: &str| line.split("bytes_received:").nth(1)?.split_whitespace().next()?.parse::<f64>().ok();
    let found: Vec<f64> = text.lines().filter(|line| line.contains(&of)).filter_map(bytes).collect();
    (!found.is_empty()).then(|| found.iter().sum())
}

fn cpu(report: &Report) -> f64 {
    (report.cpu_user_s + report.cpu_sys_s) / report.records as f64 * 1e6
}

/// From the first record on: who joins a group faster does not read faster.
fn speed(report: &Report) -> f64 {
    report.records as f64 / (report.seconds - report.first_s.unwrap_or(0.0))
}

fn line(report: &Report) -> String {
    let mut line = format!(
        "{:6.3} us CPU a record ({:.3} in the kernel), {:9.0} records/s, first after {:.0} ms, {:.0} MiB",
        cpu(report),
        report.cpu_sys_s / report.records as f64 * 1e6,
        speed(report),
        report.first_s.unwrap_or(0.0) * 1e3,
        report.rss_peak_bytes as f64 / f64::from(1 << 20),
    );
    if let (Some(p50), Some(p99)) = (report.p50_us, report.p99_us) {
        line += &format!(", p50 {p50:.0} us, p99 {p99:.0} us");
    }
    line
}

fn table(workload: &Workload, cells: &[&Cell]) -> String {
    let Workload { name, records, size, rate, .. } = workload;
    let pace = if *rate > 0 { format!("written at {rate} records/s") } else { "written before".to_owned() };
    let records = table::thousands(*records as f64);
    let mut text = format!("**{name}**: {records} records of {size} B by group subscribe, {pace}\n\n");
    text += "| client | CPU µs a record | of it kernel | records/s | peak RSS MiB | received / needed |";
    text += if *rate > 0 { " p50 µs | p99 µs |\n" } else { "\n" };
    text += if *rate > 0 { "|---|---|---|---|---|---|---|---|\n" } else { "|---|---|---|---|---|---|\n" };
    for cell in cells {
        let of =
            |value: &dyn Fn(&Counted) -> Option<f64>| median(cell.reports.iter().filter_map(value).collect());
        let Some((Report { version, .. }, _)) = cell.reports.first() else { continue };
        let number =
            |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        text += &format!(
            "| {} {version} | {} | {} | {} | {} | {} |",
            cell.client,
            number(of(&|(report, _)| Some(cpu(report))), 3),
            number(of(&|(report, _)| Some(report.cpu_sys_s / report.records as f64 * 1e6)), 3),
            of(&|(report, _)| Some(speed(report))).map_or("-".into(), table::thousands),
            number(of(&|(report, _)| Some(report.rss_peak_bytes as f64 / f64::from(1 << 20))), 0),
            number(of(&|(_, ratio)| *ratio), 3),
        );
        if *rate > 0 {
            for time in [of(&|(report, _)| report.p50_us), of(&|(report, _)| report.p99_us)] {
                text += &format!(" {} |", number(time, 0));
            }
        }
        text.push('\n');
    }
    text.push('\n');
    text
}
