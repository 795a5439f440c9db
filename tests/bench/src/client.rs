//! The clients: how each is built and run.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use crate::Error;
use crate::broker::{Broker, cluster};
use crate::workload::Workload;

/// One row of the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) name: &'static str,
    how: How,
    /// `mode` of a program that has several.
    mode: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum How {
    /// A package of this workspace.
    Cargo(&'static str),
    /// `clients/NAME` in Go.
    Go(&'static str),
    /// `clients/java/Bench.java` with the jars of Apache Kafka.
    Java,
}

pub(crate) const ALL: [Client; 9] = [
    Client { name: "klamm", how: How::Cargo("bench-klamm"), mode: "" },
    Client { name: "franz-go", how: How::Go("franz-go"), mode: "" },
    Client { name: "confluent-kafka", how: How::Cargo("bench-confluent-kafka"), mode: "" },
    Client { name: "kacrab", how: How::Cargo("bench-kacrab"), mode: "" },
    Client { name: "krafka", how: How::Cargo("bench-krafka"), mode: "" },
    Client { name: "java", how: How::Java, mode: "" },
    Client { name: "rdkafka", how: How::Cargo("bench-rdkafka"), mode: "callback" },
    Client { name: "rdkafka-future", how: How::Cargo("bench-rdkafka"), mode: "future" },
    Client { name: "ceiling", how: How::Cargo("bench-ceiling"), mode: "" },
];

/// Those that read: klamm record by record, as a stream, and batches where they lie.
pub(crate) const READERS: [Client; 10] = [
    Client { name: "klamm", how: How::Cargo("bench-klamm"), mode: "consume" },
    Client { name: "klamm-stream", how: How::Cargo("bench-klamm"), mode: "consume-stream" },
    Client { name: "klamm-batches", how: How::Cargo("bench-klamm"), mode: "consume-batches" },
    Client { name: "franz-go", how: How::Go("franz-go"), mode: "consume" },
    Client { name: "confluent-kafka", how: How::Cargo("bench-confluent-kafka"), mode: "consume" },
    Client { name: "kacrab", how: How::Cargo("bench-kacrab"), mode: "consume" },
    Client { name: "krafka", how: How::Cargo("bench-krafka"), mode: "consume" },
    Client { name: "java", how: How::Java, mode: "consume" },
    Client { name: "rdkafka", how: How::Cargo("bench-rdkafka"), mode: "consume" },
    Client { name: "rdkafka-stream", how: How::Cargo("bench-rdkafka"), mode: "consume-stream" },
];

/// A client that hangs is a failure, not a benchmark.
const LIMIT: Duration = Duration::from_secs(60);

/// What a client reports.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Report {
    pub(crate) version: String,
    pub(crate) records: usize,
    pub(crate) failed: usize,
    pub(crate) failure: Option<String>,
    pub(crate) seconds: f64,
    pub(crate) cpu_user_s: f64,
    pub(crate) cpu_sys_s: f64,
    pub(crate) rss_peak_bytes: u64,
    /// Until the first record was handed out; of readers.
    pub(crate) first_s: Option<f64>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
}

/// A client that is built.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) name: &'static str,
    command: Vec<String>,
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Client {
    /// Builds it next to this program, or takes what was built there last.
    ///
    /// # Errors
    ///
    /// A compiler is missing, or refused; there is no program.
    pub(crate) fn build(&self, as_it_is: bool) -> Result<Built, Error> {
        let exe = std::env::current_exe()?;
        let dir = exe.parent().ok_or("this program is nowhere")?;
        let program = dir.join(match self.how {
            How::Cargo(package) => package.to_owned(),
            How::Go(name) => format!("bench-{name}"),
            How::Java => "bench-java".to_owned(),
        });
        let jars = if matches!(self.how, How::Java) { jars()? } else { String::new() };
        if !as_it_is {
            match self.how {
                How::Cargo(package) => cargo(package, dir)?,
                How::Go(name) => go(name, &program)?,
                How::Java => javac(&jars, &program)?,
            }
        }
        if !program.exists() {
            return Err(format!("there is no {}", program.display()).into());
        }
        let mut command = match self.how {
            How::Java => {
                vec!["java".into(), "-cp".into(), format!("{}:{jars}", program.display()), "Bench".into()]
            }
            _ => vec![program.display().to_string()],
        };
        command.push(format!("mode={}", self.mode));
        Ok(Built { name: self.name, command })
    }
}

fn done(command: &mut Command) -> Result<(), Error> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let first = text.lines().find(|line| line.contains("error")).or(text.lines().last()).unwrap_or_default();
    Err(format!("{}: {first}", command.get_program().display()).into())
}

