//! The differential oracle: our verifier and `sigstore-tuf` judge the same mutated repositories, and must
//! agree but for the classes of difference that `tests/vectors/oracle` pins and
//! `docs/decisions/0016-differential-oracle.md` explains.
//!
//! A case follows from its number alone. A failure names the number and shows the case made small;
//! `ORACLE_CASES=NUMBER,NUMBER cargo test -p updraft-protocol --test oracle chosen -- --ignored --nocapture`
//! shows chosen ones as they are.

mod case;
mod classes;
mod edit;
mod evidence;
mod node;
mod ours;
mod recipe;
mod repository;
mod rng;
mod shrink;
mod signature;
mod signer;
mod theirs;
mod vector;
mod verdict;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use case::Case;
use classes::{CLASSES, Class};
use evidence::Evidence;
use recipe::{Recipe, STORIES, Story};
use vector::Vector;
use verdict::{Difference, Verdict};

/// Cases of one run.
const CASES: u64 = 101_000;

/// Cases that a thread takes at a time.
const BATCH: u64 = 500;

/// What the two made of a case.
struct Judged {
    ours: Vec<Verdict>,
    difference: Option<Difference>,
    class: Option<&'static Class>,
}

fn judge(case: &Case) -> Judged {
    let (ours, theirs) = (ours::judge(case), theirs::judge(case));
    let paths: Vec<&[String]> = case.rounds.iter().map(|round| round.paths.as_slice()).collect();
    let difference = verdict::first_difference(&ours, &theirs, &paths);
    let class = difference
        .as_ref()
        .and_then(|difference| classes::of(&Evidence { case, difference, ours: &ours, theirs: &theirs }));
    Judged { ours, difference, class }
}

/// What came of many cases.
#[derive(Debug, Default)]
struct Tally {
    cases: u64,
    accepted: u64,
    /// By family: cases, accepted by us, judged differently.
    families: BTreeMap<String, [u64; 3]>,
    /// By class: cases, and the first of them.
    classes: BTreeMap<&'static str, (u64, u64)>,
    unexplained: Vec<u64>,
}

impl Tally {
    fn add(&mut self, seed: u64, recipe: &Recipe, judged: &Judged) {
        let is_accepted = judged.ours.iter().all(Verdict::is_accepted);
        let family = self.families.entry(recipe.name()).or_default();
        self.cases += 1;
        self.accepted += u64::from(is_accepted);
        family[0] += 1;
        family[1] += u64::from(is_accepted);
        family[2] += u64::from(judged.difference.is_some());
        match (&judged.difference, judged.class) {
            (Some(_), Some(class)) => self.classes.entry(class.name).or_insert((0, seed)).0 += 1,
            (Some(_), None) => self.unexplained.push(seed),
            (None, _) => {}
        }
    }

    fn merge(&mut self, other: Self) {
        self.cases += other.cases;
        self.accepted += other.accepted;
        for (name, counts) in other.families {
            let family = self.families.entry(name).or_default();
            for (sum, count) in family.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        for (name, (count, seed)) in other.classes {
            let class = self.classes.entry(name).or_insert((0, seed));
            *class = (class.0 + count, class.1.min(seed));
        }
        self.unexplained.extend(other.unexplained);
    }
}

/// Judges the cases of these numbers, on every core.
fn run(cases: u64) -> Tally {
    let next = AtomicU64::new(0);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let from = next.fetch_add(BATCH, Ordering::Relaxed);
            for seed in from..(from + BATCH).min(cases) {
                let recipe = Recipe::draw(seed);
                tally.add(seed, &recipe, &judge(&recipe.make()));
            }
            if from + BATCH >= cases {
                return tally;
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut tally = Tally::default();
        for worker in workers {
            tally.merge(worker.join().expect("a worker ends without panicking"));
        }
        tally
    })
}

/// A disagreement that no class explains, as small as it gets.
fn explain(seed: u64) -> String {
    let unexplained = |case: &Case| {
        let judged = judge(case);
        judged.difference.is_some() && judged.class.is_none()
    };
    let (recipe, case) = shrink::shrink(&Recipe::draw(seed), unexplained);
    let difference = judge(&case).difference;
    let case = serde_json::to_string_pretty(&case.to_json()).unwrap_or_default();
    format!("case {seed}\n{recipe:?}\n{difference:#?}\n{case}")
}

#[test]
fn two_verifiers_agree_on_a_hundred_thousand_mutated_repositories() {
    let mut tally = run(CASES);
    report(&tally);
    tally.unexplained.sort_unstable();
    let shown: Vec<String> = tally.unexplained.iter().take(3).map(|seed| explain(*seed)).collect();
    let numbers = &tally.unexplained[..tally.unexplained.len().min(50)];
    assert!(
        shown.is_empty(),
        "no class explains {} cases {numbers:?}; some of them:\n{}",
        tally.unexplained.len(),
        shown.join("\n")
    );
    assert!(tally.cases >= 100_000, "only {} cases were judged", tally.cases);
    for class in CLASSES {
        assert!(tally.classes.contains_key(class.name), "no case shows '{}' any more: remove the class", class.name);
    }
    // A generator that only makes rubbish, or that spoils nothing, tests nothing.
    assert!((tally.cases / 10..tally.cases * 6 / 10).contains(&tally.accepted), "{} accepted", tally.accepted);
    for family in edit::FAMILIES {
        assert!(tally.families.contains_key(&format!("{family:?}")), "{family:?} was never drawn");
    }
}

