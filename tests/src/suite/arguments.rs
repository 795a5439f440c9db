//! The command line, as far as it is libtest's.

/// What is to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    filters: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    backends: Vec<String>,
    /// Only name the cells.
    pub list: bool,
    /// Only what is marked as ignored, which is nothing.
    ignored: bool,
}

/// Options of libtest that take a value and mean nothing here.
const WITHOUT_MEANING: [&str; 6] =
    ["--test-threads", "--color", "--format", "--logfile", "--shuffle-seed", "-Z"];

impl Arguments {
    /// Reads a command line without the program's name, and the names of backends in `BACKEND`.
    ///
    /// # Errors
    ///
    /// A backend is unknown.
    pub fn parse(
        words: impl IntoIterator<Item = String>,
        backend: Option<&str>,
        known: &[&str],
    ) -> Result<Self, String> {
        let mut arguments = Self::default();
        arguments.add_backends(backend.unwrap_or_default());
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=').filter(|_| word.starts_with("--")) {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            let mut value = || value.clone().or_else(|| words.next()).unwrap_or_default();
            match name.as_str() {
                "--backend" => arguments.add_backends(&value()),
                "--skip" => arguments.skipped.push(value()),
                "--exact" => arguments.exact = true,
                "--list" => arguments.list = true,
                "--ignored" => arguments.ignored = true,
                other if WITHOUT_MEANING.contains(&other) => drop(value()),
                other if other.starts_with('-') => {}
                _ => arguments.filters.push(name),
            }
        }
        match arguments.backends.iter().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(format!("there is no backend {name:?}: choose from {}", known.join(", "))),
            None => Ok(arguments),
        }
    }

    fn add_backends(&mut self, names: &str) {
        self.backends.extend(names.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
    }

    /// Whether a cell, named `BACKEND::MODULE::BEHAVIOUR`, is to be run.
    pub(super) fn choose(&self, cell: &str) -> bool {
        let backend = cell.split("::").next().unwrap_or_default();
        let sentence = cell.rsplit("::").next().unwrap_or_default();
        let fits = |filter: &String| match self.exact {
            true => filter == cell || filter == sentence,
            false => cell.contains(filter.as_str()),
        };
        !self.ignored
            && (self.backends.is_empty() || self.backends.iter().any(|name| name == backend))
            && (self.filters.is_empty() || self.filters.iter().any(fits))
            && !self.skipped.iter().any(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, backend: Option<&str>) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned), backend, &["memory", "tcp", "kafka"])
    }

    #[test]
    fn a_part_of_a_cells_name_chooses_it_and_exact_takes_the_sentence() {
        let cell = "tcp::producing::records_of_one_key_stay_in_order";
        for line in
            ["", "one_key", "tcp::", "producing", "--exact records_of_one_key_stay_in_order", "x one_key"]
        {
            assert!(parse(line, None).unwrap().choose(cell), "{line}");
        }
        for line in
            ["two_keys", "kafka::", "--exact one_key", "--skip one_key", "one_key --skip tcp", "--ignored"]
        {
            assert!(!parse(line, None).unwrap().choose(cell), "{line}");
        }
    }

    #[test]
    fn backends_are_chosen_by_option_or_environment() {
        for (line, backend) in
            [("--backend tcp", None), ("--backend=memory,tcp", None), ("", Some("tcp,kafka"))]
        {
            let arguments = parse(line, backend).unwrap();
            assert!(arguments.choose("tcp::a::b"), "{line}");
            assert_eq!(arguments.choose("kafka::a::b"), backend.is_some(), "{line}");
        }
        let refused = parse("--backend zookeeper", None).unwrap_err();
        assert!(refused.contains("zookeeper") && refused.contains("memory, tcp, kafka"), "{refused}");
    }

    #[test]
    fn what_only_libtest_knows_is_no_filter() {
        let line = "--nocapture -q --test-threads 1 --color=never --format pretty -Z unstable-options";
        assert_eq!(parse(line, None).unwrap(), Arguments::default());
    }
}
