//! The suite's own promises, tried on clusters that are none.
#![allow(clippy::disallowed_methods, reason = "a behaviour that blocks its thread is what is tested")]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use klamm::{Client, ClientBuilder};

use super::cells::fill_in;
use super::report::{Out, Report, word};
use super::{Arguments, Behaviour, Suite};
use crate::backend::{Can, Kind, System, Unavailable};

struct Nothing;

impl System for Nothing {
    fn client_builder(&self) -> ClientBuilder {
        Client::builder()
    }
}

macro_rules! kind {
    ($id:literal, $can:expr, $start:expr) => {
        Kind { id: $id, title: $id, can: $can, start: || Box::pin(async { $start }) }
    };
}

const REAL: Kind = kind!("real", &[], Ok(Arc::new(Nothing) as Arc<dyn System>));
const VIRTUAL: Kind = kind!("virtual", &[Can::VirtualTime], Ok(Arc::new(Nothing) as Arc<dyn System>));
const MISSING: Kind = kind!("missing", &[], Err(Unavailable::Missing("not installed".into())));
const BROKEN: Kind = kind!("broken", &[], Err(Unavailable::Broken("port taken".into())));

const OK: Behaviour = Behaviour { name: "t::holds", needs: &[], run: |_| Box::pin(async { Ok(()) }) };
const REFUSED: Behaviour =
    Behaviour { name: "t::is_refused", needs: &[], run: |_| Box::pin(async { Err("refused".into()) }) };
const PANICS: Behaviour =
    Behaviour { name: "t::panics", needs: &[], run: |_| Box::pin(async { panic!("on purpose") }) };
const HANGS: Behaviour =
    Behaviour { name: "t::hangs", needs: &[], run: |_| Box::pin(std::future::pending()) };
const BLOCKS: Behaviour = Behaviour {
    name: "t::blocks",
    needs: &[],
    run: |_| {
        Box::pin(async {
            std::thread::park_timeout(Duration::from_secs(3600));
            Ok(())
        })
    },
};
const NEEDS_KILL: Behaviour =
    Behaviour { name: "t::kills", needs: &[Can::Kill], run: |_| Box::pin(async { Ok(()) }) };

fn verdicts(behaviours: &'static [Behaviour], kinds: &'static [Kind], require_all: bool) -> (bool, String) {
    let suite = Suite { behaviours, kinds, limit: Duration::from_millis(300), require_all, seed: 1 };
    let printed = Rc::new(RefCell::new(String::new()));
    let out = printed.clone();
    let out: Out = Box::new(move |line| out.borrow_mut().push_str(&format!("{line}\n")));
    let report = fill_in(Report::new(suite, &Arguments::default(), out));
    let row = |row: &Vec<_>| row.iter().map(word).collect::<Vec<_>>().join(" ");
    let words = report.verdicts.iter().map(row).collect::<Vec<_>>().join(" / ");
    let ok = report.close();
    let printed = printed.borrow();
    let closing: Vec<_> = printed.lines().filter(|line| line.starts_with("test result: ")).collect();
    let (passed, failed) = (words.matches("ok").count(), words.matches("FAILED").count());
    let missing = usize::from(require_all && words.contains("SKIPPED"));
    // What `tests/run` adds up.
    let counts = format!(". {passed} passed; {} failed; ", failed + missing);
    assert!(closing.len() == 1 && closing[0].contains(&counts), "{counts:?} in {printed}");
    for behaviour in behaviours {
        let row = printed.lines().find(|line| line.starts_with(&format!("{}  ", behaviour.name)));
        assert!(row.is_some(), "the table has a row for {} in {printed}", behaviour.name);
    }
    (ok, words)
}

#[test]
fn a_behaviour_that_fails_panics_or_hangs_fails_its_own_cell_only() {
    let (ok, words) = verdicts(&[REFUSED, PANICS, HANGS, OK], &[REAL, VIRTUAL], true);
    assert!(!ok);
    assert_eq!(words, "FAILED FAILED / FAILED FAILED / FAILED FAILED / ok ok");
}

#[test]
fn what_a_kind_lacks_is_no_failure() {
    assert_eq!(verdicts(&[NEEDS_KILL, OK], &[REAL], true), (true, "n/a / ok".into()));
}

#[test]
fn a_missing_backend_fails_only_where_all_are_required_and_a_broken_one_always() {
    assert_eq!(verdicts(&[OK], &[MISSING, REAL], false), (true, "SKIPPED ok".into()));
    assert_eq!(verdicts(&[OK], &[MISSING, REAL], true), (false, "SKIPPED ok".into()));
    assert_eq!(verdicts(&[OK], &[BROKEN, REAL], false), (false, "FAILED ok".into()));
}

#[test]
fn a_behaviour_that_keeps_its_thread_costs_its_own_backend_only() {
    let (ok, words) = verdicts(&[OK, BLOCKS, OK], &[REAL, VIRTUAL], true);
    assert!(!ok);
    assert_eq!(words, "ok ok / FAILED FAILED / FAILED FAILED");
    const AFTER: &[Kind] = &[kind!("first", &[Can::Kill], Ok(Arc::new(Nothing) as Arc<dyn System>)), REAL];
    const STUCK: Behaviour = Behaviour { needs: &[Can::Kill], ..BLOCKS };
    assert_eq!(verdicts(&[STUCK, OK], AFTER, true), (false, "FAILED n/a / FAILED ok".into()));
}