/// One package at a time: each with the features that it asks for itself.
fn cargo(package: &str, dir: &Path) -> Result<(), Error> {
    let target = dir.parent().ok_or("no target directory")?;
    done(
        Command::new("cargo")
            .args(["build", "-q", "--release", "--locked", "-p", package, "--target-dir"])
            .arg(target)
            .current_dir(here()),
    )
}

fn go(name: &str, program: &Path) -> Result<(), Error> {
    // Where Go's own archives unpack to; not everybody has it in PATH.
    let usual = PathBuf::from("/usr/local/go/bin/go");
    let go = if usual.is_file() { usual } else { "go".into() };
    let source = here().join("clients").join(name);
    done(Command::new(go).args(["build", "-o"]).arg(program).arg(".").current_dir(source))
}

fn jars() -> Result<String, Error> {
    Ok(String::from_utf8(cluster().arg("fetch").output()?.stdout)?.trim().to_owned())
}

fn javac(jars: &str, classes: &Path) -> Result<(), Error> {
    let source = here().join("clients/java/Bench.java");
    done(Command::new("javac").args(["-nowarn", "-cp", jars, "-d"]).arg(classes).arg(source))
}

/// What a client is given besides the workload.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) broker: &'a Broker,
    /// Directory with the files of values, named by their size.
    pub(crate) values: &'a Path,
    pub(crate) partitions: i32,
    pub(crate) workers: usize,
    /// Instead of the client's own mode.
    pub(crate) mode: Option<&'static str>,
    /// To read in.
    pub(crate) group: &'a str,
}

/// Most deliveries that are not awaited yet.
const WINDOW: usize = 10_000;

impl Built {
    /// Runs it over a fresh topic.
    ///
    /// # Errors
    ///
    /// Why the run does not count.
    pub(crate) fn run(
        &self,
        workload: &Workload,
        setting: &Setting<'_>,
        topic: &str,
    ) -> Result<Report, Error> {
        let Setting { broker, partitions, .. } = setting;
        broker.create_topic(topic, *partitions)?;
        let outcome = self.run_over(workload, setting, topic);
        broker.delete_topic(topic)?;
        outcome
    }

    fn run_over(&self, workload: &Workload, setting: &Setting<'_>, topic: &str) -> Result<Report, Error> {
        let ends = || setting.broker.end_offsets(topic, setting.partitions);
        let mut process = Running::start(self, workload, setting, topic)?;
        process.line("ready")?;
        let before = ends()?;
        process.go()?;
        let report: Report = serde_json::from_str(&process.line("{")?)?;
        process.end()?;
        let grown = ends()? - before;
        if report.failed > 0 {
            let why = report.failure.unwrap_or_default();
            return Err(
                format!("{} deliveries failed ({why}); end offsets grew by {grown}", report.failed).into()
            );
        }
        if grown != workload.records as i64 {
            return Err(format!("end offsets grew by {grown}, not by {}", workload.records).into());
        }
        Ok(report)
    }
}

/// A client's process; killed when dropped before its end.
pub(crate) struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    stderr: File,
}

impl Running {
    pub(crate) fn start(
        built: &Built,
        workload: &Workload,
        setting: &Setting<'_>,
        topic: &str,
    ) -> Result<Self, Error> {
        let stderr = tempfile::tempfile()?;
        let values = setting.values.join(workload.size.to_string());
        let mut command = Command::new(&built.command[0]);
        command.args(&built.command[1..]).args([
            format!("bootstrap={}", setting.broker.bootstrap),
            format!("topic={topic}"),
            format!("partitions={}", setting.partitions),
            format!("records={}", workload.records),
            format!("values={}", values.display()),
            format!("size={}", workload.size),
            format!("batch={}", workload.batch),
            format!("linger={}", workload.linger),
            format!("compression={}", workload.compression),
            format!("rate={}", workload.rate),
            format!("window={WINDOW}"),
            format!("workers={}", setting.workers),
            format!("group={}", setting.group),
        ]);
        command.args(setting.mode.map(|mode| format!("mode={mode}")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr.try_clone()?);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, stderr })
    }

    /// The next line that starts so.
    pub(crate) fn line(&mut self, start: &str) -> Result<String, Error> {
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) if line.starts_with(start) => return Ok(line),
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(format!("silent for {LIMIT:?}: {}", self.said()).into());
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(format!("it ended: {}", self.said()).into());
                }
            }
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn go(&mut self) -> Result<(), Error> {
        let stdin = self.child.stdin.as_mut().ok_or("no input")?;
        Ok(stdin.write_all(b"go\n")?)
    }

    pub(crate) fn end(&mut self) -> Result<(), Error> {
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("{status}: {}", self.said()).into()) }
    }

    /// The last line on standard error.
    fn said(&mut self) -> String {
        let mut text = String::new();
        let _ = self.stderr.rewind();
        let _ = self.stderr.read_to_string(&mut text);
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given").to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
