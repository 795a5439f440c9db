//! `broker-lite node`: a cluster of processes, each on a directory of its own. Children never outlive their handle.
//!
//! Voters must know each other's ports before any of them runs, so that the system cannot choose them at the start:
//! [`Nodes::new`] chooses free ones, holds all of them until it has enough, and lets go of them when a node starts. They
//! are below the range from which the system gives ports to outgoing connections, which would otherwise take the port
//! of a node while it is down.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Error, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{broker_lite_binary, signal};

/// Turns a node that hangs into a failure that says what it has told.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Last lines of a node's log that an error shows.
const LINES_SHOWN: usize = 12;

/// What a cluster of processes is started with.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Nodes that are voters, with ids from 1 on.
    pub voters: usize,
    /// Nodes that are brokers only, with the ids after those.
    pub brokers_only: usize,
    /// `--cluster-id` of every node.
    pub cluster_id: Option<String>,
    /// Settings of every node, each `KEY=VALUE`.
    pub configs: Vec<String>,
}

impl Plan {
    /// So many voters, and settings.
    pub fn voters(voters: usize, configs: &[&str]) -> Self {
        Self { voters, configs: configs.iter().map(|&text| text.to_owned()).collect(), ..Self::default() }
    }
}

/// A cluster of processes.
#[derive(Debug)]
pub struct Nodes {
    dir: TempDir,
    plan: Plan,
    ports: BTreeMap<i32, Ports>,
    running: Mutex<BTreeMap<i32, Running>>,
    /// Where somebody stands between: `ID@HOST:PORT` as the node `.0` shall have it of `.1`, and what a node advertises.
    detours: Option<Detours>,
}

/// Ports of one node.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// The broker's.
    pub broker: u16,
    /// The voter's.
    pub controller: u16,
}

