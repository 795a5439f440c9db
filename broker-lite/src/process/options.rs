//! What a process is told: who it is, where it listens, and who the voters are.
//!
//! In: texts from a command line. Out: checked options, or one sentence that names the text and what would be right.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use klamm_wire::seam::Endpoint;

/// Host and port, as `HOST:PORT`; an IPv6 address stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address, without brackets.
    pub host: String,
    /// Port; 0 asks for any free one, where that is allowed.
    pub port: u16,
}

impl Address {
    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.host.clone(), self.port)
    }

    /// Whether it means every address of this machine.
    pub(super) fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint().fmt(f)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
            Some(bare) => bare.ok_or_else(wrong)?,
            None if host.contains(':') => {
                return Err(format!("{text:?}: an IPv6 address stands in brackets"));
            }
            None => host,
        };
        if bare.is_empty() || bare.contains(|c: char| c.is_whitespace() || "/@,".contains(c)) {
            return Err(wrong());
        }
        let port = port.parse().map_err(|_| format!("{port:?} in {text:?} is not a port"))?;
        Ok(Self { host: bare.to_owned(), port })
    }
}

/// One voter of the quorum, as `ID@HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// Its node id.
    pub id: i32,
    /// Where its controller listens.
    pub address: Address,
}

impl FromStr for Voter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, address) = text.split_once('@').ok_or_else(|| format!("{text:?} is not ID@HOST:PORT"))?;
        let id = id.parse().ok().filter(|id| *id >= 1);
        let id = id.ok_or_else(|| format!("the id in {text:?} is not a number from 1 on"))?;
        let address: Address = address.parse()?;
        match address.port {
            0 => Err(format!("the port in {text:?} is 0, but others must find the voter there")),
            _ => Ok(Self { id, address }),
        }
    }
}

/// The voters of a quorum, `ID@HOST:PORT` with commas between them. Every node is given the same ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voters(Vec<Voter>);

impl Voters {
    /// The voters in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &Voter> {
        self.0.iter()
    }

    /// Where the controller of that node listens, if it is one of them.
    pub fn address(&self, id: i32) -> Option<&Address> {
        self.iter().find(|voter| voter.id == id).map(|voter| &voter.address)
    }
}

impl FromStr for Voters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let voters = text.split(',').map(|voter| voter.trim().parse()).collect::<Result<Vec<Voter>, _>>()?;
        for (index, voter) in voters.iter().enumerate() {
            let before = &voters[..index];
            if before.iter().any(|other| other.id == voter.id) {
                return Err(format!("voter {} is listed twice", voter.id));
            }
            if let Some(other) = before.iter().find(|other| other.address == voter.address) {
                return Err(format!(
                    "voters {} and {} have the same address {}",
                    other.id, voter.id, voter.address
                ));
            }
        }
        match voters.len() {
            1 | 3 | 5 => Ok(Self(voters)),
            count => Err(format!(
                "there are {count} voters, but 1, 3 or 5 are needed: an even number survives no more"
            )),
        }
    }
}

/// What a [`NodeProcess`](super::NodeProcess) is started with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeOptions {
    /// Node id, from 1 on.
    pub id: i32,
    /// Where clients and other brokers reach the broker; port 0 takes any free one.
    pub listen: Address,
    /// What clients and other brokers are told instead of `listen`.
    pub advertise: Option<Address>,
    /// Where other nodes reach the voter, if this node is one.
    pub controller_listen: Option<Address>,
    /// The voters.
    pub voters: Voters,
    /// Directory of this node alone.
    pub data_dir: PathBuf,
    /// Id of the cluster; without it, the first controller chooses one.
    pub cluster_id: Option<String>,
    /// Settings by their Kafka names.
    pub configs: Vec<(String, String)>,
}

