//! One of the two clusters: asks it, and remembers what only it knows.

use std::collections::BTreeMap;
use std::io::Error;
use std::time::{Duration, Instant};

use klamm_wire::ErrorCode;
use serde_json::{Value, json};

use super::case::{Ask, Case, Raw, Step};
use super::normal::{Names, normalize};
use super::tree::{Node, base64, hex};
use super::wire::{Connection, Outcome, frame, header};
use super::{api, decode};

/// The listener of a controller, as an id of its own: Kafka's brokers and controllers share theirs.
pub(super) const CONTROLLER: i32 = 0;
/// Longest wait for what a cluster does by itself. Only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);
/// What a topic that nobody has heard of is called by.
const NOBODYS_ID: [u8; 16] = [0x11; 16];
/// Letters of an id as text.
const ID_LETTERS: usize = 22;
const CLIENT_ID: &str = "fidelity";

/// What a cluster has given out.
#[derive(Debug, Default)]
pub(super) struct Known {
    cluster_id: String,
    ports: BTreeMap<i64, i32>,
    /// Every id that a topic ever had.
    topics: BTreeMap<[u8; 16], String>,
    /// Names of this run with the version in place, and without.
    versioned: BTreeMap<String, String>,
}

impl Known {
    pub(super) fn broker_at(&self, port: i64) -> Option<i32> {
        self.ports.get(&port).copied()
    }

    pub(super) fn topic_of(&self, id: &[u8; 16]) -> Option<&str> {
        self.topics.get(id).map(String::as_str)
    }

    /// A text with what is this cluster's own replaced, and versions within names.
    pub(super) fn in_general(&self, text: &str) -> String {
        let mut plain = text.to_owned();
        if !self.cluster_id.is_empty() {
            plain = plain.replace(&self.cluster_id, "<cluster id>");
        }
        for (port, id) in &self.ports {
            let who = if *id == CONTROLLER { "the controller".to_owned() } else { format!("broker {id}") };
            plain = plain.replace(&format!("127.0.0.1:{port}"), &format!("<address of {who}>"));
        }
        if plain.len() >= ID_LETTERS {
            for (id, topic) in &self.topics {
                plain = plain.replace(&base64(id), &format!("<id of {topic}>"));
            }
        }
        for (name, form) in self.versioned.iter().rev() {
            plain = plain.replace(name, form);
        }
        plain
    }
}

/// Answers of one run of a case.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Label and answer of each step that is compared.
    pub(super) answers: Vec<(String, Node)>,
    /// Why the case could not be carried through.
    pub(super) trouble: Option<String>,
}

impl Seen {
    /// What was told last.
    pub(super) fn told(&self) -> String {
        let last = self.answers.last().map(|(label, answer)| format!("{label} {answer}"));
        self.trouble.clone().or(last).unwrap_or_default()
    }
}

/// A cluster under question.
#[derive(Debug)]
pub struct Side {
    /// Whom requests go to that name nobody: a broker, or [`CONTROLLER`].
    at: i32,
    addresses: BTreeMap<i32, String>,
    connections: BTreeMap<i32, Connection>,
    known: Known,
    /// Newest id of each topic.
    ids: BTreeMap<String, [u8; 16]>,
    variables: BTreeMap<String, Value>,
    correlation_id: i32,
}

