//! Kafka's file `quorum-state`: JSON, version 0, as it is written where the set of voters is fixed.

use std::collections::BTreeSet;

use super::QuorumState;

/// Why the file is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quorum-state: {0}")]
pub struct StateFileError(String);

impl QuorumState {
    /// The file's text.
    pub fn encode(&self, voters: &BTreeSet<i32>) -> String {
        let voters: Vec<_> = voters.iter().map(|id| format!("{{\"voterId\":{id}}}")).collect();
        format!(
            "{{\"clusterId\":\"\",\"leaderId\":{},\"leaderEpoch\":{},\"votedId\":{},\"appliedOffset\":0,\
             \"currentVoters\":[{}],\"data_version\":0}}",
            self.leader.unwrap_or(-1),
            self.epoch,
            self.voted.unwrap_or(-1),
            voters.join(",")
        )
    }

    /// Reads the file's text, in version 0 or 1.
    ///
    /// # Errors
    ///
    /// [`StateFileError`] names the field that is missing or no number.
    pub fn decode(text: &str) -> Result<Self, StateFileError> {
        let field = |name: &str| {
            let fail = |what: &str| StateFileError(format!("the field {name} is {what}"));
            let (_, rest) = text.split_once(&format!("\"{name}\"")).ok_or_else(|| fail("missing"))?;
            let rest =
                rest.trim_start().strip_prefix(':').ok_or_else(|| fail("without a value"))?.trim_start();
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
            rest[..end].parse::<i32>().map_err(|_| fail("no number"))
        };
        let version = field("data_version")?;
        if !(0..=1).contains(&version) {
            return Err(StateFileError(format!("version {version} is not known, only 0 and 1")));
        }
        let epoch = field("leaderEpoch")?;
        if epoch < 0 {
            return Err(StateFileError(format!("an epoch of {epoch} is impossible")));
        }
        let some = |id: i32| (id >= 0).then_some(id);
        Ok(Self { epoch, leader: some(field("leaderId")?), voted: some(field("votedId")?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_file_reads_as_kafka_writes_it() {
        let state = QuorumState { epoch: 7, leader: Some(3001), voted: None };
        let text = state.encode(&BTreeSet::from([3001, 3002]));
        let kafka = "{\"clusterId\":\"\",\"leaderId\":3001,\"leaderEpoch\":7,\"votedId\":-1,\"appliedOffset\":0,\
                     \"currentVoters\":[{\"voterId\":3001},{\"voterId\":3002}],\"data_version\":0}";
        assert_eq!(text, kafka);
        assert_eq!(QuorumState::decode(&text), Ok(state));
        let newer =
            "{\"leaderId\":-1,\"leaderEpoch\":2,\"votedId\":1,\"votedDirectoryId\":\"x\",\"data_version\":1}";
        assert_eq!(QuorumState::decode(newer), Ok(QuorumState { epoch: 2, leader: None, voted: Some(1) }));
    }

    #[test]
    fn a_damaged_state_file_is_refused_by_the_name_of_its_field() {
        for (text, cause) in [
            ("", "data_version is missing"),
            ("{\"data_version\":9}", "version 9"),
            ("{\"data_version\":0,\"leaderEpoch\":\"a\"}", "leaderEpoch is no number"),
            ("{\"data_version\":0,\"leaderEpoch\":-4}", "-4"),
            ("{\"data_version\":0,\"leaderEpoch\":4}", "leaderId is missing"),
        ] {
            let error = QuorumState::decode(text).unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
        }
    }
}
