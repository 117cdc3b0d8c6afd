//! A campaign: scenes that are played with crashes in them, and the count of it.
//!
//! A story is one play of a scene: it begins where the scene does, goes from crash to crash, each time on
//! from what the last one left, and ends when the peer was left alone. After every crash all of it is held
//! against what may never be; whatever that finds is a violation, none of which is forgiven.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::scene::{LOOPING, MAX_ATTEMPTS, Scene};
use super::site::{Death, Extra, Life, Site};

/// How long a peer that is done is watched before it is killed once more: what it left stays left.
const AFTERWARDS: Duration = Duration::from_millis(60);

/// What a campaign counted.
#[derive(Debug, Default)]
pub struct Tally {
    kills: AtomicU64,
    at_steps: AtomicU64,
    recoveries: AtomicU64,
    deaths: Mutex<BTreeMap<(Scene, String), u64>>,
    violations: Mutex<Vec<String>>,
}

impl Tally {
    /// Crashes so far.
    pub fn kills(&self) -> u64 {
        self.kills.load(Ordering::Relaxed)
    }

    /// Of those, how many came right after a step.
    pub fn at_steps(&self) -> u64 {
        self.at_steps.load(Ordering::Relaxed)
    }

    /// Stories that came to their end.
    pub fn recoveries(&self) -> u64 {
        self.recoveries.load(Ordering::Relaxed)
    }

    /// By scene and journal state, how often a peer was dead there.
    ///
    /// # Panics
    /// After a panic.
    pub fn deaths(&self) -> BTreeMap<(Scene, String), u64> {
        self.deaths.lock().expect("no panic").clone()
    }

    /// Everything that may never be and was.
    ///
    /// # Panics
    /// After a panic.
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().expect("no panic").clone()
    }
}

/// One play of a scene.
#[derive(Debug)]
pub struct Story<'a> {
    site: &'a Site,
    scene: Scene,
    tally: &'a Tally,
    /// What happened so far, for people.
    crashes: Vec<String>,
    /// The attempt that the journal named last, and its starts.
    attempts: (String, u32),
}

impl<'a> Story<'a> {
    /// Begins where the scene does.
    pub fn begin(site: &'a Site, scene: Scene, tally: &'a Tally) -> Self {
        site.restore(scene);
        Self::go_on(site, scene, tally, "")
    }

    /// Goes on from what is there; `what` says how that came about.
    pub fn go_on(site: &'a Site, scene: Scene, tally: &'a Tally, what: &str) -> Self {
        let crashes = if what.is_empty() { Vec::new() } else { vec![what.to_owned()] };
        Self { site, scene, tally, crashes, attempts: (String::new(), 0) }
    }

    /// Lets the peer live until `death`, and looks at what is left.
    pub fn crash(&mut self, death: Death) -> Life {
        let begun = self.site.begun(LOOPING);
        let life = self.site.run(self.scene, death, &Extra::default());
        let by_release = self.site.begun(LOOPING) > begun;
        self.crashes.push(if by_release { "killed by its release".to_owned() } else { format!("{death:?}") });
        // Whoever had come to the end was not killed at its work.
        if life == Life::Killed {
            self.tally.kills.fetch_add(1, Ordering::Relaxed);
            if !by_release && matches!(death, Death::AtStep(_)) {
                self.tally.at_steps.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.look();
        life
    }

    /// Looks at what is left.
    fn look(&mut self) {
        let mut found = self.site.inspect(self.scene);
        if found.attempts.0 == self.attempts.0 && found.attempts.1 < self.attempts.1 {
            found.violations.push(format!("{:?} attempts were written down, now {:?}", self.attempts, found.attempts));
        }
        self.attempts = found.attempts;
        *self.tally.deaths.lock().expect("no panic").entry((self.scene, found.journal)).or_default() += 1;
        let story = format!("{:?}, {}", self.scene, self.crashes.join(", "));
        let told = found.violations.into_iter().map(|violation| format!("{story}: {violation}"));
        self.tally.violations.lock().expect("no panic").extend(told);
    }

    /// The peer is left alone, and ends what it began.
    ///
    /// # Panics
    /// Where it does not.
    pub fn end(mut self) {
        let lives = if self.scene.kills_the_node() { MAX_ATTEMPTS } else { 0 };
        let mut ended = self.crash(Death::WhenDone);
        for _ in 0..lives {
            if ended == Life::Killed {
                ended = self.crash(Death::WhenDone);
            }
        }
        assert_eq!(ended, Life::Done, "{:?}, {}", self.scene, self.crashes.join(", "));
        self.tally.recoveries.fetch_add(1, Ordering::Relaxed);
        self.require_the_end();
        if self.scene.has_trial() {
            self.crash(Death::After(AFTERWARDS));
            self.require_the_end();
        }
    }

    /// The peer came to the end of the scene, and was killed there.
    pub fn ended(mut self) {
        self.look();
        self.tally.recoveries.fetch_add(1, Ordering::Relaxed);
        self.require_the_end();
    }

    /// All is as it must be at the end of the scene.
    fn require_the_end(&mut self) {
        let found = self.site.inspect(self.scene);
        let story = format!("{:?}, {}", self.scene, self.crashes.join(", "));
        let wrong = |what: String| self.tally.violations.lock().expect("no panic").push(format!("{story}: {what}"));
        if found.current.as_deref() != Some(self.scene.target()) {
            wrong(format!("in the end `current` leads to {:?}", found.current));
        }
        if found.quarantined.as_deref() != self.scene.quarantines() {
            wrong(format!("in the end {:?} is quarantined", found.quarantined));
        }
        if found.held.first().map(String::as_str) != self.scene.holds() {
            wrong(format!("in the end {:?} is held", found.held));
        }
    }
}

/// Every step of a scene is one at which a peer dies once and is started again. What is unpacked before a
/// trial is left to the scenes without. Returns how many steps there are.
///
/// # Panics
/// Where a peer does not go on.
pub fn sweep(site: &Site, scene: Scene, tally: &Tally) -> u64 {
    let first = if scene.has_trial() && scene.unpacks() { site.steps_until_unpacked(scene) } else { 1 };
    for step in first.. {
        let mut story = Story::begin(site, scene, tally);
        let life = story.crash(Death::AtStep(step));
        if life == Life::Done || site.begun(LOOPING) > 0 {
            return step - 1;
        }
        story.end();
    }
    unreachable!("a scene ends")
}
