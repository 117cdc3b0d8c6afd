//! Threads and lines of real directories over a real database, in which tables go missing for a while.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::ManifestBuilder;
use updraft_protocol::names::{Channel, ReleaseId};
use updraft_protocol::release::{Content, Format, ManifestRef, Notes};

use super::*;
use crate::engine::effect::EventKind;
use crate::engine::install::{InstallState, Installed, Outcome, Way};

const DEADLINE: Duration = Duration::from_secs(30);

struct Bed {
    scratch: tempfile::TempDir,
    installs: Installs,
    done: mpsc::Receiver<Input>,
    opened: Opened,
}

impl Bed {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let product = "app".parse().expect("a name");
        let opened = Opened::create(&scratch.path().join("data"), &[product]).expect("a new repository");
        let (sender, done) = mpsc::channel(16);
        let installs = Installs::new(&opened, &sender, 2, &CancellationToken::new());
        Self { scratch, installs, done, opened }
    }

    fn directory(&self, name: &str) -> String {
        self.scratch.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    async fn step(&mut self, directory: &str, step: Step) {
        self.installs.queue(directory).send(step).await.expect("the thread runs");
    }

    async fn answer(&mut self) -> Input {
        tokio::time::timeout(DEADLINE, self.done.recv()).await.expect("in time").expect("the threads run")
    }

    /// Everything that was asked of `directory` is done.
    async fn settled(&mut self, directory: &str) {
        self.step(directory, Step::Install(check(directory))).await;
        assert!(matches!(self.answer().await, Input::Checked { .. }));
    }

    /// Takes a table away, or gives it back.
    fn rename(&self, from: &str, to: &str) {
        let database = Connection::open(self.opened.store.state_path()).expect("it is there");
        database.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}")).expect("nobody writes now");
    }

    fn history(&self) -> Vec<String> {
        let rows = self.opened.state.history(10, None).expect("readable");
        rows.into_iter().map(|row| row.row.detail).collect()
    }

    /// A release in the store that cannot be unpacked, should its turn come.
    fn release(&self) -> Release {
        let mut builder = ManifestBuilder::new();
        builder.update(b"no archive");
        let manifest = builder.finish().expect("not empty");
        self.opened.store.begin(&manifest).expect("room on the disk");
        let path = "releases/app/1.1.0/any/app.tar.zst".to_owned();
        let (id, file_name) = ReleaseId::from_path(&path).expect("a release path");
        Release {
            id,
            file_name,
            path,
            artifact: *manifest.artifact(),
            length: manifest.length(),
            format: Format::TarZst,
            content: Content { sha256: Digest::of(b"content"), length: 100, entries: 3 },
            manifest: ManifestRef { sha256: Digest::of(b"manifest"), length: 64 },
            channels: [Channel::stable()].into(),
            min_from: None,
            notes: Notes::None,
            critical: false,
        }
    }
}

fn check(directory: &str) -> InstallEffect {
    InstallEffect::Check {
        directory: directory.to_owned(),
        transaction: "check".to_owned(),
        number: 1,
        check: Check::Command(vec!["true".to_owned()]),
        timeout_ms: 20_000,
        subject: Subject {
            product: "app".parse().expect("a name"),
            version: "1.0.0".parse().expect("a version"),
            previous: None,
        },
    }
}

fn installed(version: &str) -> Installed {
    Installed {
        version: version.parse().expect("a version"),
        artifact: Digest::of(version.as_bytes()),
        release_dir: version.to_owned(),
    }
}

fn line(directory: &str, state: InstallState, outcome: Option<Outcome>) -> Step {
    Step::Journal(Box::new(JournalEntry {
        directory: directory.to_owned(),
        product: "app".parse().expect("a name"),
        state,
        transaction: "one".to_owned(),
        from: None,
        to: Some(installed("1.0.0")),
        attempts: 0,
        way: Way::Forward,
        remaining_ms: None,
        reason: None,
        outcome,
    }))
}

fn committed(text: &str) -> Outcome {
    Outcome {
        installed: Some((installed("1.0.0"), None)),
        quarantine: None,
        kind: EventKind::Installed,
        version: "1.0.0".parse().expect("a version"),
        text: text.to_owned(),
    }
}