impl NodeOptions {
    /// Options with what has no default.
    pub fn new(id: i32, listen: Address, voters: Voters, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            id,
            listen,
            advertise: None,
            controller_listen: None,
            voters,
            data_dir: data_dir.into(),
            cluster_id: None,
            configs: Vec::new(),
        }
    }

    /// Where the voter of this node listens, `None` if it has none.
    pub(super) fn voter(&self) -> Result<Option<&Address>, String> {
        let id = self.id;
        if id < 1 {
            return Err(format!("node id {id} is not a number from 1 on"));
        }
        let Some(told) = self.voters.address(id) else {
            return match &self.controller_listen {
                Some(_) => {
                    tracing::warn!(
                        node = id,
                        "not listed in --voters: it is a broker only, and no controller listens"
                    );
                    Ok(None)
                }
                None => Ok(None),
            };
        };
        let listen = self.controller_listen.as_ref().ok_or_else(|| {
            format!(
                "node {id} is a voter, at {told} by --voters, and needs --controller-listen with that port"
            )
        })?;
        let other_host =
            || !listen.is_unspecified() && listen.ip().zip(told.ip()).is_some_and(|(a, b)| a != b);
        if listen.port != told.port || other_host() {
            return Err(format!(
                "node {id} is a voter at {told} by --voters, but --controller-listen is {listen}"
            ));
        }
        if *listen == self.listen {
            return Err(format!(
                "--listen and --controller-listen are both {listen}: each needs a port of its own"
            ));
        }
        Ok(Some(listen))
    }

    /// What others are told, once it is known where the broker listens.
    pub(super) fn advertised(&self, bound: u16) -> Result<Address, String> {
        if let Some(advertise) = &self.advertise {
            return match advertise {
                told if told.is_unspecified() => {
                    Err(format!("--advertise {told} is no address that others can dial"))
                }
                // Whoever asks for any port wants the one that it became.
                Address { host, port: 0 } => Ok(Address { host: host.clone(), port: bound }),
                told => Ok(told.clone()),
            };
        }
        if self.listen.is_unspecified() {
            return Err(format!(
                "--listen {} means every address of this machine: say by --advertise HOST:PORT which one others dial",
                self.listen
            ));
        }
        Ok(Address { host: self.listen.host.clone(), port: bound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: FromStr<Err = String> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err()
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let address = |text: &str| text.parse::<Address>().unwrap();
        assert_eq!(address("127.0.0.1:9092"), Address { host: "127.0.0.1".into(), port: 9092 });
        assert_eq!(address("[::1]:0"), Address { host: "::1".into(), port: 0 });
        assert_eq!(address("[::1]:0").to_string(), "[::1]:0");
        for bad in
            ["", "host", ":9092", "host:", "host:x", "host:65536", "::1:9092", "[::1:9092", "a b:1", "1@h:1"]
        {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_list_of_voters_is_refused_by_the_first_thing_that_is_wrong() {
        let voters: Voters = "1@a:1, 2@b:1,3@c:1".parse().unwrap();
        assert_eq!(voters.address(2), Some(&Address { host: "b".into(), port: 1 }));
        assert_eq!(voters.address(4), None);
        for (bad, part) in [
            ("", "is not ID@HOST:PORT"),
            ("a:1", "is not ID@HOST:PORT"),
            ("0@a:1", "is not a number from 1 on"),
            ("x@a:1", "is not a number from 1 on"),
            ("1@a", "is not HOST:PORT"),
            ("1@a:0", "others must find the voter there"),
            ("1@a:1,1@b:1,3@c:1", "voter 1 is listed twice"),
            ("1@a:1,2@a:1,3@c:1", "voters 1 and 2 have the same address a:1"),
            ("1@a:1,2@b:1", "there are 2 voters, but 1, 3 or 5 are needed"),
            ("1@a:1,", "is not ID@HOST:PORT"),
        ] {
            let told = refused::<Voters>(bad);
            assert!(told.contains(part), "{bad:?}: {told}");
        }
    }

    fn options(id: i32, controller: Option<&str>) -> NodeOptions {
        let voters = "1@127.0.0.1:9093,2@127.0.0.1:9193,3@127.0.0.1:9293".parse().unwrap();
        let mut options = NodeOptions::new(id, "127.0.0.1:9092".parse().unwrap(), voters, "/nowhere");
        options.controller_listen = controller.map(|text| text.parse().unwrap());
        options
    }

    #[test]
    fn a_voter_listens_where_the_others_look_for_it() {
        for good in ["127.0.0.1:9093", "0.0.0.0:9093", "localhost:9093"] {
            assert!(options(1, Some(good)).voter().unwrap().is_some(), "{good}");
        }
        for (bad, part) in [
            (None, "needs --controller-listen"),
            (Some("127.0.0.1:9193"), "but --controller-listen is 127.0.0.1:9193"),
            (Some("127.0.0.2:9093"), "but --controller-listen is 127.0.0.2:9093"),
        ] {
            let told = options(1, bad).voter().unwrap_err();
            assert!(told.contains(part), "{bad:?}: {told}");
        }
        assert_eq!(options(4, None).voter(), Ok(None), "a broker only");
    }

    #[test]
    fn others_are_told_an_address_that_can_be_dialled() {
        let mut options = options(1, None);
        assert_eq!(options.advertised(9092).unwrap().to_string(), "127.0.0.1:9092");
        options.listen = "0.0.0.0:0".parse().unwrap();
        assert!(options.advertised(1234).unwrap_err().contains("--advertise HOST:PORT"));
        options.advertise = Some("broker.example:0".parse().unwrap());
        assert_eq!(options.advertised(1234).unwrap().to_string(), "broker.example:1234");
        options.advertise = Some("[::]:1".parse().unwrap());
        assert!(options.advertised(1234).is_err());
    }
}
