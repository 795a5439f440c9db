//! Disks that are full, for the operating system and not by a switch: what `broker-lite node` says, and what it has left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use klamm::{Client, Consumer, NewTopic, Producer, Record, StartOffset, TopicPartition};
use klamm_tests::nodes::{Nodes, Plan};
use klamm_tests::process::signal;
use klamm_tests::skipped;
use tokio::task::block_in_place;

/// Turns a hang into a failure.
const LIMIT: Duration = Duration::from_secs(60);
/// Of a record: some hundred of them fill a disk.
const VALUE_BYTES: usize = 20_000;
const CONFIGS: &[&str] = &[
    "broker.heartbeat.interval.ms=200",
    "broker.session.timeout.ms=1500",
    "replica.lag.time.max.ms=3000",
    "log.flush.interval.messages=1",
];

/// A way to run out of space, as a script: `"$@"` is the node, `$DISK` the directory of its data.
struct Shortage {
    /// Makes the space short.
    begin: &'static str,
    /// Runs a node within it.
    within: &'static str,
    /// Makes room.
    end: &'static str,
    /// What the operating system says.
    told: &'static str,
    /// Whether the script has to have its own mounts.
    mounts: bool,
}

/// Nothing can be written to any file.
const NO_SPACE: Shortage = Shortage {
    begin: r#"mount -t tmpfs -o size=3m none "$DISK" || exit 77"#,
    within: r#""$@""#,
    end: r#"mount -o remount,size=64m "$DISK" || exit 77"#,
    told: "No space left on device",
    mounts: true,
};

/// No file can become larger than 1 or 2 MB, depending on the shell; all others can.
const FILE_TOO_LARGE: Shortage = Shortage {
    begin: "",
    within: r#"(ulimit -f 2000; trap "" XFSZ; exec "$@")"#,
    end: "",
    told: "File too large",
    mounts: false,
};

