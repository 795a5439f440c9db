//! Other people's programs, and ours as processes of their own. A child never outlives its handle.

use std::fs;
use std::io::{BufRead, BufReader, Error, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::workspace;

/// Looks a program up in `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Builds the binary `broker-lite` in this build's profile and gives its path.
///
/// # Errors
///
/// What cargo said.
pub fn broker_lite_binary() -> Result<PathBuf, Error> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(build_broker_lite).clone().map_err(Error::other)
}

fn build_broker_lite() -> Result<PathBuf, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "-q", "-p", "broker-lite", "--bin", "broker-lite", "--features", "cli"]);
    command.args(["--message-format", "json"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.current_dir(workspace()).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "broker-lite")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| "cargo built no binary broker-lite".to_owned())
}

/// `broker-lite up` as a process; killed and reaped when dropped.
#[derive(Debug)]
pub struct BrokerLite {
    child: Child,
    bootstrap: String,
}

impl BrokerLite {
    /// Starts `broker-lite up --port 0` with more arguments and waits for its one line of output.
    ///
    /// # Errors
    ///
    /// The process did not start, or ended without the line.
    pub fn up(arguments: &[&str]) -> Result<Self, Error> {
        Self::start_as(Command::new(broker_lite_binary()?), arguments)
    }

    /// As [`Self::up`], by a command that ends with the binary's path: one that measures it, say, of which
    /// [`Self::pid`] is then.
    ///
    /// # Errors
    ///
    /// As [`Self::up`].
    pub fn start_as(mut command: Command, arguments: &[&str]) -> Result<Self, Error> {
        let mut child = command
            .args(["up", "--port", "0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.as_mut() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match line.trim().strip_prefix("bootstrap=") {
            Some(bootstrap) => Ok(Self { bootstrap: bootstrap.to_owned(), child }),
            None => {
                let _ = child.kill();
                let status = child.wait()?;
                Err(Error::other(format!("broker-lite up printed {line:?} and ended with {status}")))
            }
        }
    }

    /// `HOST:PORT,HOST:PORT,...`
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM, waits for the end, and gives its status and whatever else it printed on standard output.
    ///
    /// # Errors
    ///
    /// The signal could not be sent.
    pub fn terminate(mut self) -> Result<(std::process::ExitStatus, String), Error> {
        signal(self.pid(), "TERM")?;
        let status = self.child.wait()?;
        let mut rest = String::new();
        if let Some(stdout) = self.child.stdout.as_mut() {
            stdout.read_to_string(&mut rest)?;
        }
        Ok((status, rest))
    }
}

impl Drop for BrokerLite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Apache Kafka from its jars, by `tests/kafka/kafka-cluster`; stopped when dropped.
#[derive(Debug)]
pub struct ApacheKafka {
    dir: tempfile::TempDir,
    bootstrap: String,
}

impl ApacheKafka {
    /// Why Apache Kafka cannot run here, if so.
    pub fn missing() -> Option<String> {
        ["java", "mvn"]
            .into_iter()
            .find(|name| find_program(name).is_none())
            .map(|name| format!("{name} is not installed"))
    }

    /// Starts `nodes` nodes on free ports.
    ///
    /// # Errors
    ///
    /// What the script printed.
    pub fn start(nodes: usize) -> Result<Self, Error> {
        Self::start_with(nodes, &[])
    }

    /// As [`Self::start`], with broker settings, each `KEY=VALUE`.
    ///
    /// # Errors
    ///
    /// What the script printed.
    pub fn start_with(nodes: usize, settings: &[&str]) -> Result<Self, Error> {
        let dir = tempfile::Builder::new().prefix("klamm-kafka-").tempdir()?;
        let nodes = nodes.to_string();
        let mut arguments = vec!["--nodes", &nodes];
        arguments.extend(settings.iter().flat_map(|setting| ["--config", setting]));
        let output = script("start", dir.path(), &arguments)?;
        let line = String::from_utf8_lossy(&output.stdout).into_owned();
        let bootstrap = line.lines().find_map(|line| line.strip_prefix("bootstrap=")).ok_or_else(|| {
            Error::other(format!("kafka-cluster: {}", String::from_utf8_lossy(&output.stderr)))
        })?;
        Ok(Self { bootstrap: bootstrap.to_owned(), dir })
    }

