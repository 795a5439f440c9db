//! `-X KEY=VALUE`, and the address that goes with them.

use clap::Args;
use klamm::{Admin, Client, ConfigError};

use crate::Failure;

/// How a command reaches its cluster.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    /// Addresses to find the cluster by: HOST:PORT, several separated by commas
    #[arg(short, long, value_name = "BOOTSTRAP")]
    bootstrap: String,
    /// Sets a property of the client by its Kafka name, for example request.timeout.ms=5000; may be given several times
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = parse_property)]
    properties: Vec<(String, String)>,
}

impl Cluster {
    /// A client of the cluster that administers it.
    pub(crate) fn admin(&self) -> Result<Admin, Failure> {
        let all = with_own(&self.bootstrap, &self.properties)?;
        let client = Admin::from_properties(all).and_then(|builder| builder.build());
        client.map(|client| client.admin()).map_err(|error| usage(&error))
    }
}

/// What the command line sets by itself, then what was given.
pub(crate) fn with_own<'a>(
    bootstrap: &'a str,
    given: &'a [(String, String)],
) -> Result<Vec<(&'a str, &'a str)>, Failure> {
    if given.iter().any(|(key, _)| key == "bootstrap.servers") {
        return Err(Failure::Usage("bootstrap.servers is given by -b".into()));
    }
    let own = [("bootstrap.servers", bootstrap), ("client.id", "klamm")];
    Ok(own.into_iter().chain(given.iter().map(|(key, value)| (&**key, &**value))).collect())
}

const CALLS: &str = "default.api.timeout.ms";

/// An administrator with as many of the properties as one can have.
pub(crate) fn admin_of(all: &[(&str, &str)]) -> Result<Admin, Failure> {
    let bootstrap = all.first().copied();
    let known = all.iter().copied().filter(|property| {
        let alone = bootstrap.into_iter().chain([*property]);
        Client::from_properties(alone).is_ok()
    });
    let built = |known: Vec<_>| Admin::from_properties(known).and_then(|builder| builder.build());
    let known: Vec<_> = known.collect();
    let client = built(known.clone()).or_else(|error| match error {
        // A consumer may give its calls less time than one request; an administrator has its own then.
        ConfigError::Invalid { ref setting, .. } if setting == CALLS => {
            built(known.into_iter().filter(|(name, _)| *name != CALLS).collect())
        }
        error => Err(error),
    });
    client.map(|client| client.admin()).map_err(|error| usage(&error))
}

pub(crate) fn usage(error: &ConfigError) -> Failure {
    Failure::Usage(error.to_string())
}

pub(crate) fn parse_property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_property_may_contain_an_equals_sign() {
        assert_eq!(parse_property("a.b = c=d"), Ok(("a.b".into(), "c=d".into())));
        assert!(parse_property("a.b").is_err());
    }
}