impl Side {
    /// Gets to know a cluster by its first address.
    ///
    /// # Errors
    ///
    /// It is not there, or does not speak the protocol.
    pub fn meet(bootstrap: &str) -> Result<Self, Error> {
        let first = bootstrap.split(',').next().unwrap_or(bootstrap).to_owned();
        let mut side = Self {
            at: 1,
            addresses: BTreeMap::from([(1, first)]),
            connections: BTreeMap::new(),
            known: Known::default(),
            ids: BTreeMap::new(),
            variables: BTreeMap::new(),
            correlation_id: 0,
        };
        let brokers = bootstrap.split(',').count();
        side.until("every broker is known", |side| {
            side.connections.clear();
            let answer = side.call(1, 3, 9, &json!({ "Topics": [] }))?;
            let found = answer.at("Brokers").map(Node::list).unwrap_or_default();
            if found.len() < brokers {
                return Err(format!("{} of {brokers} brokers", found.len()));
            }
            side.known.cluster_id =
                answer.at("ClusterId").and_then(Node::text).unwrap_or_default().to_owned();
            for broker in found {
                let int = |name| broker.at(name).and_then(Node::int).unwrap_or(-1);
                let (id, port) = (int("NodeId") as i32, int("Port"));
                let host = broker.at("Host").and_then(Node::text).unwrap_or_default();
                side.known.ports.insert(port, id);
                side.addresses.insert(id, format!("{host}:{port}"));
            }
            Ok(())
        })
        .map_err(Error::other)?;
        side.connections.clear();
        Ok(side)
    }

    /// As [`Self::meet`], for the listener of a controller at a port of this machine. Brokers are asked still where a case
    /// sets itself up.
    ///
    /// # Errors
    ///
    /// As [`Self::meet`].
    pub fn meet_controller(bootstrap: &str, port: u16) -> Result<Self, Error> {
        let mut side = Self::meet(bootstrap)?;
        side.at = CONTROLLER;
        side.addresses.insert(CONTROLLER, format!("127.0.0.1:{port}"));
        side.known.ports.insert(port.into(), CONTROLLER);
        Ok(side)
    }

    /// What ApiVersions says: lowest and highest version by key.
    ///
    /// # Errors
    ///
    /// No answer.
    pub fn advertised(&mut self) -> Result<BTreeMap<i16, (i16, i16)>, String> {
        let answer = self.call(self.at, 18, 0, &json!({}))?;
        let int = |entry: &Node, name| entry.at(name).and_then(Node::int).unwrap_or(-1) as i16;
        let entries = answer.at("ApiKeys").map(Node::list).unwrap_or_default();
        Ok(entries
            .iter()
            .map(|entry| (int(entry, "ApiKey"), (int(entry, "MinVersion"), int(entry, "MaxVersion"))))
            .collect())
    }

    /// Features that ApiVersions tells: supported range, and the finalized level where there is one.
    ///
    /// # Errors
    ///
    /// No answer.
    pub fn features(&mut self) -> Result<BTreeMap<String, String>, String> {
        let answer =
            self.call(self.at, 18, 4, &json!({ "ClientSoftwareName": "a", "ClientSoftwareVersion": "1" }))?;
        let int = |entry: &Node, name| entry.at(name).and_then(Node::int).unwrap_or(-1);
        let name = |entry: &Node| entry.at("Name").and_then(Node::text).unwrap_or_default().to_owned();
        let mut features = BTreeMap::new();
        for entry in answer.at("SupportedFeatures").map(Node::list).unwrap_or_default() {
            let range = format!("{}-{}", int(entry, "MinVersion"), int(entry, "MaxVersion"));
            features.insert(name(entry), range);
        }
        for entry in answer.at("FinalizedFeatures").map(Node::list).unwrap_or_default() {
            let level = format!(" at {}", int(entry, "MaxVersionLevel"));
            features.entry(name(entry)).or_default().push_str(&level);
        }
        Ok(features)
    }

