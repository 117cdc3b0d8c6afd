//! From a number to a case, always the same one; and from a case that matters to a smaller one.

use std::collections::BTreeMap;

use crate::case::{Case, Round};
use crate::edit::{FAMILIES, Family};
use crate::repository::{Level, NOW, Published, Repository, SHAPES, Shape};
use crate::rng::Rng;
use crate::signer::{KINDS, KeyKind};

/// What the client goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Story {
    /// A client with nothing but the root.
    Fresh,
    /// A client that has the publication before.
    Update,
    /// The mirror goes back to old files, all or some of them.
    Replay,
    /// A root rotates keys between two publications, the edits come with the second.
    Rotation,
    /// Versions run far ahead, then keys are rotated and versions start again.
    Recovery,
    /// The same files again, later.
    Later,
}

pub(crate) const STORIES: [Story; 6] =
    [Story::Fresh, Story::Update, Story::Replay, Story::Rotation, Story::Recovery, Story::Later];

/// How a case is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) kind: KeyKind,
    pub(crate) shape: Shape,
    pub(crate) story: Story,
    pub(crate) seed: u64,
    pub(crate) edits: Vec<Edit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) family: Family,
    pub(crate) level: Level,
    pub(crate) seed: u64,
}

impl Recipe {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let kind = rng.pick(&KINDS);
        let shape = rng.pick(&SHAPES);
        let story = match rng.below(20) {
            0..=12 => Story::Fresh,
            13 | 14 => Story::Update,
            15 | 16 => Story::Replay,
            17 => Story::Rotation,
            18 => Story::Recovery,
            _ => Story::Later,
        };
        let count = match (story, rng.below(10)) {
            (Story::Replay | Story::Recovery, 0..=4) => 0,
            (_, 0) => 2,
            (_, 1) if rng.chance(30) => 0,
            _ => 1,
        };
        let edits = (0..count).map(|_| {
            let family = rng.pick(&FAMILIES);
            let level = rng.pick(family.levels());
            Edit { family, level, seed: rng.next() }
        });
        let edits = edits.collect();
        Self { kind, shape, story, seed, edits }
    }

    /// The family that the case is counted under.
    pub(crate) fn name(&self) -> String {
        match self.edits.first() {
            Some(edit) => format!("{:?}", edit.family),
            None => format!("{:?} alone", self.story),
        }
    }

    pub(crate) fn make(&self) -> Case {
        // Another stream than the one that drew the recipe, so that a smaller recipe stays itself.
        let mut rng = Rng::new(!self.seed);
        let base = Repository::new(self.shape, self.kind);
        match self.story {
            Story::Fresh => {
                let now = NOW + rng.pick(&[0, 0, 0, 0, 1]);
                let (published, paths) = self.publish(base);
                case(&published, vec![round(now, &published, &paths)])
            }
            Story::Update => {
                let before = base.clone().publish(|_, _| ());
                let mut next = base;
                next.advance(1);
                let (published, paths) = self.publish(next);
                case(&before, vec![round(NOW, &before, &[]), round(NOW + 60, &published, &paths)])
            }
            Story::Later => {
                let (published, paths) = self.publish(base);
                let later = rng.pick(&[60, 86_399, 86_400, 86_401, 7 * 86_400, 400 * 86_400]);
                case(&published, vec![round(NOW, &published, &paths), round(NOW + later, &published, &paths)])
            }
            Story::Replay => self.replay(&mut rng, base),
            Story::Rotation => {
                let before = base.clone().publish(|_, _| ());
                let mut next = base;
                let role = rng.pick(&["root", "timestamp", "snapshot", "targets"]);
                if rng.chance(70) {
                    next.advance(1);
                }
                rotate(&mut rng, &mut next, role);
                let (published, paths) = self.publish(next);
                case(&before, vec![round(NOW, &before, &paths), round(NOW + 60, &published, &paths)])
            }
            Story::Recovery => {
                let mut ahead = base.clone();
                ahead.advance(rng.pick(&[10, 1 << 32, u64::MAX / 2, u64::MAX]));
                let ahead = ahead.publish(|_, _| ());
                let mut next = base;
                next.advance(1);
                for role in ["timestamp", "snapshot", "targets"] {
                    if rng.chance(60) {
                        rotate(&mut rng, &mut next, role);
                    }
                }
                let (published, paths) = self.publish(next);
                case(&ahead, vec![round(NOW, &ahead, &[]), round(NOW + 60, &published, &paths)])
            }
        }
    }

    /// Three publications; the client sees the second, or the third, and then a mixture.
    fn replay(&self, rng: &mut Rng, base: Repository) -> Case {
        let mut publications = Vec::new();
        let mut repository = base;
        for _ in 0..2 {
            publications.push(repository.clone().publish(|_, _| ()));
            repository.advance(1);
        }
        let (last, paths) = self.publish(repository);
        publications.push(last);
        let seen = publications[1 + rng.below(2)].clone();
        let mut mixed = publications[rng.below(3)].clone();
        for (name, bytes) in &mut mixed.files {
            if rng.chance(40)
                && let Some(other) = publications[rng.below(3)].files.get(name)
            {
                bytes.clone_from(other);
            }
        }
        case(&seen, vec![round(NOW, &seen, &paths), round(NOW + 60, &mixed, &paths)])
    }

    fn publish(&self, mut repository: Repository) -> (Published, Vec<String>) {
        let published = repository.publish(|repository, level| {
            for edit in self.edits.iter().filter(|edit| edit.level == level) {
                edit.family.apply(&mut Rng::new(edit.seed), repository, level);
            }
        });
        let mut paths = repository.paths;
        paths.sort();
        paths.dedup();
        (published, paths)
    }

    /// Recipes with something left out, the smallest first.
    pub(crate) fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for index in 0..self.edits.len() {
            let mut fewer = self.clone();
            fewer.edits.remove(index);
            all.push(fewer);
        }
        if self.story != Story::Fresh {
            all.push(Self { story: Story::Fresh, ..self.clone() });
        }
        if self.shape != Shape::Plain {
            all.push(Self { shape: Shape::Plain, ..self.clone() });
        }
        all
    }
}

fn rotate(rng: &mut Rng, repository: &mut Repository, role: &str) {
    let old = match role {
        "root" => 0,
        "timestamp" => 3,
        "snapshot" => 5,
        _ => 7,
    };
    let new = old + 30;
    match rng.below(3) {
        0 => repository.rotate(role, &[], &[new]),
        _ => repository.rotate(role, &[old], &[new]),
    }
}

fn case(start: &Published, rounds: Vec<Round>) -> Case {
    Case { root: start.root.clone(), rounds }
}

fn round(now: i64, published: &Published, paths: &[String]) -> Round {
    let files: BTreeMap<String, Vec<u8>> = published.files.clone();
    Round { now, roots: published.roots.clone(), files, paths: paths.to_vec() }
}
