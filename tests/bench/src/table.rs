//! Tables for people, in Markdown.

use std::fmt::Write as _;

use crate::client::Report;
use crate::run::Row;
use crate::workload::Workload;

/// Whose ratio is 1.
pub(crate) const REFERENCE: &str = "klamm";

/// One run in short.
pub(crate) fn line(report: &Report) -> String {
    let cpu = (report.cpu_user_s + report.cpu_sys_s) / report.records as f64 * 1e6;
    let mut line =
        format!("{cpu:6.3} us CPU a record, {:9.0} records/s", report.records as f64 / report.seconds);
    if let (Some(p50), Some(p99), Some(p999)) = (report.p50_us, report.p99_us, report.p999_us) {
        let _ = write!(line, ", p50 {p50:.0} us, p99 {p99:.0} us, p99.9 {p999:.0} us");
    }
    line
}

/// A table for each workload.
pub(crate) fn all(workloads: &[Workload], rows: &[Row]) -> String {
    workloads.iter().map(|workload| one(workload, rows)).collect()
}

fn one(workload: &Workload, rows: &[Row]) -> String {
    let rows: Vec<_> = rows.iter().filter(|row| row.workload == workload.name).collect();
    let reference = rows.iter().find(|row| row.client == REFERENCE);
    let ratio = |value: fn(&Row) -> f64, row: &Row| match reference {
        Some(reference) => format!(" (×{:.2})", value(row) / value(reference)),
        None => String::new(),
    };
    let paced = workload.rate > 0;
    let mut text = describe(workload);
    text.push_str("| client | CPU µs a record | records/s | peak RSS MiB |");
    text.push_str(if paced { " p50 µs | p99 µs | p99.9 µs |\n" } else { "\n" });
    text.push_str(if paced { "|---|---|---|---|---|---|---|\n" } else { "|---|---|---|---|\n" });
    for row in &rows {
        let _ = write!(
            text,
            "| {} {} | {:.3}{} | {}{} | {:.0}{} |",
            row.client,
            row.version,
            cpu(row),
            ratio(cpu, row),
            thousands(speed(row)),
            ratio(speed, row),
            memory(row),
            ratio(memory, row),
        );
        for time in [row.p50_us, row.p99_us, row.p999_us].into_iter().flatten() {
            let _ = write!(text, " {time:.0} |");
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

fn describe(workload: &Workload) -> String {
    let Workload { name, records, size, batch, linger, compression, rate } = workload;
    let pace = if *rate > 0 { format!("{rate} records/s") } else { "as fast as it goes".to_owned() };
    format!(
        "**{name}**: {} records of {size} B, batch.size {batch}, linger.ms {linger}, compression {compression}, {pace}\n\n",
        thousands(*records as f64)
    )
}

fn cpu(row: &Row) -> f64 {
    (row.cpu_user_s + row.cpu_sys_s) / row.records as f64 * 1e6
}

fn speed(row: &Row) -> f64 {
    row.records as f64 / row.seconds
}

fn memory(row: &Row) -> f64 {
    row.rss_peak_bytes as f64 / f64::from(1 << 20)
}

pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn digits_are_grouped_from_the_right() {
        assert_eq!(thousands(999.0), "999");
        assert_eq!(thousands(1_000.0), "1,000");
        assert_eq!(thousands(12_345_678.4), "12,345,678");
    }
}
