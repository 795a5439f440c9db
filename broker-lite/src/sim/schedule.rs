//! Which faults happen in a run, and when, as data: drawn from a seed, written down, made smaller, played.

use klamm_wire::ambient::mix;
use serde::{Deserialize, Serialize};

use super::{Shrink, seed_for};

/// Controllers of a simulated cluster, and the id of the first.
const VOTERS: i32 = 3;
const FIRST_VOTER: i32 = 3001;

/// The faults of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// In no particular order; each runs by itself.
    pub faults: Vec<Fault>,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins.
    pub when: Moment,
    /// What happens.
    pub what: What,
    /// After how many ms it is undone: the broker restarted, the cut healed.
    pub lasts_ms: u64,
}

/// When a fault begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    /// So many ms after the schedule began to play.
    At {
        /// Milliseconds.
        ms: u64,
    },
    /// When a client's Produce request, `skip` others not counted, has just arrived at a broker.
    Arrived {
        /// Milliseconds after which requests count.
        after_ms: u64,
        /// Requests to let pass.
        skip: u32,
    },
    /// When the leader has appended, and nothing is synced, replicated or answered.
    Appended {
        /// Milliseconds after which requests count.
        after_ms: u64,
        /// Requests to let pass.
        skip: u32,
    },
    /// When the answer is ready, and not sent.
    Committed {
        /// Milliseconds after which requests count.
        after_ms: u64,
        /// Requests to let pass.
        skip: u32,
    },
}

/// Whom a fault befalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// This broker.
    Broker(i32),
    /// The broker at which the moment came; for [`Moment::At`], the one that leads most partitions.
    Leader,
    /// All brokers in the same instant.
    AllBrokers,
    /// All brokers but this one.
    Others(i32),
    /// The active controller, if there is one at that moment.
    Controller,
    /// This controller, active or not.
    Voter(i32),
    /// All controllers in the same instant.
    Voters,
}

/// From whom somebody is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// The other brokers.
    Brokers,
    /// The controllers.
    Controller,
    /// All clients.
    Clients,
    /// Brokers and controllers: it still serves clients.
    Cluster,
    /// Everybody.
    Everybody,
}

/// Which direction is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// Both.
    Both,
    /// What it sends does not arrive.
    Out,
    /// What is sent to it does not arrive.
    In,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// The process dies; what it wrote stays.
    Kill(Who),
    /// The machine loses power: what was not synced is gone, or, torn, a part of it.
    PowerOff {
        /// Whom.
        who: Who,
        /// A part of what was not synced is left, ending anywhere.
        torn: bool,
    },
    /// The process stands still.
    Pause(Who),
    /// The network does not carry.
    Cut {
        /// Whom.
        who: Who,
        /// From whom.
        from: Isolation,
        /// Which way.
        way: Way,
    },
    /// Messages take up to so many ms more.
    SlowNetwork {
        /// Milliseconds.
        up_to_ms: u64,
    },
    /// Connections break, each message with this probability.
    Loss {
        /// From 0 to 1.
        probability: f64,
    },
    /// An fsync takes so long.
    SlowDisk {
        /// Whose.
        who: Who,
        /// Milliseconds.
        ms: u64,
    },
    /// The next fsync fails.
    FailingDisk(Who),
    /// There is no room for another record.
    FullDisk(Who),
    /// The next change of an ISR that a leader proposes reaches the controller late.
    LateProposal,
    /// The wall clock jumps by so many ms, and back.
    ClockJump {
        /// Whose.
        who: Who,
        /// Milliseconds, forward or backward.
        ms: i64,
    },
}

/// What kinds of faults are drawn, and how many.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Chaos {
    /// Brokers there are, with ids from 1.
    pub brokers: i32,
    /// Time in which faults begin, in ms.
    pub length_ms: u64,
    /// Fewest and most faults.
    pub faults: (usize, usize),
    /// Longest time until a fault is undone, in ms.
    pub longest_ms: u64,
    /// Produce requests expected in a run: those that a moment waits for are drawn below it.
    pub requests: u32,
    /// Processes die and stand still.
    pub processes: bool,
    /// Machines lose power. Only with an fsync before the answer is nothing lost by it.
    pub power: bool,
    /// The network cuts, slows down and loses.
    pub network: bool,
    /// Disks are slow, fail, and are full.
    pub disks: bool,
    /// Wall clocks jump.
    pub clocks: bool,
    /// The controllers take their part.
    pub controller: bool,
}

impl Default for Chaos {
    /// Everything but loss of power, for three brokers: 3 to 7 faults within 10 s, each at most 4 s long.
    fn default() -> Self {
        Self {
            brokers: 3,
            length_ms: 10_000,
            faults: (3, 7),
            longest_ms: 4_000,
            requests: 200,
            processes: true,
            power: false,
            network: true,
            disks: true,
            clocks: true,
            controller: true,
        }
    }
}

impl Chaos {
    /// With machines that lose power.
    #[must_use]
    pub fn with_power_loss(mut self) -> Self {
        self.power = true;
        self
    }

