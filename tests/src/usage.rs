//! What the operating system accounts to a process (Linux, `/proc`).

use std::collections::BTreeMap;
use std::fs;
use std::io::Error;
use std::ops::{Add, Sub};

/// Clock ticks a second in `/proc/PID/stat`; fixed by the kernel's interface.
const TICKS: f64 = 100.0;

/// CPU seconds of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// In user mode.
    pub user_s: f64,
    /// In the kernel.
    pub sys_s: f64,
}

impl Cpu {
    /// Of one process, by number or `self`.
    ///
    /// # Errors
    ///
    /// There is no such process, or no `/proc`.
    pub fn of(process: &str) -> Result<Self, Error> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The second field is the program's name in parentheses and may hold blanks; utime and stime are the 14th and 15th.
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let mut ticks = rest.split_whitespace().skip(11).map(str::parse::<f64>);
        match (ticks.next(), ticks.next()) {
            (Some(Ok(user)), Some(Ok(sys))) => Ok(Self { user_s: user / TICKS, sys_s: sys / TICKS }),
            _ => Err(Error::other(format!("unreadable /proc/{process}/stat"))),
        }
    }

    /// Of several processes together.
    ///
    /// # Errors
    ///
    /// As [`Self::of`].
    pub fn of_all(processes: &[u32]) -> Result<Self, Error> {
        processes.iter().try_fold(Self::default(), |sum, pid| Ok(sum + Self::of(&pid.to_string())?))
    }
}

/// CPU time of the threads of some processes so far, to the nanosecond, which `stat` tells in hundredths of a second only.
#[derive(Debug, Clone, Default)]
pub struct ThreadTimes {
    /// Nanoseconds of each thread, by process and thread.
    threads: BTreeMap<(u32, u32), u64>,
    coarse: Cpu,
}

impl ThreadTimes {
    /// Of all threads of these processes.
    ///
    /// # Errors
    ///
    /// As [`Cpu::of`].
    pub fn of_all(processes: &[u32]) -> Result<Self, Error> {
        let mut threads = BTreeMap::new();
        for pid in processes {
            for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
                let path = entry?.path();
                let thread = path.file_name().and_then(|name| name.to_str()?.parse().ok());
                // A thread that ends meanwhile has no file any more.
                let told = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
                let on_cpu = told.split_whitespace().next().and_then(|ns| ns.parse().ok());
                threads.extend(thread.zip(on_cpu).map(|(thread, ns)| ((*pid, thread), ns)));
            }
        }
        Ok(Self { threads, coarse: Cpu::of_all(processes)? })
    }

    /// CPU seconds, user and system, since `before`.
    ///
    /// Threads that ended in between took their nanoseconds along: where the coarse count, which keeps them, says clearly
    /// more, it is believed.
    pub fn seconds_since(&self, before: &Self) -> f64 {
        let of = |(thread, ns): (&(u32, u32), &u64)| {
            ns.saturating_sub(before.threads.get(thread).copied().unwrap_or(0))
        };
        let fine = self.threads.iter().map(of).sum::<u64>() as f64 / 1e9;
        let coarse = self.coarse - before.coarse;
        let coarse = coarse.user_s + coarse.sys_s;
        if coarse > fine + 4.0 / TICKS { coarse } else { fine }
    }
}

impl Add for Cpu {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { user_s: self.user_s + other.user_s, sys_s: self.sys_s + other.sys_s }
    }
}

impl Sub for Cpu {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { user_s: self.user_s - other.user_s, sys_s: self.sys_s - other.sys_s }
    }
}

/// Resident memory of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resident {
    /// At this moment (VmRSS).
    pub now: u64,
    /// The most so far (VmHWM).
    pub peak: u64,
}

/// Resident memory of a process, by number or `self`, in bytes.
///
/// # Errors
///
/// There is no such process, or no `/proc`.
pub fn resident_bytes(process: &str) -> Result<Resident, Error> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    };
    match (field("VmRSS:"), field("VmHWM:")) {
        (Some(now), Some(peak)) => Ok(Resident { now, peak }),
        _ => Err(Error::other(format!("unreadable /proc/{process}/status"))),
    }
}

/// The three load averages.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
