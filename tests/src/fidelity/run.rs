//! Runs the cases on both sides, compares, and reports.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::case::Case;
use super::compare::{Difference, differences};
use super::damage::beyond;
use super::program::Arguments;
use super::side::{Seen, Side};
use super::verdict::Allowed;

/// Everything that is compared, and what is known about it.
#[derive(Debug)]
pub struct Suite {
    /// Run first and never compared: what the cases find there.
    pub setup: Case,
    /// What is compared.
    pub cases: Vec<Case>,
    /// Differences that may be.
    pub allowed: Vec<Allowed>,
    /// APIs that Kafka advertises and broker-lite does not: key, reason.
    pub not_advertised: Vec<(i16, &'static str)>,
    /// Features that Kafka tells and broker-lite does not, or tells otherwise: name, reason.
    pub other_features: Vec<(&'static str, &'static str)>,
}

/// Differences of one case that are told where all cases are run.
const MOST_TOLD: usize = 8;

/// What takes longer is told at once: something waits in vain.
const SLOW: Duration = Duration::from_secs(5);

/// One case in one version on both sides.
struct Pair {
    case: usize,
    version: i16,
    kafka: Seen,
    ours: Seen,
    /// By Kafka and by broker-lite.
    took: [Duration; 2],
}

#[derive(Default)]
struct Totals {
    passed: usize,
    runs: usize,
    answers: usize,
    fields: usize,
    waiting: usize,
    failures: Vec<String>,
}

/// Names the cases as libtest does.
pub(super) fn list(suite: &Suite, arguments: &Arguments) {
    let chosen = suite.cases.iter().filter(|case| arguments.choose(&case.name));
    let count = chosen.map(|case| tell!(stdout, "{}: test", case.name)).count();
    tell!(stdout, "\n{count} tests, 0 benchmarks");
}

/// Runs the chosen cases on both sides and reports; `true` if nothing failed.
///
/// # Errors
///
/// One of the clusters does not answer at all.
pub(super) fn run(
    mut suite: Suite,
    arguments: &Arguments,
    kafka: &mut Side,
    ours: &mut Side,
) -> Result<bool, String> {
    let begun = Instant::now();
    let (theirs, mine) = (kafka.advertised()?, ours.advertised()?);
    for (&key, &(min, max)) in mine.iter().filter(|(key, _)| theirs.contains_key(key)) {
        if key != 18 {
            suite.cases.push(beyond(key, min, max));
        }
    }
    let mut totals = Totals::default();
    let chosen: Vec<_> =
        (0..suite.cases.len()).filter(|&at| arguments.choose(&suite.cases[at].name)).collect();
    let plan = plan(&suite, &chosen, &mine, &mut totals);
    let pairs = observe(&suite, &plan, kafka, ours)?;
    let mut used = BTreeSet::new();
    let mut at = 0;
    for &case in &chosen {
        let from = at;
        while pairs.get(at).is_some_and(|pair| pair.case == case) {
            at += 1;
        }
        if from < at {
            judge(&suite, case, &pairs[from..at], arguments, &mut totals, &mut used);
        }
    }
    if arguments.everything() {
        let features = (kafka.features()?, ours.features()?);
        inventory(&suite, &theirs, &mine, &features, &mut totals);
        for (index, allowed) in suite.allowed.iter().enumerate().filter(|(index, _)| !used.contains(index)) {
            totals.failures.push(format!(
                "allowed difference {index} does not occur any more, take it out of the list: {} {} ({})",
                allowed.case, allowed.path, allowed.reason
            ));
        }
    }
    Ok(report(&suite, &totals, &used, begun))
}

/// Which case in which version.
fn plan(
    suite: &Suite,
    chosen: &[usize],
    mine: &BTreeMap<i16, (i16, i16)>,
    totals: &mut Totals,
) -> Vec<(usize, i16)> {
    let mut plan = Vec::new();
    for &index in chosen {
        let case = &suite.cases[index];
        match mine.get(&case.api) {
            None => totals.waiting += 1,
            Some(&(min, max)) => {
                // Versions that are advertised without a schema are asked for by `beyond`'s rule: refused.
                let min = min.max(super::api(case.api).request.versions.0);
                plan.extend(
                    (min..=max).filter(|version| case.versions.contains(version)).map(|v| (index, v)),
                );
            }
        }
    }
    plan
}

fn observe(
    suite: &Suite,
    plan: &[(usize, i16)],
    kafka: &mut Side,
    ours: &mut Side,
) -> Result<Vec<Pair>, String> {
    let one = |side: &mut Side| {
        let ready = side.run(&suite.setup, 0);
        if let Some(trouble) = ready.trouble {
            return Err(format!("set-up: {trouble}"));
        }
        let timed = |&(case, version): &(usize, i16)| {
            let begun = Instant::now();
            let seen = side.run(&suite.cases[case], version);
            if begun.elapsed() > SLOW {
                tell!(
                    stderr,
                    "{} v{version} takes {:.1?}: {}",
                    suite.cases[case].name,
                    begun.elapsed(),
                    seen.told()
                );
            }
            (seen, begun.elapsed())
        };
        Ok(plan.iter().map(timed).collect::<Vec<_>>())
    };
    let (theirs, mine) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| one(kafka));
        let mine = one(ours);
        (theirs.join(), mine)
    });
    let theirs = theirs.map_err(|_| "asking Apache Kafka panicked".to_owned())?;
    let (theirs, mine) = (
        theirs.map_err(|error| format!("Apache Kafka: {error}"))?,
        mine.map_err(|error| format!("broker-lite: {error}"))?,
    );
    let both = plan.iter().zip(theirs.into_iter().zip(mine));
    Ok(both
        .map(|(&(case, version), ((kafka, theirs), (ours, mine)))| Pair {
            case,
            version,
            kafka,
            ours,
            took: [theirs, mine],
        })
        .collect())
}