    /// `HOST:PORT,HOST:PORT,...`
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Where its nodes keep what they have.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Process ids of the running nodes.
    ///
    /// # Errors
    ///
    /// The script's directory is unreadable.
    pub fn pids(&self) -> Result<Vec<u32>, Error> {
        let mut pids = Vec::new();
        for entry in std::fs::read_dir(self.dir.path())? {
            if let Ok(text) = std::fs::read_to_string(entry?.path().join("pid")) {
                pids.extend(text.trim().parse::<u32>());
            }
        }
        Ok(pids)
    }

    /// Process id of one node.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn pid(&self, node: usize) -> Result<u32, Error> {
        let text = std::fs::read_to_string(self.dir.path().join(node.to_string()).join("pid"))?;
        text.trim().parse().map_err(Error::other)
    }

    /// `kill -9` one node.
    ///
    /// # Errors
    ///
    /// What the script printed.
    pub fn kill(&self, node: usize) -> Result<(), Error> {
        check(&script_with("kill", Some(node), self.dir.path(), &[])?)
    }

    /// Starts a killed node on its own data and waits until it listens.
    ///
    /// # Errors
    ///
    /// What the script printed.
    pub fn revive(&self, node: usize) -> Result<(), Error> {
        check(&script_with("revive", Some(node), self.dir.path(), &[])?)
    }
}

impl Drop for ApacheKafka {
    fn drop(&mut self) {
        let _ = script("stop", self.dir.path(), &[]);
    }
}

/// Sends a signal to a process, for example `TERM`, `STOP` or `CONT`. After `STOP` none of its threads runs any more.
///
/// # Errors
///
/// There is no such process.
pub fn signal(pid: u32, name: &str) -> Result<(), Error> {
    let script = format!("kill -{name} \"$0\"");
    if !Command::new("sh").args(["-c", &script, &pid.to_string()]).status()?.success() {
        return Err(Error::other(format!("kill -{name} {pid} failed")));
    }
    // One thread has to be scheduled before the others hear of it: on a busy machine they go on for a while.
    while name == "STOP" && !is_stopped(pid) {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether no thread of a process runs, as far as `/proc` tells.
fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // Behind the name, which may hold anything.
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        state.is_none_or(|state| "TtZXx".contains(state))
    })
}

/// Runs one of Kafka's own tools, for example `org.apache.kafka.tools.TopicCommand`.
///
/// # Errors
///
/// The script could not be started. The tool's own failure is in the output's status.
pub fn kafka_tool(class: &str, arguments: &[&str]) -> Result<Output, Error> {
    Command::new(workspace().join("tests/kafka/kafka-cluster"))
        .args(["tool", class])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
}

/// Runs a program with `input` on its standard input.
///
/// # Errors
///
/// It could not be started or fed.
pub fn run_with_input(command: &mut Command, input: Vec<u8>) -> Result<Output, Error> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdin = child.stdin.take();
    let feeder = std::thread::spawn(move || match stdin {
        Some(mut stdin) => stdin.write_all(&input),
        None => Ok(()),
    });
    let output = child.wait_with_output()?;
    feeder.join().map_err(|_| Error::other("the feeding thread panicked"))??;
    Ok(output)
}

fn script(verb: &str, dir: &Path, arguments: &[&str]) -> Result<Output, Error> {
    script_with(verb, None, dir, arguments)
}

fn script_with(verb: &str, node: Option<usize>, dir: &Path, arguments: &[&str]) -> Result<Output, Error> {
    let mut command = Command::new(workspace().join("tests/kafka/kafka-cluster"));
    command.arg(verb);
    if let Some(node) = node {
        command.arg(node.to_string());
    }
    command.arg("--dir").arg(dir).args(arguments).stdin(Stdio::null()).output()
}

fn check(output: &Output) -> Result<(), Error> {
    if output.status.success() {
        return Ok(());
    }
    Err(Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}