    /// Draws a schedule. Equal seeds give equal schedules.
    pub fn draw(&self, seed: u64) -> Schedule {
        let seed = seed_for(seed, "chaos");
        let count = fastrand::Rng::with_seed(seed).usize(self.faults.0..=self.faults.1.max(self.faults.0));
        // A stream for each fault: one more of them does not change the others.
        let fault = |index: u64| self.fault(&mut fastrand::Rng::with_seed(mix(seed, index + 1)));
        let mut faults: Vec<_> = (0..count as u64).map(fault).collect();
        let mut rng = fastrand::Rng::with_seed(mix(seed, u64::MAX));
        if self.power && rng.u8(0..3) == 0 {
            faults.extend(self.outage(&mut rng));
        }
        if self.network && self.processes && rng.u8(0..6) == 0 {
            faults.extend(self.late_return(&mut rng));
        }
        if self.network && self.processes && rng.u8(0..6) == 0 {
            faults.extend(self.late_answer(&mut rng));
        }
        if self.controller && self.processes && rng.u8(0..4) == 0 {
            faults.extend(self.controllers_die(&mut rng));
        }
        Schedule { faults }
    }

    /// A leader is deposed without knowing, and what its successor tells it of their logs reaches it only after a third
    /// one leads, which then dies.
    fn late_answer(&self, rng: &mut fastrand::Rng) -> [Fault; 4] {
        let begin = rng.u64(0..=300);
        let at = |after: u64| Moment::At { ms: begin + after };
        let cut = |from, way| What::Cut { who: Who::Leader, from, way };
        [
            Fault { when: at(0), what: cut(Isolation::Cluster, Way::Both), lasts_ms: 2_000 },
            Fault { when: at(1_950), what: cut(Isolation::Brokers, Way::Out), lasts_ms: 4_050 },
            Fault { when: at(2_100), what: cut(Isolation::Controller, Way::Both), lasts_ms: 6_000 },
            Fault { when: at(6_000 + rng.u64(0..=16)), what: What::Kill(Who::Leader), lasts_ms: 2_000 },
        ]
    }

    /// A follower falls behind, returns, and falls behind again; that it had returned reaches the controller only then.
    /// If that counts, it may lead without what was committed in between.
    fn late_return(&self, rng: &mut fastrand::Rng) -> [Fault; 4] {
        let (begin, follower) = (rng.u64(0..=1_000), rng.i32(1..=self.brokers.max(1)));
        let at = |after: u64| Moment::At { ms: begin + after };
        let apart = || What::Cut { who: Who::Broker(follower), from: Isolation::Brokers, way: Way::Both };
        [
            Fault { when: at(0), what: apart(), lasts_ms: 2_500 },
            Fault { when: at(2_000), what: What::LateProposal, lasts_ms: 4_500 },
            Fault { when: at(4_000), what: apart(), lasts_ms: 6_000 },
            Fault {
                when: at(7_050 + rng.u64(0..=500)),
                what: What::Kill(Who::Others(follower)),
                lasts_ms: 3_000,
            },
        ]
    }

    /// A process dies with records that its slow disk has not got yet, comes back, and then the power goes: what it had
    /// in its memory only must not have counted in between.
    fn outage(&self, rng: &mut fastrand::Rng) -> [Fault; 3] {
        let begin = rng.u64(0..=self.length_ms);
        let slow = What::SlowDisk { who: Who::AllBrokers, ms: rng.u64(300..=1_500) };
        let kill = Moment::Appended { after_ms: begin + 200, skip: rng.u32(0..=3) };
        let restart_ms = rng.u64(1..=600);
        let dark = begin + 200 + restart_ms + rng.u64(500..=2_500);
        let who = if rng.bool() { Who::AllBrokers } else { self.who(rng) };
        [
            Fault { when: Moment::At { ms: begin }, what: slow, lasts_ms: 4_000 },
            Fault { when: kill, what: What::Kill(Who::Leader), lasts_ms: restart_ms },
            Fault {
                when: Moment::At { ms: dark },
                what: What::PowerOff { who, torn: rng.bool() },
                lasts_ms: 200,
            },
        ]
    }

    fn fault(&self, rng: &mut fastrand::Rng) -> Fault {
        let what = self.what(rng);
        let when = self.moment(rng, &what);
        let lasts_ms = rng.u64(1..=self.longest_ms.max(1));
        Fault { when, what, lasts_ms }
    }

    fn moment(&self, rng: &mut fastrand::Rng, what: &What) -> Moment {
        let (after_ms, skip) = (rng.u64(0..=self.length_ms), rng.u32(0..=self.requests.min(20)));
        // Faults of a process hurt most between two steps of a request.
        let by_stage =
            matches!(what, What::Kill(_) | What::PowerOff { .. } | What::Pause(_) | What::Cut { .. });
        match rng.u8(0..10) {
            0 if by_stage => Moment::Arrived { after_ms, skip },
            1..=4 if by_stage => Moment::Appended { after_ms, skip },
            5 if by_stage => Moment::Committed { after_ms, skip },
            _ => Moment::At { ms: after_ms },
        }
    }

