//! Which differences are allowed.

use std::ops::RangeInclusive;

use super::compare::Difference;

/// A difference that is allowed for a reason. In every text `*` stands for anything.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// Name of the case, the test that shows it.
    pub case: &'static str,
    /// Versions in which it shows.
    pub versions: RangeInclusive<i16>,
    /// Path of the value.
    pub path: &'static str,
    /// Kafka's answer.
    pub kafka: &'static str,
    /// Ours.
    pub ours: &'static str,
    /// Why it may be.
    pub reason: &'static str,
}

impl Allowed {
    pub(super) fn covers(&self, case: &str, version: i16, difference: &Difference) -> bool {
        self.versions.contains(&version)
            && fits(self.case, case)
            && fits(self.path, &difference.path)
            && fits(self.kafka, &difference.kafka)
            && fits(self.ours, &difference.ours)
    }
}

/// Whether a text has a form in which `*` stands for anything.
pub(super) fn fits(form: &str, text: &str) -> bool {
    let mut parts = form.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_anything() {
        for (form, text) in
            [("a", "a"), ("*", ""), ("a*c", "abc"), ("*b*", "abc"), ("a*b*c", "a.b.c"), ("a*", "a")]
        {
            assert!(fits(form, text), "{form} {text}");
        }
        for (form, text) in [("a", "ab"), ("a*c", "ab"), ("", "a"), ("*b", "abc"), ("ab*bc", "abc")] {
            assert!(!fits(form, text), "{form} {text}");
        }
    }
}
