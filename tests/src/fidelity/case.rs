//! A case: what is asked, of whom, in which versions, and what may differ by nature.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::damage::Damage;
use super::normal::Normal;
use super::side::CONTROLLER;

/// Requests whose answers are compared.
#[derive(Debug, Clone)]
pub struct Case {
    /// `Api/what it is about`
    pub name: String,
    /// Api key: the case runs once for each version of it that broker-lite advertises.
    pub api: i16,
    /// Only these versions.
    pub versions: RangeInclusive<i16>,
    /// In this order.
    pub steps: Vec<Step>,
    /// What differs by nature, beyond what always does.
    pub(super) normal: Vec<Normal>,
}

/// Something that a case does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends a request.
    Ask(Ask),
    /// Waits until every broker knows a topic with a leader and all replicas in sync for every partition.
    Settled {
        /// Its name.
        topic: String,
        /// At least so many.
        partitions: usize,
    },
    /// Waits until no broker knows a topic.
    Gone(String),
    /// Sends bytes on a connection of their own and tells what comes back until it is closed or so many answers came.
    Raw(Raw),
}

/// One request.
#[derive(Debug, Clone)]
pub struct Ask {
    pub(super) label: String,
    pub(super) api: i16,
    /// That of the case if there is none.
    pub(super) version: Option<i16>,
    pub(super) to: i32,
    pub(super) body: Value,
    pub(super) damage: Damage,
    pub(super) compared: bool,
    /// Asked again until the answer has no error that a moment cures.
    pub(super) until_taken: bool,
    /// Name of a variable, path in the answer.
    pub(super) keep: Vec<(String, String)>,
}

/// Bytes.
#[derive(Debug, Clone)]
pub struct Raw {
    pub(super) label: String,
    pub(super) bytes: Vec<u8>,
    /// Nothing more is sent afterwards.
    pub(super) half_closed: bool,
    /// Api key and version of the answers that are hoped for.
    pub(super) answers: Vec<(i16, i16)>,
}

/// Begins a case about one API.
pub fn case(api: i16, about: &str) -> Case {
    let name = format!("{}/{about}", super::api(api).name);
    Case { name, api, versions: 0..=i16::MAX, steps: Vec::new(), normal: Vec::new() }
}

impl Case {
    /// Asks broker 1 in the version of the case. In strings `{v}` is the version, and a string that begins with `$` is
    /// a variable: `$id:TOPIC` an id, or what [`Self::keep`] has kept.
    #[must_use]
    pub fn ask(self, body: Value) -> Self {
        self.ask_of(1, body)
    }

    /// Asks a broker in the version of the case.
    #[must_use]
    pub fn ask_of(self, broker: i32, body: Value) -> Self {
        let (api, label) = (self.api, super::api(self.api).name.clone());
        self.step(Ask { label, api, to: broker, body, compared: true, ..Ask::blank() })
    }

    /// Asks the controller what would be asked of broker 1 and is compared.
    #[must_use]
    pub fn at_controller(mut self) -> Self {
        for step in &mut self.steps {
            if let Step::Ask(ask) = step
                && ask.compared
            {
                ask.to = CONTROLLER;
            }
        }
        self
    }

    /// Sets up as [`Self::first`] does, at the controller.
    #[must_use]
    pub fn first_at_controller(self, api: i16, version: i16, body: Value) -> Self {
        self.first(CONTROLLER, api, version, body)
    }

    /// Asks with something wrong in the bytes.
    #[must_use]
    pub(super) fn ask_damaged(self, label: &str, body: Value, damage: Damage) -> Self {
        let api = self.api;
        self.step(Ask { label: label.to_owned(), api, body, damage, compared: true, ..Ask::blank() })
    }

    /// Asks another API and compares its answer, too.
    #[must_use]
    pub fn then(self, broker: i32, api: i16, version: i16, body: Value) -> Self {
        let label = super::api(api).name.clone();
        let version = Some(version);
        self.step(Ask { label, api, version, to: broker, body, compared: true, ..Ask::blank() })
    }