/// A node that is started again and again: within the shortage, within it once more, and with room.
struct Starts {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Starts {
    fn of(nodes: &Nodes, id: i32, shortage: &Shortage) -> Self {
        let Shortage { begin, within, end, .. } = shortage;
        // Each start but the first waits for a line.
        let again = format!("read line\n{within} </dev/null\necho status=$?");
        let script =
            format!("{begin}\n{within} </dev/null\necho status=$?\n{again}\nread line\n{end}\nexec \"$@\"");
        let node = nodes.command(id, &[]).unwrap();
        let mut command = Command::new(if shortage.mounts { "unshare" } else { "sh" });
        if shortage.mounts {
            command.args(["-m", "sh"]);
        }
        let disk = nodes.data_dir(id);
        std::fs::create_dir_all(&disk).unwrap();
        command.args(["-c", &script, "sh"]).arg(node.get_program()).args(node.get_args()).env("DISK", disk);
        let log = std::fs::File::options().append(true).open(nodes.log_path(id)).unwrap();
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Lets the next start begin.
    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Waits for the next line on standard output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        block_in_place(|| self.stdout.read_line(&mut line)).unwrap();
        line
    }
}

impl Drop for Starts {
    fn drop(&mut self) {
        let group = format!("{}", self.child.id());
        let _ = Command::new("sh").args(["-c", "kill -s KILL -- \"-$0\" 2>/dev/null", &group]).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why the operating system lets nobody have mounts of their own here, if so.
fn no_mounts() -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=1m none "$0" && mount -o remount,size=2m "$0""#;
    let tried = Command::new("unshare").args(["-m", "sh", "-c", script]).arg(dir.path()).output();
    match tried {
        Err(error) => Some(format!("unshare: {error}")),
        Ok(tried) if tried.status.success() => None,
        Ok(tried) => Some(String::from_utf8_lossy(&tried.stderr).trim().to_owned()),
    }
}

fn client(nodes: &Nodes) -> Client {
    let builder = Client::builder().bootstrap_servers(nodes.bootstrap());
    builder.request_timeout_ms(Duration::from_secs(1)).build().unwrap()
}

fn value(number: usize) -> String {
    format!("{number:0VALUE_BYTES$}")
}

/// Writes records, one after the other, until one is not acknowledged; returns its number, and what is said of it.
async fn write_until_refused(nodes: &Nodes, from: usize) -> (usize, String) {
    let producer: Producer = Producer::builder()
        .client(&client(nodes))
        .linger_ms(Duration::ZERO)
        .delivery_timeout_ms(Duration::from_secs(3))
        .build()
        .unwrap();
    for number in from.. {
        let record = Record::new("t").partition(0).value(value(number));
        match producer.send(record).await.unwrap().await {
            Ok(written) => {
                assert_eq!(written.offset, Some(number as i64));
                assert!(number * VALUE_BYTES < 4 << 20, "more was acknowledged than there is room for");
            }
            Err(error) => return (number, error.to_string()),
        }
    }
    unreachable!()
}

/// Reads what is committed, from the first record on.
async fn read(nodes: &Nodes) -> Vec<String> {
    let consumer: Consumer = Consumer::builder().client(&client(nodes)).build().unwrap();
    let place = TopicPartition::new("t", 0);
    let end = consumer.end_offsets(std::slice::from_ref(&place)).await.unwrap()[&place];
    consumer.assign([(place, StartOffset::Beginning)]);
    let mut values = Vec::new();
    while (values.len() as i64) < end {
        let record =
            tokio::time::timeout(LIMIT, consumer.recv()).await.expect("silent before the end").unwrap();
        values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
    }
    values
}

/// Goal: no record is acknowledged that does not fit, the node says which file it was and ends, and with room again all that
/// was acknowledged is there.
async fn a_node_runs_out_of(shortage: &Shortage) {
    let nodes = block_in_place(|| Nodes::new(Plan::voters(1, CONFIGS))).unwrap();
    let mut starts = Starts::of(&nodes, 1, shortage);
    let line = starts.line();
    assert!(line.starts_with("bootstrap="), "{line:?}: {}", nodes.log(1));
    client(&nodes).admin().create_topics([NewTopic::new("t")]).await.unwrap().all().unwrap();
    let (acknowledged, error) = write_until_refused(&nodes, 0).await;
    assert!(acknowledged >= 20, "{acknowledged}: {error}");
    assert_eq!(starts.line(), "status=1\n", "{error}");

    let dir = nodes.data_dir(1).display().to_string();
    let log = nodes.log(1);
    let named = |line: &&str| line.contains(&dir) && line.contains(shortage.told);
    let causes: Vec<_> = log.lines().filter(named).collect();
    assert!(causes.len() == 1 && causes[0].contains("offline"), "{log}");
    assert!(log.lines().any(|line| line.starts_with("broker-lite: node 1 has stopped")), "{log}");

    // Nothing has changed: it either says so again, or serves what it has and takes nothing more.
    starts.go_on();
    let mut next = starts.line();
    if next.starts_with("bootstrap=") {
        let (more, error) = write_until_refused(&nodes, acknowledged).await;
        assert_eq!(more, acknowledged, "{error}");
        next = starts.line();
    }
    assert_eq!(next, "status=1\n", "{}", nodes.log(1));
    let log = nodes.log(1);
    assert_eq!(log.lines().filter(named).count(), 2, "{log}");

    starts.go_on();
    let line = starts.line();
    assert!(line.starts_with("bootstrap="), "{line:?}: {}", nodes.log(1));
    let found = read(&nodes).await;
    let written: Vec<_> = (0..acknowledged).map(value).collect();
    assert!(found == written, "{acknowledged} were acknowledged, {} are there", found.len());
    // And it goes on.
    let producer: Producer = Producer::builder().client(&client(&nodes)).build().unwrap();
    let record = Record::new("t").partition(0).value("more");
    let written = producer.send(record).await.unwrap().await.unwrap();
    assert_eq!(written.offset, Some(acknowledged as i64));
    signal(starts.child.id(), "TERM").unwrap();
    assert!(block_in_place(|| starts.child.wait()).unwrap().success(), "{}", nodes.log(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_is_full_acknowledges_nothing_more_and_ends() {
    if let Some(reason) = no_mounts() {
        return skipped("a full tmpfs", &reason);
    }
    a_node_runs_out_of(&NO_SPACE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_log_may_not_grow_acknowledges_nothing_more_and_ends() {
    a_node_runs_out_of(&FILE_TOO_LARGE).await;
}
