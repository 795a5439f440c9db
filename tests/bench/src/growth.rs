//! What klamm costs when there are many partitions.

use clap::Args;

use crate::Error;
use crate::broker::{Broker, Kind};
use crate::client::{ALL, Built, Report, Setting};
use crate::run::{about, median, write_values};
use crate::workload::{self, Workload};

/// CPU per record at 6 and at 1,000 partitions, and of an idle producer that knows 1,000.
#[derive(Debug, Args)]
pub(crate) struct Growth {
    /// lite (broker-lite) or kafka (Apache Kafka from its jars), one node
    #[arg(long, default_value = "lite")]
    broker: Kind,
    /// Rounds; medians are printed
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Worker threads of klamm's runtime
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

const FEW: i32 = 6;
const MANY: i32 = 1000;

impl Growth {
    pub(crate) fn run(&self) -> Result<bool, Error> {
        let klamm = ALL.iter().find(|client| client.name == "klamm").ok_or("no klamm")?.build(false)?;
        let values = tempfile::tempdir()?;
        let load = workload::ALL[0];
        write_values(values.path(), &[load])?;
        let broker = Broker::start(self.broker)?;
        let (mut few, mut many, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        let about = about();
        for round in 0..self.rounds {
            let run = |partitions, mode, workload: &Workload| {
                let (values, workers) = (values.path(), self.workers);
                let setting = Setting { broker: &broker, values, partitions, workers, mode, group: "" };
                one(
                    &klamm,
                    workload,
                    &setting,
                    &format!("growth-{partitions}-{}-{round}", mode.unwrap_or("busy")),
                )
            };
            few.push(cpu(&run(FEW, None, &load)?) / load.records as f64 * 1e6);
            many.push(cpu(&run(MANY, None, &load)?) / load.records as f64 * 1e6);
            idle.push(cpu(&run(MANY, Some("idle"), &Workload { records: 0, ..load })?) * 1e3);
        }
        let medians = (median(few), median(many), median(idle));
        let (Some(few), Some(many), Some(idle)) = medians else { return Err("no rounds".into()) };
        println!("{about}, {}, {} rounds\n", self.broker.name(), self.rounds);
        println!("| klamm | CPU |\n|---|---|");
        println!("| {FEW} partitions, {} | {few:.3} µs a record |", load.name);
        println!("| {MANY} partitions, {} | {many:.3} µs a record (×{:.2}) |", load.name, many / few);
        println!("| {MANY} partitions, idle for 10 s | {idle:.1} ms |");
        Ok(true)
    }
}

fn one(klamm: &Built, workload: &Workload, setting: &Setting<'_>, topic: &str) -> Result<Report, Error> {
    let report = klamm.run(workload, setting, topic)?;
    eprintln!("{topic}: {:.3} s of CPU", cpu(&report));
    Ok(report)
}

fn cpu(report: &Report) -> f64 {
    report.cpu_user_s + report.cpu_sys_s
}
