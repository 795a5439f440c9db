//! The table at the end, on standard output.

use std::time::Duration;

/// What a run measured.
pub(crate) struct Report {
    /// Files shipped, each pass counted.
    pub(crate) files: u64,
    /// Records shipped.
    pub(crate) records: u64,
    /// Bytes of their values.
    pub(crate) bytes: u64,
    /// From the first record sent to the last one read back.
    pub(crate) seconds: f64,
    /// Leader changes of the topic's partitions meanwhile.
    pub(crate) elections: i64,
    /// Produce requests that the killed broker had not answered; `None` if nobody was killed.
    pub(crate) in_flight_at_kill: Option<usize>,
    /// Longest time between two acknowledgements.
    pub(crate) longest_pause: Duration,
}

impl Report {
    /// Prints the table and the verdict; gives whether no file differs.
    #[allow(clippy::print_stdout, reason = "the table is what this program is for")]
    pub(crate) fn print(&self, differing: &[String]) -> bool {
        let rows = [
            ("files", self.files.to_string()),
            ("records", self.records.to_string()),
            ("MB", format!("{:.2}", self.bytes as f64 / 1e6)),
            ("seconds", format!("{:.2}", self.seconds)),
            ("records/s", format!("{:.0}", self.records as f64 / self.seconds)),
            ("elections seen", self.elections.to_string()),
            (
                "requests in flight at the kill",
                self.in_flight_at_kill.map_or_else(|| "no kill".to_owned(), |count| count.to_string()),
            ),
            ("longest pause of acknowledgements, ms", self.longest_pause.as_millis().to_string()),
        ];
        for (name, value) in rows {
            println!("{name:<38} {value:>12}");
        }
        if differing.is_empty() {
            println!("all {} files identical", self.files);
            return true;
        }
        for name in differing {
            println!("differs: {name}");
        }
        println!("{} of {} files identical", self.files - differing.len() as u64, self.files);
        false
    }
}