/// Compares what both sides have said to one case in all its versions.
fn judge(
    suite: &Suite,
    case: usize,
    pairs: &[Pair],
    arguments: &Arguments,
    totals: &mut Totals,
    used: &mut BTreeSet<usize>,
) {
    let name = &suite.cases[case].name;
    // The same difference is told once, with its versions.
    let mut found: BTreeMap<(String, String, String), Vec<i16>> = BTreeMap::new();
    let mut fields = 0;
    for pair in pairs {
        for (side, seen) in [("Kafka", &pair.kafka), ("broker-lite", &pair.ours)] {
            if let Some(trouble) = &seen.trouble {
                let told = (format!("{side} cannot be asked"), trouble.clone(), String::new());
                found.entry(told).or_default().push(pair.version);
            }
        }
        for ((label, kafka), (_, ours)) in pair.kafka.answers.iter().zip(&pair.ours.answers) {
            if arguments.verbose {
                tell!(
                    stdout,
                    "{name} v{}\n    Kafka: {label} {kafka}\n    ours:  {label} {ours}",
                    pair.version
                );
            }
            totals.answers += 1;
            fields += kafka.leaves();
            for difference in differences(label, kafka, ours) {
                let allowed =
                    |(_, allowed): &(usize, &Allowed)| allowed.covers(name, pair.version, &difference);
                let covering: Vec<_> = suite.allowed.iter().enumerate().filter(allowed).collect();
                used.extend(covering.iter().map(|(index, _)| *index));
                if !covering.is_empty() {
                    continue;
                }
                let Difference { path, kafka, ours } = difference;
                found.entry((path, kafka, ours)).or_default().push(pair.version);
            }
        }
    }
    let seconds = |side: usize| pairs.iter().map(|pair| pair.took[side]).sum::<Duration>().as_secs_f64();
    let took = format!("{:.2}s and {:.2}s", seconds(0), seconds(1));
    totals.runs += pairs.len();
    totals.fields += fields;
    if found.is_empty() {
        totals.passed += 1;
        tell!(stdout, "test {name} ... ok <{} versions, {fields} fields, {took}>", pairs.len());
        return;
    }
    tell!(stdout, "test {name} ... FAILED <{took}>");
    let mut told = format!("{name}:");
    let most = if arguments.everything() { MOST_TOLD } else { usize::MAX };
    let rest = found.len().saturating_sub(most);
    for ((path, kafka, ours), versions) in found.into_iter().take(most) {
        told.push_str(&format!(
            "\n      v{}  {path}\n          Kafka: {}\n          ours:  {}",
            ranges(&versions),
            short(&kafka),
            short(&ours)
        ));
    }
    if rest > 0 {
        told.push_str(&format!("\n      and {rest} more: run this case alone to see them"));
    }
    totals.failures.push(told);
}