/// Ports at which nodes are to be found instead of their own.
#[derive(Debug, Clone, Default)]
pub struct Detours {
    /// By node id: what it advertises to clients and brokers.
    pub broker: BTreeMap<i32, u16>,
    /// By node id: where other nodes find its voter.
    pub controller: BTreeMap<i32, u16>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// The rest of its standard output.
    stdout: Option<BufReader<std::process::ChildStdout>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nodes {
    /// A cluster of which no node runs yet.
    ///
    /// # Errors
    ///
    /// There are no free ports, or no directory can be made.
    pub fn new(plan: Plan) -> Result<Self, Error> {
        let ids = 1..=(plan.voters + plan.brokers_only) as i32;
        let free = free_ports(2 * ids.clone().count())?;
        let pairs = free.chunks(2).map(|pair| Ports { broker: pair[0], controller: pair[1] });
        let ports = ids.zip(pairs).collect();
        let dir = tempfile::Builder::new().prefix("klamm-nodes-").tempdir()?;
        Ok(Self { dir, plan, ports, running: Mutex::default(), detours: None })
    }

    /// A cluster of which every node is ready.
    ///
    /// # Errors
    ///
    /// A node did not start.
    pub fn start(plan: Plan) -> Result<Self, Error> {
        let nodes = Self::new(plan)?;
        nodes.start_all()?;
        Ok(nodes)
    }

    /// Lets nodes be found elsewhere from their next start on.
    pub fn set_detours(&mut self, detours: Detours) {
        self.detours = Some(detours);
    }

    /// Starts every node that does not run, all at once, and waits until they are ready.
    ///
    /// # Errors
    ///
    /// A node did not start.
    pub fn start_all(&self) -> Result<(), Error> {
        let waiting: Vec<_> = self.ids().filter(|id| !self.is_running(*id)).collect();
        waiting.iter().try_for_each(|id| self.launch(*id, &[]))?;
        waiting.iter().try_for_each(|id| self.until_ready(*id))
    }

    /// Starts a node and waits until it is ready.
    ///
    /// # Errors
    ///
    /// It did not start.
    pub fn start_node(&self, id: i32) -> Result<(), Error> {
        self.launch(id, &[])?;
        self.until_ready(id)
    }

    /// Starts a node, with more arguments than the plan has, and does not wait for anything.
    ///
    /// # Errors
    ///
    /// The program is not there.
    pub fn launch(&self, id: i32, more: &[&str]) -> Result<(), Error> {
        let mut command = self.command(id, more)?;
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().map(BufReader::new);
        self.running().insert(id, Running { child, stdout });
        Ok(())
    }

    /// What starts a node; its log goes to its file.
    ///
    /// # Errors
    ///
    /// The program is not there.
    pub fn command(&self, id: i32, more: &[&str]) -> Result<Command, Error> {
        let ports = self.ports(id);
        let log = File::options().create(true).append(true).open(self.log_path(id))?;
        let address = |port: u16| format!("127.0.0.1:{port}");
        let data_dir = self.data_dir(id).to_string_lossy().into_owned();
        let advertised = self.detours.as_ref().and_then(|detours| detours.broker.get(&id));
        let is_voter = id as usize <= self.plan.voters;
        let options = [
            ("--id", Some(id.to_string())),
            ("--voters", Some(self.voters(id))),
            ("--listen", Some(address(ports.broker))),
            ("--data-dir", Some(data_dir)),
            ("--controller-listen", is_voter.then(|| address(ports.controller))),
            ("--advertise", advertised.map(|port| address(*port))),
            ("--cluster-id", self.plan.cluster_id.clone()),
        ];
        let mut command = Command::new(broker_lite_binary()?);
        command.arg("node");
        for (name, value) in options {
            // What is asked for takes the place of what is usual.
            if let Some(value) = value.filter(|_| !more.contains(&name)) {
                command.args([name, &value]);
            }
        }
        // As each node of Apache Kafka has one (tests/kafka/kafka-cluster).
        command.args(["--config", &format!("broker.rack=RACK{id}")]);
        command.args(self.plan.configs.iter().flat_map(|setting| ["--config", setting])).args(more);
        command.stdin(Stdio::null()).stderr(log);
        Ok(command)
    }

    /// The voters, as a node is told them.
    pub fn voters(&self, id: i32) -> String {
        let detour =
            |voter: i32| self.detours.as_ref()?.controller.get(&voter).filter(|_| voter != id).copied();
        let voter = |voter: i32| {
            let port = detour(voter).unwrap_or(self.ports(voter).controller);
            format!("{voter}@127.0.0.1:{port}")
        };
        (1..=self.plan.voters as i32).map(voter).collect::<Vec<_>>().join(",")
    }

    /// Waits for a node's one line of output.
    ///
    /// # Errors
    ///
    /// It ends instead, or takes longer than a minute.
    pub fn until_ready(&self, id: i32) -> Result<(), Error> {
        let stdout = self.running().get_mut(&id).and_then(|running| running.stdout.take());
        let mut stdout = stdout.ok_or_else(|| Error::other(format!("node {id} does not run")))?;
        let (done, read) = mpsc::channel();
        // Reading cannot be given up: a thread of its own ends with the node at the latest.
        std::thread::spawn(move || {
            let mut line = String::new();
            let result = stdout.read_line(&mut line).map(|_| line);
            let _ = done.send((result, stdout));
        });
        let (line, stdout) = read.recv_timeout(START_LIMIT).map_err(|_| {
            Error::other(format!("node {id} is not ready after {START_LIMIT:?}:\n{}", self.last_lines(id)))
        })?;
        if let Some(running) = self.running().get_mut(&id) {
            running.stdout = Some(stdout);
        }
        let line = line?;
        match line.starts_with("bootstrap=") {
            true => Ok(()),
            false => Err(Error::other(format!("node {id} printed {line:?}:\n{}", self.last_lines(id)))),
        }
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn kill(&self, id: i32) -> Result<(), Error> {
        let running =
            self.running().remove(&id).ok_or_else(|| Error::other(format!("node {id} does not run")))?;
        drop(running);
        Ok(())
    }

    /// SIGTERM, and waits for the end; gives the status, and what was on standard output beside the one line.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn terminate(&self, id: i32) -> Result<(ExitStatus, String), Error> {
        signal(self.pid(id)?, "TERM")?;
        self.until_ended(id)
    }

    /// Waits until a node ends by itself; gives the status, and what was left on standard output.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn until_ended(&self, id: i32) -> Result<(ExitStatus, String), Error> {
        let running = self.running().remove(&id);
        let mut running = running.ok_or_else(|| Error::other(format!("node {id} does not run")))?;
        let mut rest = String::new();
        if let Some(stdout) = &mut running.stdout {
            stdout.read_to_string(&mut rest)?;
        }
        Ok((running.child.wait()?, rest))
    }