#[expect(clippy::print_stdout, reason = "the figures of a run, seen with --nocapture")]
fn report(tally: &Tally) {
    println!(
        "{} cases, {} accepted, {} judged differently",
        tally.cases,
        tally.accepted,
        tally.classes.values().map(|(count, _)| count).sum::<u64>() + tally.unexplained.len() as u64
    );
    for (name, [cases, accepted, different]) in &tally.families {
        println!("family {name}: {cases} cases, {accepted} accepted, {different} judged differently");
    }
    for (name, (count, first)) in &tally.classes {
        println!("class {name}: {count} cases, first {first}");
    }
    println!("unexplained: {}", tally.unexplained.len());
}

#[test]
fn an_unspoiled_repository_is_accepted_by_both_in_every_shape_and_story() {
    for kind in signer::KINDS {
        for shape in repository::SHAPES {
            for story in
                STORIES.into_iter().filter(|story| matches!(story, Story::Fresh | Story::Update | Story::Rotation))
            {
                for seed in 0..8 {
                    let case = Recipe { kind, shape, story, seed, edits: Vec::new() }.make();
                    let judged = judge(&case);
                    assert_eq!(judged.difference, None, "{shape:?} {story:?} {seed}");
                    assert!(
                        judged.ours.iter().all(Verdict::is_accepted),
                        "{shape:?} {story:?} {seed}: {:?}",
                        judged.ours
                    );
                    let found = |verdict: &Verdict| {
                        verdict.targets.iter().any(|found| matches!(found, verdict::Found::Target { .. }))
                    };
                    assert!(judged.ours.iter().any(found), "{shape:?} {story:?}: no target is found");
                }
            }
        }
    }
}

#[test]
fn a_case_follows_from_its_number() {
    for seed in 0..200 {
        assert_eq!(Recipe::draw(seed).make(), Recipe::draw(seed).make(), "{seed}");
    }
}

#[test]
fn every_class_of_disagreement_still_shows_in_its_vector() {
    for class in CLASSES {
        let Vector { text, case } = Vector::read(class).unwrap_or_else(|reason| panic!("{reason}"));
        let judged = judge(&case);
        let difference = judged.difference.unwrap_or_else(|| panic!("'{}' is no disagreement any more", class.name));
        assert_eq!(judged.class.map(|class| class.name), Some(class.name));
        assert_eq!(
            vector::text(class, &case, &difference),
            text,
            "'{}' is judged in other words than pinned",
            class.name
        );
    }
}

#[test]
fn every_vector_belongs_to_a_class() {
    let files = fs::read_dir(vector::directory()).expect("the vectors are there");
    let names: Vec<String> = files
        .map(|file| file.expect("readable").file_name().to_string_lossy().into_owned())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect();
    for name in &names {
        assert!(CLASSES.iter().any(|class| class.name == name), "no class is called '{name}'");
    }
    assert_eq!(names.len(), CLASSES.len());
}

#[test]
#[ignore = "shows the cases whose numbers ORACLE_CASES lists when this is compiled"]
#[expect(clippy::print_stdout, reason = "it is there to be read")]
fn chosen_cases() {
    for seed in option_env!("ORACLE_CASES").unwrap_or_default().split(',').filter_map(|number| number.parse().ok()) {
        let recipe = Recipe::draw(seed);
        let Judged { difference, class, .. } = judge(&recipe.make());
        let class = class.map_or("none", |class| class.name);
        println!("case {seed}, class {class}\n{recipe:?}\n{difference:?}");
    }
}

/// Writes the vectors: those that still show their class with the words of today, and a new one for each
/// class without. Run it after a class was added or words have changed, and read what changed.
#[test]
#[ignore = "writes tests/vectors/oracle"]
fn write_vectors() {
    let shows = |class: &Class, case: &Case| judge(case).class.is_some_and(|found| found.name == class.name);
    let mut cases: BTreeMap<&str, Vec<Case>> = BTreeMap::new();
    for class in CLASSES {
        let known = Vector::read(class).ok().map(|vector| vector.case).filter(|case| shows(class, case));
        cases.insert(class.name, known.map_or_else(Vec::new, |case| vec![case; 3]));
    }
    for seed in 0..CASES {
        if cases.values().all(|found| found.len() >= 3) {
            break;
        }
        let recipe = Recipe::draw(seed);
        let Some(class) = judge(&recipe.make()).class else { continue };
        let found = cases.entry(class.name).or_default();
        if found.len() < 3 {
            found.push(shrink::shrink(&recipe, |case| shows(class, case)).1);
        }
    }
    fs::create_dir_all(vector::directory()).expect("a directory can be made");
    for class in CLASSES {
        let smallest = cases[class.name].iter().min_by_key(|case| case.to_json().to_string().len());
        let case = smallest.unwrap_or_else(|| panic!("no case shows '{}'", class.name));
        let difference = judge(case).difference.expect("it shows its class");
        let path = vector::directory().join(format!("{}.json", class.name));
        fs::write(path, vector::text(class, case, &difference)).expect("a vector can be written");
    }
}