fn switch(directory: &str) -> Step {
    Step::Install(InstallEffect::Switch {
        directory: directory.to_owned(),
        transaction: "one".to_owned(),
        release_dir: "missing".to_owned(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_step_is_taken_before_its_line_and_the_line_is_written_once_it_can_be() {
    let mut bed = Bed::new();
    let directory = bed.directory("app");
    bed.rename("installs", "elsewhere");
    bed.step(&directory, line(&directory, InstallState::Armed, None)).await;
    bed.step(&directory, switch(&directory)).await;
    let Input::Switched { result: Err(failure), .. } = bed.answer().await else { panic!("not refused") };
    assert!(failure.fault == Fault::Place && failure.reason.contains("journal"), "{failure:?}");
    bed.rename("elsewhere", "installs");
    // Whoever asks again needs no new line.
    bed.step(&directory, switch(&directory)).await;
    let Input::Switched { result: Err(failure), .. } = bed.answer().await else { panic!("there is nothing there") };
    assert!(!failure.reason.contains("journal"), "{failure:?}");
    let row = bed.opened.state.install(std::path::Path::new(&directory)).expect("readable").expect("written");
    assert_eq!(row.state, InstallState::Armed.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_an_install_ended_is_written_late_rather_than_never() {
    let mut bed = Bed::new();
    let directory = bed.directory("app");
    bed.rename("installs", "elsewhere");
    bed.step(&directory, line(&directory, InstallState::Switched, None)).await;
    bed.step(&directory, line(&directory, InstallState::Committed, Some(committed("1.0.0 is installed")))).await;
    bed.step(&directory, line(&directory, InstallState::Fetching, None)).await;
    bed.settled(&directory).await;
    assert_eq!(bed.history(), Vec::<String>::new());
    bed.rename("elsewhere", "installs");
    bed.settled(&directory).await;
    assert_eq!(bed.history(), ["1.0.0 is installed"]);
    let at = std::path::Path::new(&directory);
    let row = bed.opened.state.installed(at).expect("readable").expect("written");
    assert_eq!(row.release.version.to_string(), "1.0.0");
    let row = bed.opened.state.install(at).expect("readable").expect("written");
    assert_eq!(row.state, InstallState::Fetching.as_str(), "the last line is the one that counts");
    bed.settled(&directory).await;
    assert_eq!(bed.history().len(), 1, "once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_hold_waits_until_it_is_written() {
    let mut bed = Bed::new();
    let directory = bed.directory("app");
    let hold = Hold {
        directory: directory.clone(),
        product: "app".parse().expect("a name"),
        version: None,
        reason: Some("an operator went back".to_owned()),
    };
    let (told, written) = oneshot::channel();
    bed.rename("holds", "elsewhere");
    bed.step(&directory, Step::Held(hold.clone(), written)).await;
    bed.step(&directory, switch(&directory)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(bed.done.try_recv().is_err(), "nothing is begun before it is known whether the hold is on disk");
    told.send(hold.write(&bed.opened).map_err(|error| error.to_string())).expect("somebody waits");
    let Input::Switched { result: Err(failure), .. } = bed.answer().await else { panic!("not refused") };
    assert!(failure.reason.contains("holds"), "{failure:?}");
    bed.rename("elsewhere", "holds");
    bed.settled(&directory).await;
    let rows = bed.opened.state.holds(std::path::Path::new(&directory), &hold.product).expect("readable");
    assert_eq!(rows, [(None, "an operator went back".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_directory_unpacks_at_a_time_and_holds_up_no_other_ones_health() {
    let mut bed = Bed::new();
    let (busy, ill) = (bed.directory("busy"), bed.directory("ill"));
    let release = Arc::new(bed.release());
    let unpacking = bed.installs.unpacking.clone().try_acquire_owned().expect("nobody unpacks yet");
    let stage = InstallEffect::Stage {
        directory: busy.clone(),
        transaction: "one".to_owned(),
        release,
        release_dir: "1.1.0".to_owned(),
    };
    bed.step(&busy, Step::Install(stage)).await;
    bed.settled(&ill).await;
    // Given up, it does not wait for its turn any more.
    let asked = Instant::now();
    bed.installs.abandon(&busy, "one");
    let Input::Staged { result: Err(failure), .. } = bed.answer().await else { panic!("not given up") };
    assert!(failure.fault == Fault::Moment && asked.elapsed() < DEADLINE, "{failure:?}");
    drop(unpacking);
}