    /// Runs a case in one version.
    pub(super) fn run(&mut self, case: &Case, version: i16) -> Seen {
        self.variables.clear();
        self.known.versioned.clear();
        let mut names = Names::default();
        let mut seen = Seen { answers: Vec::new(), trouble: None };
        for (index, step) in case.steps.iter().enumerate() {
            let (label, outcome) = match step {
                Step::Settled { topic, partitions } => {
                    (String::new(), self.settled(&with_version(topic, version), *partitions).map(|()| None))
                }
                Step::Gone(topic) => (String::new(), self.gone(&with_version(topic, version)).map(|()| None)),
                Step::Raw(raw) => (raw.label.clone(), Ok(self.raw(raw).map(Some).unwrap_or_else(Some))),
                Step::Ask(ask) => {
                    let answer = self.ask(ask, version);
                    (ask.label.clone(), answer.map(|answer| answer.filter(|_| ask.compared)))
                }
            };
            match outcome {
                Ok(None) => {}
                Ok(Some(mut tree)) => {
                    normalize(&mut tree, &self.known, &mut names, &case.normal);
                    let nth =
                        seen.answers.iter().filter(|(known, _)| known.split('#').next() == Some(&label));
                    let nth = nth.count();
                    let label = if nth == 0 { label } else { format!("{label}#{}", nth + 1) };
                    seen.answers.push((label, tree));
                }
                Err(error) => {
                    seen.trouble = Some(format!("step {} ({label}): {error}", index + 1));
                    break;
                }
            }
        }
        seen
    }

    fn ask(&mut self, ask: &Ask, version: i16) -> Result<Option<Node>, String> {
        let at = ask.version.unwrap_or(version);
        let body = self.resolved(&ask.body, version)?;
        let Some((bytes, tags)) = ask.damage.apply(ask.api, at, &body)? else { return Ok(None) };
        let damaged = ask.damage != super::damage::Damage::None;
        let request = |side: &mut Self| {
            let answer = side.exchange(ask.to, ask.api, at, &bytes, &tags, damaged)?;
            match first_error(&answer) {
                Some(code)
                    if ask.until_taken && (code.is_retriable() || code == ErrorCode::REQUEST_TIMED_OUT) =>
                {
                    Err(format!("{code:?}"))
                }
                _ => Ok(answer),
            }
        };
        let answer = if ask.until_taken {
            self.until("an answer without an error that passes", request)?
        } else {
            request(self)?
        };
        if !ask.compared
            && let Some(code) = first_error(&answer)
        {
            return Err(format!("{code:?}: {answer}"));
        }
        for (name, path) in &ask.keep {
            let value = match answer.at(path) {
                Some(Node::Int(value)) => Value::from(*value),
                Some(Node::Text(text)) => Value::from(text.clone()),
                Some(Node::Uuid(id)) => Value::from(hex(id)),
                _ => return Err(format!("nothing to keep at {path} in {answer}")),
            };
            self.variables.insert(name.clone(), value);
        }
        if damaged {
            self.still_serves(ask.to)?;
        }
        Ok(Some(answer))
    }

    /// Sends raw bytes and tells what comes back, as a list.
    fn raw(&mut self, raw: &Raw) -> Result<Node, Node> {
        let failed = |error: String| Node::Text(error);
        let address = self.addresses.get(&self.at).cloned().unwrap_or_default();
        let mut connection = Connection::open(&address).map_err(|error| failed(error.to_string()))?;
        connection.send(&raw.bytes);
        if raw.half_closed {
            connection.half_close();
        }
        let mut seen = Vec::new();
        for &(key, version) in &raw.answers {
            let told = match connection.receive() {
                Outcome::Closed => Node::Named("closed".into()),
                Outcome::Silent => Node::Named("silent".into()),
                Outcome::Answer(bytes) => answer_of(key, version, &bytes),
            };
            let over = matches!(told, Node::Named(_));
            seen.push(told);
            if over {
                break;
            }
        }
        if seen.iter().all(|told| !matches!(told, Node::Named(_))) && raw.half_closed {
            seen.push(match connection.receive() {
                Outcome::Closed => Node::Named("closed".into()),
                Outcome::Silent => Node::Named("silent".into()),
                Outcome::Answer(_) => Node::Named("one more answer".into()),
            });
        }
        self.still_serves(self.at).map_err(failed)?;
        Ok(Node::List(seen))
    }

    /// That a broker answers others as before.
    fn still_serves(&mut self, broker: i32) -> Result<(), String> {
        let address = self.addresses.get(&broker).cloned().unwrap_or_default();
        let mut connection = Connection::open(&address).map_err(|error| error.to_string())?;
        connection.send(&frame(&header(18, 0, 1, None, &[])));
        match connection.receive() {
            Outcome::Answer(_) => Ok(()),
            other => Err(format!("broker {broker} does not serve others any more: {other:?}")),
        }
    }

