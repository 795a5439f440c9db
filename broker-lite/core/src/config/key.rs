//! One setting of the table: its type, its default, and which values it takes.

use super::ConfigType;
use super::change::check_throttled_replicas;

/// Which values of its type a setting takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Valid {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// A range, and one more value with a meaning of its own.
    BetweenOr(i64, i64, i64),
    Fraction(f64, f64),
    Among(&'static [&'static str]),
    AmongIgnoringCase(&'static [&'static str]),
    /// A list, each of whose elements is one of these.
    Listed(&'static [&'static str]),
    NotEmpty,
}

/// A broker setting that a topic setting falls back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Via {
    pub(super) broker: &'static str,
    /// Units of the topic setting in one of the broker setting: 3,600,000 from hours to ms.
    pub(super) times: i64,
}

/// A setting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: ConfigType,
    pub(super) default: Option<&'static str>,
    pub(super) valid: Valid,
    pub(super) dynamic: bool,
}

/// A setting that can be changed while running.
pub(super) const fn dynamic(
    name: &'static str,
    kind: ConfigType,
    default: Option<&'static str>,
    valid: Valid,
) -> Key {
    Key { name, kind, default, valid, dynamic: true }
}

/// A setting that is read at start only.
pub(super) const fn fixed(
    name: &'static str,
    kind: ConfigType,
    default: Option<&'static str>,
    valid: Valid,
) -> Key {
    Key { name, kind, default, valid, dynamic: false }
}

impl Key {
    pub(super) fn sensitive(&self) -> bool {
        self.kind == ConfigType::Password
    }

    /// A value as errors may show it.
    pub(super) fn shown<'v>(&self, value: &'v str) -> &'v str {
        if self.sensitive() { "(hidden)" } else { value }
    }

    /// Checks a trimmed value; the error says what would be right.
    pub(super) fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            ConfigType::Boolean => check_boolean(value),
            ConfigType::Int => self.check_whole(value, i64::from(i32::MIN), i64::from(i32::MAX)),
            ConfigType::Short => self.check_whole(value, i64::from(i16::MIN), i64::from(i16::MAX)),
            ConfigType::Long => self.check_whole(value, i64::MIN, i64::MAX),
            ConfigType::Double => self.check_fraction(value),
            ConfigType::String | ConfigType::List | ConfigType::Class | ConfigType::Password => {
                self.check_words(value)
            }
        }
    }

    fn check_whole(&self, value: &str, min: i64, max: i64) -> Result<(), String> {
        let (low, high, or) = match self.valid {
            Valid::AtLeast(low) => (low, max, None),
            Valid::Between(low, high) => (low, high, None),
            Valid::BetweenOr(low, high, or) => (low, high, Some(or)),
            _ => (min, max, None),
        };
        match value.parse::<i64>() {
            Ok(number) if (low..=high).contains(&number) || or == Some(number) => Ok(()),
            _ => {
                let or = or.map(|or| format!(" or {or}")).unwrap_or_default();
                Err(format!("must be a whole number from {low} to {high}{or}"))
            }
        }
    }

    fn check_fraction(&self, value: &str) -> Result<(), String> {
        let (low, high) = match self.valid {
            Valid::Fraction(low, high) => (low, high),
            _ => (f64::MIN, f64::MAX),
        };
        match value.parse::<f64>() {
            Ok(number) if (low..=high).contains(&number) => Ok(()),
            _ => Err(format!("must be a number from {low} to {high}")),
        }
    }

    fn check_words(&self, value: &str) -> Result<(), String> {
        if self.name.ends_with(".replication.throttled.replicas") {
            return check_throttled_replicas(value);
        }
        let ok = match self.valid {
            Valid::Among(words) => words.contains(&value),
            Valid::AmongIgnoringCase(words) => words.iter().any(|word| word.eq_ignore_ascii_case(value)),
            Valid::Listed(words) => elements(value).all(|element| words.contains(&element)),
            Valid::NotEmpty => !value.is_empty(),
            _ => true,
        };
        if ok { Ok(()) } else { Err(self.words_wanted()) }
    }

    fn words_wanted(&self) -> String {
        match self.valid {
            Valid::Among(words) | Valid::AmongIgnoringCase(words) => {
                format!("must be one of {}", words.join(", "))
            }
            Valid::Listed(words) => format!("must be a list of {}", words.join(", ")),
            _ => "must not be empty".to_owned(),
        }
    }
}

/// Elements of a comma-separated list; an empty text has none.
pub(super) fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(move |_| !list.trim().is_empty())
}

fn check_boolean(value: &str) -> Result<(), String> {
    if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") {
        Ok(())
    } else {
        Err("must be true or false".to_owned())
    }
}
