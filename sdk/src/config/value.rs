//! One property value as text, and what can be made of it.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::error::ConfigError;

/// A value with the name of its property, so that every error names both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value<'a> {
    name: &'a str,
    text: &'a str,
}

impl<'a> Value<'a> {
    pub(crate) fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text }
    }

    /// Kafka's name of the property.
    pub(crate) fn name(&self) -> &'a str {
        self.name
    }

    /// The value as it was given.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// The error for this value: it must be `expected`.
    pub(crate) fn must_be(&self, expected: impl Into<String>) -> ConfigError {
        ConfigError::invalid(self.name.to_owned(), self.text, expected.into())
    }

    /// A whole number within `range`.
    pub(crate) fn number<N>(&self, range: RangeInclusive<N>) -> Result<N, ConfigError>
    where
        N: FromStr + PartialOrd + Display,
    {
        self.text
            .parse()
            .ok()
            .filter(|n| range.contains(n))
            .ok_or_else(|| self.must_be(format!("a whole number from {} to {}", range.start(), range.end())))
    }

    /// Milliseconds, at least `min`.
    pub(crate) fn millis(&self, min: u64) -> Result<Duration, ConfigError> {
        let ms = self.text.parse::<i64>().ok().and_then(|ms| u64::try_from(ms).ok());
        ms.filter(|ms| *ms >= min)
            .map(Duration::from_millis)
            .ok_or_else(|| self.must_be(format!("a whole number of milliseconds, at least {min}")))
    }

    /// A number of bytes, at least `min`, at most what Kafka's 32 bit settings hold.
    pub(crate) fn bytes(&self, min: usize) -> Result<usize, ConfigError> {
        self.number(min..=i32::MAX as usize)
    }

    /// The size of a socket's buffer; -1 leaves it to the operating system.
    pub(crate) fn buffer_bytes(&self) -> Result<Option<usize>, ConfigError> {
        match self.text {
            "-1" => Ok(None),
            text => match text.parse::<i32>().ok().and_then(|bytes| usize::try_from(bytes).ok()) {
                Some(bytes) if bytes > 0 => Ok(Some(bytes)),
                _ => Err(self.must_be("a number of bytes, or -1 to leave it to the operating system")),
            },
        }
    }

    /// The parts between commas, without the spaces around them.
    pub(crate) fn list(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.text.split(',').map(str::trim).filter(|part| !part.is_empty())
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self) -> Result<bool, ConfigError> {
        self.one_of(&[("true", true), ("false", false)])
    }

    /// One of a few words, in any case.
    pub(crate) fn one_of<T: Clone>(&self, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(self.text));
        found.map(|(_, value)| value.clone()).ok_or_else(|| {
            let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.must_be(format!("one of {}", all.join(", ")))
        })
    }
}