    /// Sends a signal, for example `STOP` or `CONT`.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn signal(&self, id: i32, name: &str) -> Result<(), Error> {
        signal(self.pid(id)?, name)
    }

    /// Its process id.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn pid(&self, id: i32) -> Result<u32, Error> {
        let running = self.running();
        let running = running.get(&id).ok_or_else(|| Error::other(format!("node {id} does not run")))?;
        Ok(running.child.id())
    }

    /// Whether it was started, and neither killed nor waited for.
    pub fn is_running(&self, id: i32) -> bool {
        self.running().contains_key(&id)
    }

    /// All ids.
    pub fn ids(&self) -> impl Iterator<Item = i32> {
        1..=(self.plan.voters + self.plan.brokers_only) as i32
    }

    /// Ports of a node.
    pub fn ports(&self, id: i32) -> Ports {
        self.ports[&id]
    }

    /// `HOST:PORT,...` of all brokers.
    pub fn bootstrap(&self) -> String {
        let port = |id: i32| match self.detours.as_ref().and_then(|detours| detours.broker.get(&id)) {
            Some(port) => *port,
            None => self.ports(id).broker,
        };
        self.ids().map(|id| format!("127.0.0.1:{}", port(id))).collect::<Vec<_>>().join(",")
    }

    /// `HOST:PORT,...` of all voters.
    pub fn controllers(&self) -> String {
        let voter = |id: i32| format!("127.0.0.1:{}", self.ports(id).controller);
        (1..=self.plan.voters as i32).map(voter).collect::<Vec<_>>().join(",")
    }

    /// The data directory of a node.
    pub fn data_dir(&self, id: i32) -> PathBuf {
        self.dir.path().join(format!("node-{id}"))
    }

    /// What a node has logged since it was first started.
    pub fn log(&self, id: i32) -> String {
        fs::read_to_string(self.log_path(id)).unwrap_or_default()
    }

    /// The value of a line of a node's `meta.properties`.
    pub fn meta(&self, id: i32, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.data_dir(id).join("meta.properties")).ok()?;
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    }

    /// Leaves the directories where they are, for whoever wants to know why something failed.
    pub fn keep(&mut self) -> &Path {
        self.dir.disable_cleanup(true);
        self.dir.path()
    }

    fn last_lines(&self, id: i32) -> String {
        let log = self.log(id);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }

    /// Where a node's log is.
    pub fn log_path(&self, id: i32) -> PathBuf {
        self.dir.path().join(format!("node-{id}.log"))
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<i32, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ports that are free now, and that the system gives to nobody who does not ask for them.
fn free_ports(count: usize) -> Result<Vec<u16>, Error> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32768);
    let from = 10_000.min(lowest / 2);
    let mut held = Vec::new();
    for _ in 0..10_000 {
        if held.len() == count {
            break;
        }
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", fastrand::u16(from..lowest))) {
            held.push(listener);
        }
    }
    if held.len() < count {
        return Err(Error::other(format!("no {count} free ports from {from} to {lowest}")));
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
