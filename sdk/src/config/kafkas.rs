//! What Kafka's clients say of their settings, and what our pages say of ours: for the tests of builders.

use std::collections::BTreeMap;
use std::path::Path;

use super::Property;
use crate::error::ConfigError;

/// The settings of one of Kafka's clients with their defaults, as Kafka prints them (`tests/tools/ClientDefaults.java`).
pub(crate) type Defaults = BTreeMap<&'static str, Option<&'static str>>;

/// Left to the operating system, which adapts them to the connection: the only ones that do something else than Kafka's when they
/// are left out.
const OTHER_DEFAULT: &[&str] = &["send.buffer.bytes", "receive.buffer.bytes"];

/// The names of settings that have an effect on a client with these of its own.
pub(crate) fn honoured<B>(own: &[Property<B>]) -> Vec<&'static str> {
    let own = own.iter().map(|property| property.name);
    own.chain(super::client::PROPERTIES.iter().map(|property| property.name)).collect()
}

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

pub(crate) fn defaults(text: &'static str) -> Defaults {
    lines(text)
        .map(|line| match line.split_once(" =") {
            Some((name, value)) => (name, Some(value.trim())),
            None => (line, None),
        })
        .collect()
}

/// Those settings, among the ones that Kafka's own client has accepted or refused (`tests/tools/ClientVerdicts.java`), to which
/// ours says otherwise; and how many there are.
pub(crate) fn verdicts(
    text: &'static str,
    accepts: impl Fn(&[(&'static str, &'static str)]) -> bool,
) -> (usize, Vec<&'static str>) {
    let (mut compared, mut different) = (0, Vec::new());
    for line in lines(text) {
        let (verdict, settings) = line.split_once(' ').unwrap();
        let pairs: Vec<_> = settings.split(' ').map(|pair| pair.split_once('=').unwrap()).collect();
        compared += 1;
        if accepts(&pairs) != (verdict == "accepted") {
            different.push(settings);
        }
    }
    (compared, different)
}

/// A client, its settings, and the page that shows them.
pub(crate) struct Client {
    /// In `docs`.
    pub(crate) page: &'static str,
    pub(crate) kafkas: Defaults,
    /// The names that have an effect.
    pub(crate) honoured: Vec<&'static str>,
    /// Those of them that Kafka's client does not have.
    pub(crate) ours: &'static [&'static str],
    /// Reads one setting.
    pub(crate) read: fn(&str, &str) -> Result<(), ConfigError>,
    /// Where the methods are.
    pub(crate) sources: [&'static str; 2],
}

impl Client {
    fn honours(&self, name: &str) -> bool {
        self.honoured.contains(&name)
    }

    /// Who leaves a setting out gets what Kafka would do. `made` shows everything that comes of settings.
    pub(crate) fn check_defaults(&self, made: impl Fn(&[(&str, &str)]) -> String) {
        let ours = made(&[]);
        for name in self.honoured.iter().copied().filter(|name| !self.ours.contains(name)) {
            let Some(default) = self.kafkas.get(name) else { panic!("Kafka has no {name}") };
            let Some(default) = default else { continue };
            assert_eq!(made(&[(name, default)]) == ours, !OTHER_DEFAULT.contains(&name), "{name}={default}");
        }
        assert!(self.kafkas.len() > 100, "{}", self.kafkas.len());
    }

    /// No setting of a file for Kafka is dropped in silence.
    pub(crate) fn check_refusals(&self) {
        for (name, default) in self.kafkas.iter().filter(|(name, _)| !self.honours(name)) {
            for value in [default.unwrap_or("something"), "something else"] {
                let told = (self.read)(name, value);
                let as_before = told.is_ok() && Some(value) == *default;
                let refused =
                    matches!(&told, Err(ConfigError::NotSupportedYet { reason, .. }) if reason.len() > 10);
                assert!(as_before || refused, "{name}={value}: {told:?}");
            }
        }
    }

    /// The page says what the code does, and misses nothing.
    pub(crate) fn check_page(&self) {
        let rows = self.rows();
        let grouped = |name: &str| name.starts_with("ssl.") || name.starts_with("sasl.");
        let kafkas = self.kafkas.keys().copied().filter(|name| !grouped(name));
        for name in kafkas.chain(self.honoured.iter().copied()) {
            assert_eq!(rows.iter().filter(|row| row.property == name).count(), 1, "{name} has one row");
        }
        for row in rows {
            self.check_row(&row);
        }
    }

    fn check_row(&self, row: &Row) {
        let name = row.property.as_str();
        let declared = format!("pub fn {}", row.method);
        let mut sources = self.sources.iter();
        let has_method =
            sources.any(|source| source.split(&declared).skip(1).any(|rest| rest.starts_with(['(', '<'])));
        assert!(row.method == "–" || has_method, "{row:?}: no such method");
        if let Some(default) = self.kafkas.get(name) {
            let shown = match default {
                None => "none".to_owned(),
                Some("") => "empty".to_owned(),
                Some(default) => format!("`{default}`"),
            };
            assert_eq!(row.default, shown, "{row:?}");
            assert_eq!(row.notes.starts_with("differs: "), OTHER_DEFAULT.contains(&name), "{row:?}");
        }
        let refused = row.notes.strip_prefix("not supported yet: ");
        assert_eq!(refused.is_none(), self.honours(name) || name == "–", "{row:?}");
        if let Some(said) = refused {
            let reason = super::names::reason(&name.replace('*', "")).unwrap();
            let expected = match super::names::accepted(name) {
                Some(value) => {
                    assert!((self.read)(name, value).is_ok(), "{name}={value}");
                    format!("{reason}; `{value}` is accepted")
                }
                None => reason.to_owned(),
            };
            assert_eq!(said, expected, "{row:?}");
        }
        if self.honours(name) && !self.ours.contains(&name) {
            assert_eq!(row.method, name.replace('.', "_"), "{row:?}");
        }
    }

    fn rows(&self) -> Vec<Row> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(self.page);
        let page = std::fs::read_to_string(path).unwrap();
        let tables = page.split("| property | method | default | notes |").skip(1);
        let lines = tables.flat_map(|table| table.lines().skip(2).take_while(|line| line.starts_with('|')));
        let row = |line: &str| {
            let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            let mut next = || cells.next().unwrap();
            let bare = |cell: String| cell.trim_matches('`').to_owned();
            Row { property: bare(next()), method: bare(next()), default: next(), notes: next() }
        };
        lines.map(row).collect()
    }
}

/// A row of a table of settings.
#[derive(Debug)]
struct Row {
    property: String,
    method: String,
    default: String,
    notes: String,
}