/// What is advertised by whom, and which features.
fn inventory(
    suite: &Suite,
    theirs: &BTreeMap<i16, (i16, i16)>,
    mine: &BTreeMap<i16, (i16, i16)>,
    features: &(BTreeMap<String, String>, BTreeMap<String, String>),
    totals: &mut Totals,
) {
    let name =
        |key: i16| super::apis().iter().find(|api| api.key == key).map_or("?", |api| api.name.as_str());
    tell!(stdout, "\nnot advertised by broker-lite:");
    for (key, (min, max)) in theirs {
        let reason = suite.not_advertised.iter().find(|(listed, _)| listed == key).map(|(_, reason)| *reason);
        match (mine.get(key), reason) {
            (None, Some(reason)) => tell!(stdout, "    {key:>3} {} {min}-{max}: {reason}", name(*key)),
            (None, None) => totals.failures.push(format!(
                "api {key} ({}) is advertised by Kafka only and not in the list of those that are missing",
                name(*key)
            )),
            (Some(mine), Some(reason)) if mine != &(*min, *max) => {
                tell!(
                    stdout,
                    "    {key:>3} {} {min}-{max}, but for {}-{}: {reason}",
                    name(*key),
                    mine.0,
                    mine.1
                );
            }
            (Some(_), Some(_)) => totals.failures.push(format!(
                "api {key} ({}) is advertised by now: take it out of the list of those that are missing",
                name(*key)
            )),
            (Some(mine), None) if mine != &(*min, *max) => totals.failures.push(format!(
                "api {key} ({}): Kafka advertises {min}-{max}, broker-lite {}-{}",
                name(*key),
                mine.0,
                mine.1
            )),
            (Some(_), None) => {
                let shown = |case: &Case| case.api == *key && !case.name.contains("/versions beyond");
                if !suite.cases.iter().any(shown) {
                    totals.failures.push(format!("api {key} ({}) is advertised and has no case", name(*key)));
                }
            }
        }
    }
    for key in mine.keys().filter(|key| !theirs.contains_key(key)) {
        totals.failures.push(format!("api {key} ({}) is advertised by broker-lite only", name(*key)));
    }
    tell!(stdout, "features that broker-lite tells otherwise:");
    let (theirs, mine) = features;
    let all: BTreeSet<_> = theirs.keys().chain(mine.keys()).collect();
    for feature in all {
        let (kafka, ours) = (theirs.get(feature), mine.get(feature));
        let reason =
            suite.other_features.iter().find(|(listed, _)| listed == feature).map(|(_, reason)| *reason);
        let told = |levels: Option<&String>| levels.map_or("none", |levels| levels.as_str()).to_owned();
        match (kafka == ours, reason) {
            (true, None) => {}
            (false, Some(reason)) => {
                tell!(stdout, "    {feature}: Kafka {}, broker-lite {}: {reason}", told(kafka), told(ours));
            }
            (false, None) => totals.failures.push(format!(
                "feature {feature}: Kafka {}, broker-lite {}",
                told(kafka),
                told(ours)
            )),
            (true, Some(_)) => {
                totals.failures.push(format!("feature {feature} is told alike by now: take it out"));
            }
        }
    }
}

fn report(suite: &Suite, totals: &Totals, used: &BTreeSet<usize>, begun: Instant) -> bool {
    tell!(stdout, "\nallowed differences:");
    for index in used {
        let Allowed { case, path, kafka, ours, reason, .. } = &suite.allowed[*index];
        tell!(stdout, "    {case}: {path}: Kafka {kafka}, broker-lite {ours}: {reason}");
    }
    if !totals.failures.is_empty() {
        tell!(stdout, "\nfailures:");
        totals.failures.iter().for_each(|failure| tell!(stdout, "    {failure}"));
        tell!(stdout, "    one case again: cargo test -p klamm-tests --test fidelity -- --exact 'NAME'");
    }
    tell!(
        stdout,
        "\nfidelity to Apache Kafka 4.3.0: {} cases x versions, {} answers, {} fields compared; \
         {} allowed differences; {} cases wait for their api",
        totals.runs,
        totals.answers,
        totals.fields,
        used.len(),
        totals.waiting
    );
    let failed = totals.failures.len();
    tell!(
        stdout,
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        totals.passed,
        suite.cases.len() - totals.passed - failed.min(suite.cases.len() - totals.passed),
        begun.elapsed().as_secs_f64(),
    );
    failed == 0
}

/// `3-5,7` for 3, 4, 5 and 7.
fn ranges(versions: &[i16]) -> String {
    let mut out = String::new();
    let mut rest = versions;
    while let Some(&first) = rest.first() {
        let run = rest.iter().zip(first..).take_while(|(version, wanted)| *version == wanted).count();
        let last = first + run as i16 - 1;
        let told = if run == 1 { first.to_string() } else { format!("{first}-{last}") };
        out.push_str(&format!("{}{told}", if out.is_empty() { "" } else { "," }));
        rest = &rest[run..];
    }
    out
}

/// Long values are cut in the report.
fn short(text: &str) -> String {
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}… ({} letters)", &text[..at], text.chars().count()),
        None => text.to_owned(),
    }
}
