//! Topics by regular expression.

use std::sync::Arc;

use regex_lite::Regex;

/// Topics whose whole name matches a regular expression.
#[derive(Debug, Clone)]
pub struct TopicPattern {
    text: Arc<str>,
    regex: Regex,
    hides_internal: bool,
}

/// A pattern that is no regular expression, or one of a kind that is not known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic pattern {pattern:?} is refused: {cause}")]
pub struct PatternError {
    /// The pattern as it was given.
    pub pattern: String,
    /// What is wrong with it.
    pub cause: String,
}

impl TopicPattern {
    /// With `hides_internal`, Kafka's own topics never match (`exclude.internal.topics`).
    ///
    /// # Errors
    ///
    /// [`PatternError`] with the cause.
    pub fn new(pattern: &str, hides_internal: bool) -> Result<Self, PatternError> {
        let refused =
            |error: regex_lite::Error| PatternError { pattern: pattern.to_owned(), cause: error.to_string() };
        // By itself first: `a)|(b` is none, but would become one in the middle of another.
        Regex::new(pattern).map_err(refused)?;
        // The line's end ends a comment of `(?x)`, the group its flags.
        let whole = Regex::new(&format!(r"\A(?:{pattern})\z"))
            .or_else(|_| Regex::new(&format!("\\A(?:{pattern}\n)\\z")));
        Ok(Self { text: pattern.into(), regex: whole.map_err(refused)?, hides_internal })
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the two were made by the same call of [`Self::new`].
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.text, &other.text)
    }

    /// Whether a topic matches.
    pub fn matches(&self, topic: &str, internal: bool) -> bool {
        !(internal && self.hides_internal) && self.regex.is_match(topic)
    }
}

impl PartialEq for TopicPattern {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, self.hides_internal) == (&other.text, other.hides_internal)
    }
}

impl Eq for TopicPattern {}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        TopicPattern::new(pattern, true).unwrap().matches(topic, false)
    }

    /// Goal: what Java's `Pattern.matcher(topic).matches()` says.
    #[test]
    fn the_whole_name_has_to_match() {
        assert!(matches("orders-.*", "orders-eu"));
        assert!(!matches("orders", "orders-eu"), "the beginning is not enough");
        assert!(!matches("eu", "orders-eu"), "nor is the end");
        assert!(matches("orders|bills", "bills"));
        assert!(!matches("orders|bills", "bills-eu"), "each alternative is the whole name");
        assert!(matches("(?i)ORDERS", "orders"));
        assert!(matches("(?x) orders # all of them", "orders"));
        assert!(!matches("(?m)^orders$", "orders\nbills"));
        assert!(matches(r"[a-z]+\.\d{2}", "eu.17"));
        assert!(!matches("", "orders"));
    }

    #[test]
    fn kafkas_own_topics_are_hidden_unless_asked_for() {
        assert!(!TopicPattern::new(".*", true).unwrap().matches("__consumer_offsets", true));
        assert!(TopicPattern::new(".*", false).unwrap().matches("__consumer_offsets", true));
        assert!(
            TopicPattern::new(".*", true).unwrap().matches("__consumer_offsets", false),
            "no name is magic"
        );
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_cause() {
        for (pattern, cause) in [
            ("orders-(", "open group"),
            ("a)|(b", "closing"),
            ("[z-a]", "range"),
            ("*", "repetition"),
            ("(?=a)", "look-around"),
        ] {
            let error = TopicPattern::new(pattern, true).unwrap_err();
            let told = error.to_string();
            assert!(told.contains(pattern) && error.cause.contains(cause), "{told}");
        }
    }
}