    /// One request that is answered.
    fn call(&mut self, broker: i32, key: i16, version: i16, body: &Value) -> Result<Node, String> {
        let bytes = super::encode::body(&api(key).request, version, body, None)?;
        match self.exchange(broker, key, version, &bytes, &[0], false)? {
            Node::Named(told) => Err(told),
            answer => Ok(answer),
        }
    }

    /// One request and what becomes of it; on a connection of its own if that will not survive.
    fn exchange(
        &mut self,
        broker: i32,
        key: i16,
        version: i16,
        body: &[u8],
        tags: &[u8],
        apart: bool,
    ) -> Result<Node, String> {
        self.correlation_id += 1;
        let id = self.correlation_id;
        let address = self.addresses.get(&broker).ok_or_else(|| format!("there is no broker {broker}"))?;
        let kept = self.connections.remove(&broker).filter(|_| !apart);
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(address).map_err(|error| format!("{address}: {error}"))?,
        };
        let request = [header(key, version, id, Some(CLIENT_ID), tags), body.to_vec()].concat();
        connection.send(&frame(&request));
        let bytes = match connection.receive() {
            Outcome::Closed => return Ok(Node::Named("closed".into())),
            Outcome::Silent => return Ok(Node::Named("silent".into())),
            Outcome::Answer(bytes) => bytes,
        };
        if !apart {
            self.connections.insert(broker, connection);
        }
        if bytes.get(..4) != Some(&id.to_be_bytes()) {
            return Ok(Node::Named("an answer to something else".into()));
        }
        let mut answer = answer_of(key, version, &bytes);
        if let Node::Struct(fields) = &mut answer {
            fields.remove(0);
        }
        self.learn(&mut answer);
        Ok(answer)
    }

    /// Remembers which ids belong to which topics.
    fn learn(&mut self, answer: &mut Node) {
        answer.visit("", &mut |_, node| {
            let Node::Struct(fields) = &*node else { return };
            let of = |wanted: &[&str]| fields.iter().find(|(name, _)| wanted.contains(&name.as_str()));
            let name = of(&["Name", "TopicName", "Topic"]).and_then(|(_, name)| name.text());
            if let (Some(name), Some((_, Node::Uuid(id)))) = (name, of(&["TopicId"]))
                && *id != [0; 16]
                && !name.is_empty()
            {
                self.known.topics.insert(*id, name.to_owned());
                self.ids.insert(name.to_owned(), *id);
            }
        });
    }

    /// A request's body with the version and the variables in place.
    fn resolved(&mut self, value: &Value, version: i16) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => {
                let form = text;
                let text = with_version(form, version);
                if text != *form && !text.starts_with('$') {
                    self.known.versioned.insert(text.clone(), form.clone());
                }
                match text.strip_prefix('$') {
                    None => Value::String(text),
                    Some(name) => match name.strip_prefix("id:") {
                        Some(topic) => {
                            // Most requests name an id for those versions only that have no names.
                            let id = self.ids.get(topic).copied().unwrap_or(NOBODYS_ID);
                            Value::String(hex(&id))
                        }
                        None => self
                            .variables
                            .get(name)
                            .cloned()
                            .ok_or_else(|| format!("nothing kept as {name}"))?,
                    },
                }
            }
            Value::Array(elements) => Value::Array(
                elements.iter().map(|element| self.resolved(element, version)).collect::<Result<_, _>>()?,
            ),
            Value::Object(fields) => {
                let fields =
                    fields.iter().map(|(name, value)| Ok((name.clone(), self.resolved(value, version)?)));
                Value::Object(fields.collect::<Result<_, String>>()?)
            }
            other => other.clone(),
        })
    }

    fn settled(&mut self, topic: &str, least: usize) -> Result<(), String> {
        let asked = json!({ "Topics": [{ "Name": topic }], "AllowAutoTopicCreation": false });
        for broker in self.brokers() {
            self.until(&format!("broker {broker} knows {topic}"), |side| {
                let answer = side.call(broker, 3, 12, &asked)?;
                let partitions = answer.at("Topics[0].Partitions").map(Node::list).unwrap_or_default();
                let length = |partition: &Node, name| partition.at(name).map_or(0, |list| list.list().len());
                let whole = |partition: &Node| {
                    partition.at("ErrorCode") == Some(&Node::Int(0))
                        && partition.at("LeaderId").and_then(Node::int) >= Some(0)
                        && length(partition, "IsrNodes") == length(partition, "ReplicaNodes")
                };
                if partitions.len() < least || !partitions.iter().all(whole) {
                    return Err(format!("not whole: {answer}"));
                }
                for partition in partitions {
                    side.leads(topic, partition)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// That the leader of a partition knows that it is.
    fn leads(&mut self, topic: &str, partition: &Node) -> Result<(), String> {
        let int = |name| partition.at(name).and_then(Node::int).unwrap_or(-1);
        let wanted = json!({ "PartitionIndex": int("PartitionIndex"), "Timestamp": -1 });
        let asked = json!({ "ReplicaId": -1, "Topics": [{ "Name": topic, "Partitions": [wanted] }] });
        let answer = self.call(int("LeaderId") as i32, 2, 4, &asked)?;
        match first_error(&answer) {
            None => Ok(()),
            Some(code) => Err(format!("{code:?}")),
        }
    }

    fn gone(&mut self, topic: &str) -> Result<(), String> {
        let asked = json!({ "Topics": [{ "Name": topic }], "AllowAutoTopicCreation": false });
        for broker in self.brokers() {
            self.until(&format!("broker {broker} has forgotten {topic}"), |side| {
                let answer = side.call(broker, 3, 12, &asked)?;
                let unknown = i64::from(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0);
                let code = answer.at("Topics[0].ErrorCode").and_then(Node::int);
                (code == Some(unknown)).then_some(()).ok_or_else(|| format!("{answer}"))
            })?;
        }
        Ok(())
    }

    fn brokers(&self) -> Vec<i32> {
        self.addresses.keys().copied().filter(|id| *id != CONTROLLER).collect()
    }

    fn until<T>(
        &mut self,
        what: &str,
        mut attempt: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<T, String> {
        let begun = Instant::now();
        loop {
            match attempt(self) {
                Ok(found) => return Ok(found),
                Err(error) if begun.elapsed() > PATIENCE => return Err(format!("not so: {what}: {error}")),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
}

/// An answer as a tree, the correlation id as its first field; or what is wrong with it.
fn answer_of(key: i16, version: i16, bytes: &[u8]) -> Node {
    // A version that ApiVersions does not know is answered in version 0 (KIP-511).
    let known = api(key).response.versions.has(version);
    let version = if key == 18 && !known { 0 } else { version };
    match decode::answer(api(key), version, bytes) {
        Ok((id, Node::Struct(mut fields))) => {
            fields.insert(0, ("correlation id".into(), Node::Int(id.into())));
            Node::Struct(fields)
        }
        Ok((_, other)) => other,
        Err(error) => Node::Named(format!("malformed answer: {error}")),
    }
}

/// The first error code anywhere in an answer.
fn first_error(answer: &Node) -> Option<ErrorCode> {
    match answer {
        Node::List(elements) => elements.iter().find_map(first_error),
        Node::Struct(fields) => fields.iter().find_map(|(name, value)| match value {
            Node::Int(code) if name.ends_with("ErrorCode") && *code != 0 => {
                i16::try_from(*code).ok().map(ErrorCode)
            }
            value => first_error(value),
        }),
        _ => None,
    }
}

fn with_version(text: &str, version: i16) -> String {
    text.replace("{v}", &version.to_string())
}