    fn who(&self, rng: &mut fastrand::Rng) -> Who {
        match rng.u8(0..10) {
            0..=4 => Who::Leader,
            _ => Who::Broker(rng.i32(1..=self.brokers.max(1))),
        }
    }

    fn process(&self, rng: &mut fastrand::Rng) -> Who {
        match rng.u8(0..20) {
            0 | 2 if self.controller => Who::Controller,
            3 if self.controller => Who::Voter(self.voter(rng)),
            1 => Who::AllBrokers,
            _ => self.who(rng),
        }
    }

    fn voter(&self, rng: &mut fastrand::Rng) -> i32 {
        FIRST_VOTER + rng.i32(0..VOTERS)
    }

    /// Controllers die one after the other, so that the last one has to catch up with what was decided without it; the
    /// leader of most partitions dies in between, and its successor is elected by a new controller.
    fn controllers_die(&self, rng: &mut fastrand::Rng) -> [Fault; 4] {
        let (begin, absent) = (rng.u64(0..=self.length_ms / 2), self.voter(rng));
        let at = |after: u64| Moment::At { ms: begin + after };
        let gap = rng.u64(200..=1_200);
        [
            Fault { when: at(0), what: What::Kill(Who::Voter(absent)), lasts_ms: gap + rng.u64(0..=200) },
            Fault { when: at(gap), what: What::Kill(Who::Controller), lasts_ms: rng.u64(300..=1_500) },
            Fault { when: at(gap + rng.u64(0..=300)), what: What::Kill(Who::Leader), lasts_ms: 1_000 },
            Fault {
                when: at(2 * gap + rng.u64(0..=1_000)),
                what: What::Cut { who: Who::Controller, from: Isolation::Controller, way: Way::Both },
                lasts_ms: rng.u64(300..=1_500),
            },
        ]
    }

    fn what(&self, rng: &mut fastrand::Rng) -> What {
        let kinds =
            [(self.processes, 4), (self.power, 4), (self.network, 5), (self.disks, 2), (self.clocks, 1)];
        let total: u32 = kinds.iter().filter(|(on, _)| *on).map(|(_, weight)| weight).sum();
        let mut draw = rng.u32(0..total.max(1));
        for (kind, (_, weight)) in kinds.iter().enumerate().filter(|(_, (on, _))| *on) {
            if draw < *weight {
                return match kind {
                    0 => self.of_process(rng),
                    1 => self.of_power(rng),
                    2 => self.of_network(rng),
                    3 => self.of_disk(rng),
                    _ => What::ClockJump { who: self.who(rng), ms: rng.i64(-100_000..=100_000) },
                };
            }
            draw -= weight;
        }
        What::Kill(self.who(rng))
    }

    fn of_process(&self, rng: &mut fastrand::Rng) -> What {
        let who = self.process(rng);
        if rng.u8(0..3) == 0 { What::Pause(who) } else { What::Kill(who) }
    }

    fn of_power(&self, rng: &mut fastrand::Rng) -> What {
        let who = if rng.u8(0..3) == 0 { Who::AllBrokers } else { self.process(rng) };
        What::PowerOff { who, torn: rng.bool() }
    }

    fn of_network(&self, rng: &mut fastrand::Rng) -> What {
        let from = match rng.u8(0..10) {
            0 | 1 => Isolation::Brokers,
            2 => Isolation::Controller,
            3 => Isolation::Clients,
            // A leader that goes on taking writes is what makes logs part.
            4..=7 => Isolation::Cluster,
            _ => Isolation::Everybody,
        };
        let way = match rng.u8(0..6) {
            0 => Way::In,
            1 => Way::Out,
            _ => Way::Both,
        };
        match rng.u8(0..8) {
            0 => What::SlowNetwork { up_to_ms: rng.u64(10..=400) },
            1 => What::Loss { probability: f64::from(rng.u32(1..=50)) / 1_000.0 },
            _ => What::Cut { who: self.process(rng), from, way },
        }
    }

    fn of_disk(&self, rng: &mut fastrand::Rng) -> What {
        match rng.u8(0..4) {
            0 => What::FailingDisk(self.who(rng)),
            1 => What::FullDisk(self.who(rng)),
            _ => What::SlowDisk { who: self.who(rng), ms: rng.u64(20..=1_000) },
        }
    }
}

impl Shrink for Schedule {
    fn smaller(&self) -> Vec<Self> {
        let mut smaller = Vec::new();
        let half = self.faults.len() / 2;
        if half > 1 {
            smaller.push(Self { faults: self.faults[..half].to_vec() });
            smaller.push(Self { faults: self.faults[half..].to_vec() });
        }
        for index in 0..self.faults.len() {
            let mut faults = self.faults.clone();
            faults.remove(index);
            smaller.push(Self { faults });
        }
        for index in 0..self.faults.len() {
            let mut faults = self.faults.clone();
            if faults[index].lasts_ms > 100 {
                faults[index].lasts_ms /= 2;
                smaller.push(Self { faults });
            }
        }
        smaller
    }
}