    /// Sets up: asks another API, until the answer has no error that passes; its answer is not compared.
    #[must_use]
    pub fn first(self, broker: i32, api: i16, version: i16, body: Value) -> Self {
        let label = super::api(api).name.clone();
        let version = Some(version);
        self.step(Ask { label, api, version, to: broker, body, until_taken: true, ..Ask::blank() })
    }

    /// Creates a topic, replicas by partition, and waits until it is usable.
    #[must_use]
    pub fn topic(self, name: &str, replicas: &[&[i32]]) -> Self {
        self.topic_with(name, replicas, &[])
    }

    /// As [`Self::topic`], with settings.
    #[must_use]
    pub fn topic_with(self, name: &str, replicas: &[&[i32]], configs: &[(&str, &str)]) -> Self {
        let assigned = replicas
            .iter()
            .enumerate()
            .map(|(index, brokers)| serde_json::json!({ "PartitionIndex": index, "BrokerIds": brokers }));
        let configs = configs.iter().map(|(name, value)| serde_json::json!({ "Name": name, "Value": value }));
        let topic = serde_json::json!({
            "Name": name,
            "NumPartitions": -1,
            "ReplicationFactor": -1,
            "Assignments": assigned.collect::<Vec<_>>(),
            "Configs": configs.collect::<Vec<_>>(),
        });
        self.first(1, 19, 7, serde_json::json!({ "Topics": [topic] })).settled(name)
    }

    /// Waits until every broker knows a topic with all its leaders and replicas.
    #[must_use]
    pub fn settled(self, topic: &str) -> Self {
        self.grown_to(topic, 1)
    }

    /// As [`Self::settled`], and the topic has at least so many partitions.
    #[must_use]
    pub fn grown_to(mut self, topic: &str, partitions: usize) -> Self {
        self.steps.push(Step::Settled { topic: topic.to_owned(), partitions });
        self
    }

    /// Waits until no broker knows a topic.
    #[must_use]
    pub fn gone(mut self, topic: &str) -> Self {
        self.steps.push(Step::Gone(topic.to_owned()));
        self
    }

    /// Sends bytes on a connection of their own.
    #[must_use]
    pub(super) fn raw(mut self, raw: Raw) -> Self {
        self.steps.push(Step::Raw(raw));
        self
    }

    /// Keeps a value of the answer to the last request as variable `$name`.
    #[must_use]
    pub fn keep(mut self, name: &str, path: &str) -> Self {
        if let Some(Step::Ask(ask)) = self.steps.last_mut() {
            ask.keep.push((name.to_owned(), path.to_owned()));
        }
        self
    }

    /// Asks again until the answer to the last request has no error that a moment cures.
    #[must_use]
    pub fn until_taken(mut self) -> Self {
        if let Some(Step::Ask(ask)) = self.steps.last_mut() {
            ask.until_taken = true;
        }
        self
    }

    /// Only in these versions.
    #[must_use]
    pub fn versions(mut self, versions: RangeInclusive<i16>) -> Self {
        self.versions = versions;
        self
    }

    /// The order of an array is chance (a hash map's): sorted by a field before it is compared.
    #[must_use]
    pub fn unordered(mut self, array: &str, by: &str) -> Self {
        self.normal.push(Normal::Unordered { array: array.to_owned(), by: by.to_owned() });
        self
    }

    /// The value of a field, a text, an id or a number from 0 on, is chance or time: only that there is one is compared.
    #[must_use]
    pub fn vague(mut self, field: &str, what: &str) -> Self {
        self.normal.push(Normal::Vague { field: field.to_owned(), what: what.to_owned() });
        self
    }

    fn step(mut self, ask: Ask) -> Self {
        self.steps.push(Step::Ask(ask));
        self
    }
}

impl Ask {
    fn blank() -> Self {
        Self {
            label: String::new(),
            api: 0,
            version: None,
            to: 1,
            body: Value::Null,
            damage: Damage::None,
            compared: false,
            until_taken: false,
            keep: Vec::new(),
        }
    }
}
