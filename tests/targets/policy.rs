//! What may be installed, when, and why not yet; and what an operator may change about it. Pure: signed
//! sets and times in, decisions out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use semver::Version;
use updraft::engine::catalog::CatalogView;
use updraft::engine::clock::build_date;
use updraft::engine::effect::{Effect, InstallEffect, SwarmEffect};
use updraft::engine::input::{Input, Now, SwarmInput};
use updraft::engine::install::{
    Check, Health, InstallState, Installed, JournalEntry, Recovered, SubscriptionSpec, Trial, Way,
};
use updraft::engine::limits::{Window, Zone};
use updraft::engine::maintenance::{Maintenance, OwnWindows};
use updraft::engine::memory::Memory;
use updraft::engine::outcomes::halt::Builds;
use updraft::engine::outcomes::{OutcomeEffect, Remembered};
use updraft::engine::plan::{Decision, Facts, Gate, GateName, Verdict, plan};
use updraft::engine::policy::{Change, Changed, Refused, Setting, Settings, apply};
use updraft::engine::{Engine, EngineConfig, MetadataReader, Restored, TargetReader};
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::head::Contradiction;
use updraft_protocol::key::SigningKey;
use updraft_protocol::limits::MAX_YANKED;
use updraft_protocol::meta::MetaFile;
use updraft_protocol::names::{Channel, Platform, Product, ReleaseId};
use updraft_protocol::outcome::{Outcome, Report, fitting};
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::{Content, Format, ManifestRef, Notes, Release};
use updraft_protocol::rollout::{ChannelPolicy, Halt, Rollout, Stage};
use updraft_protocol::time::UtcTime;
use updraft_protocol::transfer::{Control, Hello};
use updraft_protocol::tuf::RoleName;
use updraft_tests::holder::Holder;
use updraft_tests::repository::TestRepository;

fn at(seconds: i64) -> UtcTime {
    build_date().plus_days(100).plus_seconds(seconds)
}

fn app() -> Product {
    "app".parse().expect("a name")
}

fn version(text: &str) -> Version {
    text.parse().expect("a version")
}

fn release(number: &str, min_from: Option<&str>, channels: &[&str]) -> Release {
    let id = ReleaseId { product: app(), version: version(number), platform: Platform::any() };
    let file_name = format!("app-{number}.bin").parse().expect("a file name");
    let artifact = Digest::of(number.as_bytes());
    Release {
        path: id.path(&file_name),
        file_name,
        artifact,
        length: 1_000,
        format: Format::File,
        content: Content { sha256: artifact, length: 1_000, entries: 1 },
        manifest: ManifestRef { sha256: artifact, length: 100 },
        channels: channels.iter().map(|channel| channel.parse().expect("a name")).collect(),
        min_from: min_from.map(version),
        notes: Notes::None,
        critical: false,
        id,
    }
}

/// A signed set with these releases, and this policy for `stable`.
fn view_of(releases: Vec<Release>, policy: ChannelPolicy) -> CatalogView {
    let repository = TestRepository::new(at(0));
    let signed = Holder::of(&repository).sign(at(0), at(0));
    let mut view = CatalogView::new(&signed.trusted, &BTreeMap::new());
    view.releases = releases.into_iter().map(Arc::new).collect();
    view.releases.sort_by(|a, b| a.id.version.cmp(&b.id.version));
    view.channels.insert((app(), Channel::stable()), Arc::new(policy));
    view
}

/// The set of the channel tests: three versions for `stable`, the newest for `beta` only.
fn view(policy: ChannelPolicy) -> CatalogView {
    let releases = vec![
        release("1.0.0", None, &["stable"]),
        release("1.1.0", None, &["stable", "beta"]),
        release("1.2.0", None, &["stable"]),
        release("1.3.0", None, &["beta"]),
    ];
    view_of(releases, policy)
}

fn pointing_to(number: &str) -> ChannelPolicy {
    ChannelPolicy::pointing_to(version(number))
}

struct Node<'a> {
    installed: Option<&'a str>,
    id: &'a [u8],
    quarantine: BTreeMap<Digest, String>,
    hurry: Option<Digest>,
    windows: OwnWindows,
}

impl Default for Node<'_> {
    fn default() -> Self {
        let (quarantine, windows) = (BTreeMap::new(), OwnWindows::default());
        Self { installed: Some("1.0.0"), id: b"node", quarantine, hurry: None, windows }
    }
}

fn decide(view: &CatalogView, node: &Node<'_>, now: UtcTime) -> Decision {
    let (product, channel, platform) = (app(), Channel::stable(), Platform::any());
    let installed = node.installed.map(version);
    let facts = Facts {
        product: &product,
        channel: &channel,
        platform: &platform,
        installed: installed.as_ref(),
        node_id: Some(node.id),
        quarantine: Some(&node.quarantine),
        hurry: node.hurry.as_ref(),
        holds: None,
        disk: None,
        window: Some(&node.windows),
    };
    plan(view, &facts, now)
}

fn gate(decision: &Decision, name: GateName) -> &Gate {
    decision.gates.iter().find(|gate| gate.name == name).unwrap_or_else(|| panic!("no {name:?}: {decision:#?}"))
}

fn offered(decision: &Decision) -> Option<String> {
    decision.offered.as_ref().map(|release| release.id.version.to_string())
}

// ---- stepping stones ----------------------------------------------------------------------------

#[test]
fn a_node_that_is_too_old_steps_to_the_newest_release_that_leads_on() {
    let releases = vec![
        release("1.0.0", None, &["stable"]),
        release("1.5.0", None, &["stable"]),
        release("2.0.0", Some("1.5.0"), &["stable"]),
        release("2.1.0", Some("2.0.0"), &["stable"]),
        release("3.0.0", Some("2.0.0"), &["stable"]),
    ];
    let view = view_of(releases, pointing_to("3.0.0"));
    let mut installed = "1.0.0".to_owned();
    let mut path = Vec::new();
    while installed != "3.0.0" {
        let decision = decide(&view, &Node { installed: Some(&installed), ..Node::default() }, at(5));
        assert_eq!(decision.verdict, Verdict::Install, "{decision:#?}");
        let reason = &gate(&decision, GateName::MinFrom).reason;
        installed = offered(&decision).expect("offered");
        assert!(installed == "3.0.0" || reason.contains(&format!("{installed} comes first")), "{reason}");
        path.push(installed.clone());
    }
    assert_eq!(path, ["1.5.0", "2.0.0", "3.0.0"]);
}

#[test]
fn where_nothing_leads_there_the_gate_says_so() {
    let releases = vec![release("1.5.0", Some("1.2.0"), &["stable"]), release("3.0.0", Some("2.0.0"), &["stable"])];
    let decision = decide(&view_of(releases, pointing_to("3.0.0")), &Node::default(), at(5));
    assert_eq!((decision.verdict, offered(&decision).as_deref()), (Verdict::Blocked, Some("3.0.0")));
    assert!(gate(&decision, GateName::MinFrom).reason.contains("nothing here leads there from 1.0.0"));
}

#[test]
fn a_stepping_stone_must_be_one_that_the_node_may_have() {
    let releases = || {
        vec![
            release("1.4.0", None, &["stable"]),
            release("1.5.0", None, &["beta"]),
            release("1.6.0", None, &["stable"]),
            release("2.0.0", Some("1.4.0"), &["stable"]),
        ]
    };
    let policy = ChannelPolicy { yanked: BTreeSet::from([version("1.6.0")]), ..pointing_to("2.0.0") };
    let mut view = view_of(releases(), policy);
    assert_eq!(offered(&decide(&view, &Node::default(), at(5))).as_deref(), Some("1.4.0"), "yanked, and for beta");
    let quarantine = BTreeMap::from([(Digest::of(b"1.4.0"), "it crashed".to_owned())]);
    let failed = decide(&view, &Node { quarantine, ..Node::default() }, at(5));
    assert_eq!(failed.verdict, Verdict::Blocked, "what failed here is no way on");
    view.floors.insert(app(), version("1.5.0"));
    assert_eq!(decide(&view, &Node::default(), at(5)).verdict, Verdict::Blocked, "below the floor");
}

// ---- what the machine and its operator say ------------------------------------------------------

#[test]
fn a_hold_and_a_place_without_room_keep_a_release_away_until_they_are_gone() {
    use updraft::engine::install::Holds;
    use updraft::engine::plan::Disk;

    let (product, channel, platform) = (app(), Channel::stable(), Platform::any());
    let (installed, windows) = (version("1.0.0"), OwnWindows::default());
    let view = view(pointing_to("1.2.0"));
    let artifact = Digest::of(b"1.2.0");
    let decide = |holds: &Holds, disk: Option<&Digest>| {
        let disk = disk.map(|artifact| Disk { artifact, reason: "there is no room", look_at: at(99) });
        let facts = Facts {
            product: &product,
            channel: &channel,
            platform: &platform,
            installed: Some(&installed),
            node_id: Some(b"node"),
            quarantine: None,
            hurry: Some(&artifact),
            holds: Some(holds),
            disk,
            window: Some(&windows),
        };
        plan(&view, &facts, at(5))
    };
    let mut holds = Holds::default();
    assert_eq!(decide(&holds, None).verdict, Verdict::Install);
    assert_eq!(decide(&holds, Some(&Digest::of(b"1.1.0"))).verdict, Verdict::Install, "that was about another release");
    let full = decide(&holds, Some(&artifact));
    assert_eq!((full.verdict, full.waits_for_the_disk()), (Verdict::Blocked, true));
    let closed = gate(&full, GateName::Disk);
    assert!(!closed.open && closed.reason.contains("there is no room"), "{}", closed.reason);
    assert_eq!(closed.opens_at, Some(at(99)));

    holds.add(Some(&version("1.1.0")), "it was slow");
    assert_eq!(decide(&holds, None).verdict, Verdict::Install, "that holds another release");
    holds.add(Some(&version("1.2.0")), "it was slow");
    let held = decide(&holds, Some(&artifact));
    assert_eq!(
        (held.verdict, held.waits_for_the_disk()),
        (Verdict::Blocked, false),
        "who is in a hurry lifts it first"
    );
    assert!(gate(&held, GateName::Hold).reason.contains("1.2.0 is held: it was slow"));
    holds.lift(None);
    holds.add(None, "fair week");
    assert!(gate(&decide(&holds, None), GateName::Hold).reason.contains("fair week"));
    holds.lift(None);
    assert_eq!(decide(&holds, None).verdict, Verdict::Install);
}

#[test]
fn what_was_yanked_on_another_channel_is_no_stepping_stone() {
    let releases = vec![
        release("1.4.0", None, &["stable"]),
        release("1.5.0", None, &["stable", "beta"]),
        release("2.0.0", Some("1.4.0"), &["stable"]),
    ];
    let mut view = view_of(releases, pointing_to("2.0.0"));
    assert_eq!(offered(&decide(&view, &Node::default(), at(5))).as_deref(), Some("1.5.0"));
    let bad = ChannelPolicy { yanked: BTreeSet::from([version("1.5.0")]), ..pointing_to("1.5.0") };
    view.channels.insert((app(), "beta".parse().expect("a name")), Arc::new(bad));
    assert_eq!(offered(&decide(&view, &Node::default(), at(5))).as_deref(), Some("1.4.0"));
}

#[test]
fn the_way_to_a_release_is_what_may_be_stepped_over_on_its_channel() {
    let followed = (app(), Channel::stable());
    let releases = vec![
        release("1.4.0", None, &["stable"]),
        release("1.5.0", None, &["beta"]),
        release("2.0.0", Some("1.4.0"), &["stable"]),
        release("2.1.0", None, &["stable"]),
    ];
    let view = view_of(releases, pointing_to("2.0.0"));
    let digest = |number: &str| Digest::of(number.as_bytes());
    let builds = Builds::of(&view, &followed, &version("2.0.0"));
    assert_eq!(builds.own, BTreeSet::from([digest("2.0.0")]));
    assert_eq!(builds.stones, BTreeMap::from([(digest("1.4.0"), BTreeSet::from([digest("2.0.0")]))]));
    let straight = Builds::of(&view, &followed, &version("2.1.0"));
    assert!(straight.stones.is_empty(), "it installs over anything: nobody steps there");
}

#[test]
fn nobody_steps_towards_a_release_whose_turn_has_not_come() {
    let releases = vec![release("1.5.0", None, &["stable"]), release("2.0.0", Some("1.5.0"), &["stable"])];
    let rollout = Rollout { start: at(0), stages: vec![Stage { percent: 0, at: at(0) }] };
    let view = view_of(releases, ChannelPolicy { rollout, ..pointing_to("2.0.0") });
    assert_eq!(decide(&view, &Node::default(), at(5)).blocked_by().map(|gate| gate.name), Some(GateName::Rollout));
}

proptest! {
    /// Whatever the stepping stones are: going to the newest that may be had arrives wherever any way does.
    #[test]
    fn the_newest_stepping_stone_is_never_a_dead_end(
        froms in prop::collection::vec(prop::option::of(0..12_u64), 1..12),
        start in 0..12_u64,
    ) {
        let number = |minor: u64| Version::new(1, minor, 0);
        // Release n needs at least release `from`, which is older than itself.
        let froms: Vec<(u64, Option<u64>)> =
            (0..).zip(froms).map(|(n, from)| (n, from.filter(|from| *from < n))).collect();
        let target = froms.len() as u64 - 1;
        let start = start.min(target);
        let releases = froms
            .iter()
            .map(|(n, from)| {
                let from = from.map(|from| number(from).to_string());
                release(&number(*n).to_string(), from.as_deref(), &["stable"])
            })
            .collect();
        let view = view_of(releases, ChannelPolicy::pointing_to(number(target)));
        // Everything that can be reached by any steps at all.
        let mut reached = BTreeSet::from([start]);
        for _ in 0..froms.len() {
            for (n, from) in &froms {
                if reached.iter().any(|at| at < n && from.is_none_or(|from| *at >= from)) {
                    reached.insert(*n);
                }
            }
        }
        let mut installed = start;
        for _ in 0..=froms.len() {
            let text = number(installed).to_string();
            let decision = decide(&view, &Node { installed: Some(&text), ..Node::default() }, at(5));
            if decision.verdict != Verdict::Install {
                break;
            }
            let next = decision.offered.expect("offered").id.version.minor;
            prop_assert!(next > installed);
            installed = next;
        }
        prop_assert_eq!(installed == target, reached.contains(&target));
    }

    /// Once a node's turn has come it stays; and a stage opens for its share of nodes.
    #[test]
    fn a_rollout_reaches_nodes_once_and_for_all(node in any::<[u8; 8]>(), percent in 0..=100_u8, later in 0..1_000_i64) {
        let stages = vec![Stage { percent, at: at(10) }, Stage { percent: 100, at: at(500) }];
        let view = view(ChannelPolicy { rollout: Rollout { start: at(10), stages }, ..pointing_to("1.2.0") });
        let node = Node { id: &node, ..Node::default() };
        let now = decide(&view, &node, at(20));
        let rollout = gate(&now, GateName::Rollout);
        if rollout.open {
            prop_assert_eq!(decide(&view, &node, at(20 + later)).verdict, Verdict::Install);
        } else {
            prop_assert_eq!(rollout.opens_at, Some(at(500)), "it knows when it may change");
            prop_assert!(rollout.reason.contains("the turn of this node comes at"));
        }
        prop_assert_eq!(decide(&view, &node, at(500)).verdict, Verdict::Install);
    }
}

#[test]
fn a_stage_opens_for_its_share_and_for_others_with_every_release() {
    let canaries = |number: &str| -> BTreeSet<u32> {
        let stages = vec![Stage { percent: 10, at: at(0) }];
        let view = view(ChannelPolicy { rollout: Rollout { start: at(0), stages }, ..pointing_to(number) });
        let is_first = |node: &u32| {
            let id = node.to_be_bytes();
            decide(&view, &Node { id: &id, ..Node::default() }, at(5)).verdict == Verdict::Install
        };
        (0..2_000).filter(is_first).collect()
    };
    let (one, two) = (canaries("1.1.0"), canaries("1.2.0"));
    // Standard deviation 13; five of them.
    assert!((135..265).contains(&one.len()) && (135..265).contains(&two.len()), "{} {}", one.len(), two.len());
    assert!(one.intersection(&two).count() < 60, "about a tenth of a tenth");
}

// ---- pauses and maintenance ---------------------------------------------------------------------

#[test]
fn a_pause_tells_every_node_why() {
    let policy = ChannelPolicy { paused: true, pause_reason: Some("it eats files".to_owned()), ..pointing_to("1.2.0") };
    let decision = decide(&view(policy), &Node::default(), at(5));
    assert_eq!(decision.blocked_by().map(|gate| gate.reason.as_str()), Some("the channel is paused: it eats files"));
}

/// Hours of maintenance of which none is open at `at(0)`.
fn closed_maintenance() -> Maintenance {
    let now = at(0).unix();
    let minute = now.rem_euclid(86_400) / 60;
    let time = |minute: i64| format!("{:02}:{:02}", minute / 60, minute % 60).parse().expect("a time");
    // Two hours that begin six hours from now, every day.
    let from = (minute + 360) % 1_440;
    let window = Window::open_hours("daily".parse().expect("days"), time(from), time((from + 120) % 1_440));
    Maintenance { windows: vec![window.expect("a window")], zone: Zone::default() }
}

/// The windows of a node of which none is open at `at(0)`, and when the next opens.
fn closed_windows() -> (OwnWindows, UtcTime) {
    let windows = closed_maintenance().of_node(b"node");
    let opens_at = windows.at(at(0)).opens_at.expect("every day");
    (windows, opens_at)
}

#[test]
fn outside_of_maintenance_bytes_come_and_installs_wait() {
    let (windows, opens_at) = closed_windows();
    let node = Node { windows, ..Node::default() };
    let view = view(pointing_to("1.2.0"));
    let waiting = decide(&view, &node, at(0));
    assert_eq!(waiting.verdict, Verdict::Blocked);
    assert_eq!(gate(&waiting, GateName::Window).opens_at, Some(opens_at));
    assert!(waiting.may_fetch_ahead());
    assert_eq!(decide(&view, &node, opens_at).verdict, Verdict::Install);
    let hurried = Node { hurry: Some(Digest::of(b"1.2.0")), ..node };
    assert_eq!(decide(&view, &hurried, at(0)).verdict, Verdict::Install, "an operator does not wait");
}

#[test]
fn nothing_is_fetched_ahead_of_a_rollout_or_a_pause() {
    let (windows, _) = closed_windows();
    let node = Node { windows, ..Node::default() };
    let stages = vec![Stage { percent: 0, at: at(-5) }];
    let later = ChannelPolicy { rollout: Rollout { start: at(-5), stages }, ..pointing_to("1.2.0") };
    assert!(!decide(&view(later), &node, at(0)).may_fetch_ahead());
    let paused = ChannelPolicy { paused: true, ..pointing_to("1.2.0") };
    assert!(!decide(&view(paused), &node, at(0)).may_fetch_ahead());
}

#[test]
fn a_critical_release_waits_for_its_rollout_and_not_for_maintenance() {
    let (windows, _) = closed_windows();
    let node = Node { windows, ..Node::default() };
    let critical = Release { critical: true, ..release("1.2.0", None, &["stable"]) };
    let view_with = |policy| view_of(vec![critical.clone()], policy);
    let decision = decide(&view_with(pointing_to("1.2.0")), &node, at(0));
    assert_eq!(decision.verdict, Verdict::Install);
    assert!(gate(&decision, GateName::Window).reason.contains("critical"));
    let stages = vec![Stage { percent: 0, at: at(-5) }];
    let slow = ChannelPolicy { rollout: Rollout { start: at(-5), stages }, ..pointing_to("1.2.0") };
    assert_eq!(decide(&view_with(slow), &node, at(0)).blocked_by().map(|gate| gate.name), Some(GateName::Rollout));
}

// ---- changes of a channel -----------------------------------------------------------------------

fn changed(policy: ChannelPolicy, change: &Change) -> Result<Changed, Refused> {
    apply(&view(policy), &app(), &Channel::stable(), change, at(5))
}

fn set(settings: Settings) -> Change {
    Change::Set(settings)
}

fn to_release(number: &str) -> Settings {
    Settings { release: Some(version(number)), ..Settings::default() }
}

#[test]
fn a_channel_is_pointed_to_a_release_in_stages() {
    let rollout = Some("10@now,100@+1d".parse().expect("a schedule"));
    let done = changed(pointing_to("1.0.0"), &set(Settings { rollout, ..to_release("1.2.0") })).expect("granted");
    assert_eq!(done.policy.version, Some(version("1.2.0")));
    assert_eq!(done.policy.since, Some(at(5)));
    let stages: Vec<(u8, UtcTime)> = done.policy.rollout.stages.iter().map(|s| (s.percent, s.at)).collect();
    assert_eq!(stages, [(10, at(5)), (100, at(86_405))]);
    assert_eq!(done.changes, ["release: 1.0.0 -> 1.2.0", "rollout: 10@now,100@+1d"]);
}

#[test]
fn what_the_publisher_did_not_permit_is_not_offered_and_the_error_says_what_to_do() {
    let promote = Change::Promote { version: version("1.3.0"), rollout: None };
    let refused = changed(pointing_to("1.2.0"), &promote).expect_err("for beta only").to_string();
    assert!(refused.contains("--channel beta --also-on stable"), "{refused}");
    assert!(matches!(changed(pointing_to("1.0.0"), &set(to_release("9.0.0"))), Err(Refused::NoRelease { .. })));
    let promote = Change::Promote { version: version("1.1.0"), rollout: None };
    assert_eq!(changed(pointing_to("1.0.0"), &promote).expect("for both").policy.version, Some(version("1.1.0")));
}

#[test]
fn a_channel_goes_back_only_where_that_is_said() {
    let refused = changed(pointing_to("1.2.0"), &set(to_release("1.0.0"))).expect_err("older");
    assert!(refused.to_string().contains("--allow-downgrade 1.0.0"), "{refused}");
    let allowed = Settings { allow_downgrade: Some(Setting::To(version("1.0.0"))), ..to_release("1.0.0") };
    let done = changed(pointing_to("1.2.0"), &set(allowed)).expect("granted");
    let view = view(done.policy);
    let decision = decide(&view, &Node { installed: Some("1.2.0"), ..Node::default() }, at(6));
    assert_eq!((decision.verdict, offered(&decision).as_deref()), (Verdict::Install, Some("1.0.0")));
}

#[test]
fn pauses_end_and_what_is_so_already_is_nothing_to_do() {
    let pause = Change::Pause { reason: Some("no".to_owned()) };
    let paused = changed(pointing_to("1.2.0"), &pause).expect("granted").policy;
    assert_eq!((paused.paused, paused.pause_reason.as_deref()), (true, Some("no")));
    assert!(matches!(changed(paused.clone(), &pause), Err(Refused::NothingToDo(_))));
    let resumed = changed(paused, &Change::Resume {}).expect("granted").policy;
    assert_eq!((resumed.paused, &resumed.pause_reason, resumed.resumed_at), (false, &None, Some(at(5))));
    assert!(matches!(changed(resumed, &Change::Resume {}), Err(Refused::NothingToDo(_))));
    assert!(matches!(changed(pointing_to("1.2.0"), &set(to_release("1.2.0"))), Err(Refused::NothingToDo(_))));
}

#[test]
fn a_yanked_release_is_not_offered_before_that_is_taken_back() {
    let yank = |undo| Change::Yank { version: version("1.2.0"), undo };
    let done = changed(pointing_to("1.2.0"), &yank(false)).expect("granted");
    assert!(done.warnings[0].contains("nobody installs anything"), "{:?}", done.warnings);
    let back = ChannelPolicy { version: Some(version("1.1.0")), ..done.policy.clone() };
    assert!(matches!(changed(back, &set(to_release("1.2.0"))), Err(Refused::Yanked { .. })));
    let undone = changed(done.policy, &yank(true)).expect("granted").policy;
    assert!(undone.yanked.is_empty());
    assert!(matches!(changed(undone, &yank(true)), Err(Refused::NothingToDo(_))));
}

#[test]
fn a_floor_rises_and_never_shuts_out_what_is_offered() {
    let floor = |number: &str| set(Settings { floor: Some(version(number)), ..Settings::default() });
    assert_eq!(changed(pointing_to("1.2.0"), &floor("1.1.0")).expect("granted").floor, Some(version("1.1.0")));
    assert!(matches!(changed(pointing_to("1.2.0"), &floor("1.3.0")), Err(Refused::FloorAbove { .. })));
    let mut view = view(pointing_to("1.2.0"));
    view.floors.insert(app(), version("1.1.0"));
    let apply = |change| apply(&view, &app(), &Channel::stable(), &change, at(5));
    assert!(matches!(apply(floor("1.0.0")), Err(Refused::FloorFalls { .. })));
    assert!(matches!(apply(set(to_release("1.0.0"))), Err(Refused::BelowFloor { .. })));
}

#[test]
fn a_threshold_is_set_part_by_part() {
    let percent = set(Settings { halt_percent: Some(Setting::To(20)), ..Settings::default() });
    let policy = changed(pointing_to("1.2.0"), &percent).expect("granted").policy;
    assert_eq!(policy.halt, Some(Halt { failures_percent: 20, min_reports: 5, silence_s: None }));
    let silence =
        set(Settings { halt_silence_s: Some(Setting::To(3_600)), halt_min_reports: Some(2), ..Settings::default() });
    assert!(matches!(changed(pointing_to("1.2.0"), &silence), Err(Refused::NoHalt)));
    let policy = changed(policy, &silence).expect("granted").policy;
    assert_eq!(policy.halt, Some(Halt { failures_percent: 20, min_reports: 2, silence_s: Some(3_600) }));
    let off = set(Settings { halt_percent: Some(Setting::Off), ..Settings::default() });
    assert_eq!(changed(policy.clone(), &off).expect("granted").policy.halt, None);
    let soon = set(Settings { halt_silence_s: Some(Setting::To(1)), ..Settings::default() });
    assert!(matches!(changed(policy, &soon), Err(Refused::Policy(_))));
}

#[test]
fn a_threshold_on_a_channel_that_does_not_say_since_when_counts_from_now() {
    let percent = set(Settings { halt_percent: Some(Setting::To(20)), ..Settings::default() });
    let done = changed(pointing_to("1.2.0"), &percent).expect("granted");
    assert_eq!(done.policy.since, Some(at(5)));
    assert!(done.warnings.iter().any(|warning| warning.contains("counts from now on")), "{:?}", done.warnings);
    let dated = ChannelPolicy { since: Some(at(1)), ..pointing_to("1.2.0") };
    let done = changed(dated, &percent).expect("granted");
    assert_eq!((done.policy.since, done.warnings.len()), (Some(at(1)), 0));
}

#[test]
fn a_refusal_says_what_to_do_next() {
    let yanked: BTreeSet<Version> = (0..MAX_YANKED as u64).map(|patch| Version::new(0, 0, patch)).collect();
    let full = ChannelPolicy { yanked, ..pointing_to("1.2.0") };
    let yank = Change::Yank { version: version("1.1.0"), undo: false };
    let refused = changed(full, &yank).expect_err("there is no room").to_string();
    assert!(refused.contains("channel yank app:stable VERSION --undo"), "{refused}");
    let mut view = view(pointing_to("1.2.0"));
    view.floors.insert(app(), version("1.1.0"));
    let refused = |change| apply(&view, &app(), &Channel::stable(), &change, at(5)).expect_err("refused").to_string();
    let below = refused(set(to_release("1.0.0")));
    assert!(below.contains("name 1.1.0 or newer"), "{below}");
    let falls = refused(set(Settings { floor: Some(version("1.0.0")), ..Settings::default() }));
    assert!(falls.contains("newer than 1.1.0"), "{falls}");
}

#[test]
fn unknown_products_and_channels_are_named() {
    let (view, nightly) = (view(pointing_to("1.2.0")), "nightly".parse().expect("a name"));
    let other: Product = "editor".parse().expect("a name");
    let refused = apply(&view, &other, &Channel::stable(), &Change::Resume {}, at(5)).expect_err("no such product");
    assert!(refused.to_string().contains("it has: app"), "{refused}");
    let refused = apply(&view, &app(), &nightly, &Change::Resume {}, at(5)).expect_err("no such channel");
    assert!(matches!(refused, Refused::NoChannel { .. }));
    let beta = "beta".parse().expect("a name");
    let made = apply(&view, &app(), &beta, &set(to_release("1.3.0")), at(5)).expect("a release makes a channel");
    assert_eq!(made.policy.version, Some(version("1.3.0")));
}

proptest! {
    /// Whatever is asked for, in whatever order: what comes out can be signed and read again, and offers
    /// nothing that was not permitted.
    #[test]
    fn every_change_leaves_a_sound_policy(
        steps in prop::collection::vec((0..6_u8, 0..5_u64, any::<bool>(), 1..=100_u8), 1..12),
    ) {
        let mut view = view(pointing_to("1.0.0"));
        for (kind, minor, flag, percent) in steps {
            let number = Version::new(1, minor, 0);
            let change = match kind {
                0 => Change::Promote { version: number, rollout: format!("{percent}@now").parse().ok() },
                1 => Change::Pause { reason: flag.then(|| "why".to_owned()) },
                2 => Change::Resume {},
                3 => Change::Yank { version: number, undo: flag },
                4 => set(Settings { allow_downgrade: Some(Setting::To(number.clone())), release: Some(number), ..Settings::default() }),
                _ => set(Settings { halt_percent: Some(Setting::To(percent)), ..Settings::default() }),
            };
            let Ok(done) = apply(&view, &app(), &Channel::stable(), &change, at(5)) else { continue };
            prop_assert!(!done.changes.is_empty());
            prop_assert_eq!(ChannelPolicy::parse(&done.policy.encode()), Ok(done.policy.clone()));
            if let Some(pointed) = &done.policy.version {
                let permitted = |r: &&Arc<Release>| r.id.version == *pointed && r.channels.contains(&Channel::stable());
                prop_assert!(view.releases.iter().any(|release| permitted(&release)));
            }
            view.channels.insert((app(), Channel::stable()), Arc::new(done.policy));
        }
    }
}

// ---- every gate ---------------------------------------------------------------------------------

#[test]
fn every_gate_is_shown_whatever_follows() {
    let names = |decision: &Decision| decision.gates.iter().map(|gate| gate.name).collect::<Vec<_>>();
    let old = |number| Node { installed: Some(number), ..Node::default() };
    let mut nothing = view(pointing_to("1.2.0"));
    nothing.channels.clear();
    let cases = [
        ("it installs", decide(&view(pointing_to("1.2.0")), &Node::default(), at(5)), Verdict::Install),
        ("it is there", decide(&view(pointing_to("1.2.0")), &old("1.2.0"), at(5)), Verdict::UpToDate),
        ("it is older", decide(&view(pointing_to("1.1.0")), &old("1.2.0"), at(5)), Verdict::UpToDate),
        (
            "it is paused",
            decide(&view(ChannelPolicy { paused: true, ..pointing_to("1.2.0") }), &Node::default(), at(5)),
            Verdict::Blocked,
        ),
        ("not for stable", decide(&view(pointing_to("1.3.0")), &Node::default(), at(5)), Verdict::Nothing),
        ("no release", decide(&view(ChannelPolicy::default()), &Node::default(), at(5)), Verdict::Nothing),
        ("no channel", decide(&nothing, &Node::default(), at(5)), Verdict::Nothing),
    ];
    for (what, decision, verdict) in cases {
        assert_eq!(decision.verdict, verdict, "{what}");
        assert_eq!(names(&decision), GateName::ALL, "{what}");
        assert!(decision.gates.iter().all(|gate| !gate.reason.is_empty()), "{what}: {decision:#?}");
    }
}

#[test]
fn who_is_up_to_date_sees_a_pause_and_a_yank_and_fetches_nothing() {
    let yanked = BTreeSet::from([version("1.2.0")]);
    let policy = ChannelPolicy { paused: true, yanked, ..pointing_to("1.2.0") };
    let (windows, _) = closed_windows();
    let node = Node { installed: Some("1.2.0"), windows, ..Node::default() };
    let decision = decide(&view(policy), &node, at(5));
    assert_eq!(decision.verdict, Verdict::UpToDate);
    assert!(!gate(&decision, GateName::Pause).open && !gate(&decision, GateName::Yank).open);
    let only_the_window = decide(&view(pointing_to("1.2.0")), &node, at(5));
    assert!(!gate(&only_the_window, GateName::Window).open);
    assert!(!only_the_window.may_fetch_ahead() && !only_the_window.waits_for_maintenance(), "it has it");
}

#[test]
fn a_yanked_release_is_not_installed() {
    let policy = ChannelPolicy { yanked: BTreeSet::from([version("1.2.0")]), ..pointing_to("1.2.0") };
    let decision = decide(&view(policy), &Node::default(), at(5));
    assert_eq!(decision.verdict, Verdict::Blocked);
    assert_eq!(decision.blocked_by().map(|gate| gate.reason.as_str()), Some("1.2.0 was yanked"));
}

#[test]
fn a_key_that_contradicts_itself_stops_installs_and_names_itself() {
    let mut view = view(pointing_to("1.2.0"));
    let found = |role| Contradiction { role, versions: (3, 3), digests: (Digest::of(b"one"), Digest::of(b"other")) };
    view.contradictions = vec![found(RoleName::releases(&"editor".parse().expect("a name")))];
    assert_eq!(decide(&view, &Node::default(), at(5)).verdict, Verdict::Install, "another product's");
    view.contradictions = vec![found(RoleName::channels())];
    let decision = decide(&view, &Node::default(), at(5));
    assert_eq!(decision.blocked_by().map(|gate| gate.name), Some(GateName::Equivocation));
    assert!(gate(&decision, GateName::Equivocation).reason.contains("the channels key must be replaced first"));
}

#[test]
fn a_rollout_that_never_comes_says_what_to_do() {
    let rollout = Rollout { start: at(0), stages: vec![Stage { percent: 0, at: at(0) }] };
    let decision = decide(&view(ChannelPolicy { rollout, ..pointing_to("1.2.0") }), &Node::default(), at(5));
    let reason = &gate(&decision, GateName::Rollout).reason;
    assert!(reason.contains("channel set app:stable --rollout") && reason.contains("install app --now"), "{reason}");
}

#[test]
fn who_is_in_a_hurry_passes_maintenance_and_rollout_and_nothing_else() {
    let (windows, _) = closed_windows();
    let rollout = Rollout { start: at(0), stages: vec![Stage { percent: 0, at: at(0) }] };
    let policy = ChannelPolicy { rollout, ..pointing_to("1.2.0") };
    let node = || Node { hurry: Some(Digest::of(b"1.2.0")), windows: windows.clone(), ..Node::default() };
    assert_eq!(decide(&view(policy.clone()), &node(), at(5)).verdict, Verdict::Install);
    let closed = |policy: ChannelPolicy, node: Node<'_>, now| {
        decide(&view(policy), &node, now).gates.into_iter().find(|gate| !gate.open).map(|gate| gate.name)
    };
    let paused = ChannelPolicy { paused: true, ..policy.clone() };
    assert_eq!(closed(paused, node(), at(5)), Some(GateName::Pause));
    let yanked = ChannelPolicy { yanked: BTreeSet::from([version("1.2.0")]), ..policy.clone() };
    assert_eq!(closed(yanked, node(), at(5)), Some(GateName::Yank));
    let quarantine = BTreeMap::from([(Digest::of(b"1.2.0"), "it crashed".to_owned())]);
    assert_eq!(closed(policy.clone(), Node { quarantine, ..node() }, at(5)), Some(GateName::Quarantine));
    let old_head = ChannelPolicy { max_head_age_s: Some(60), ..policy };
    assert_eq!(closed(old_head, node(), at(61)), Some(GateName::Freshness));
}

#[test]
fn an_unpacking_that_began_in_time_is_ended_after_it() {
    let recovered = Recovered { installed: Some(installed("0.9.0")), ..Recovered::default() };
    let (mut node, first) = Machine::found(false, recovered);
    let is = |wanted: fn(&InstallEffect) -> bool| {
        move |effects: &[Effect]| {
            effects.iter().any(|effect| matches!(effect, Effect::Install(effect) if wanted(effect)))
        }
    };
    let begins = is(|effect| matches!(effect, InstallEffect::Stage { .. }));
    let stops = is(|effect| matches!(effect, InstallEffect::Discard { .. }));
    assert!(begins(&first), "{first:#?}");
    node.engine.set_maintenance(&closed_maintenance());
    node.now.mono_ms += 5_000;
    let later = node.engine.handle(Input::Tick, node.now);
    assert!(!stops(&later), "{later:#?}");
}

// ---- reports ------------------------------------------------------------------------------------

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed([n; 32])
}

/// The id of the node whose key that is, as libp2p makes it.
fn peer(n: u8) -> PeerId {
    let public = data_encoding::HEXLOWER.decode(key(n).public().public().as_bytes()).expect("hexadecimal");
    PeerId::from_bytes(&[&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20][..], &public].concat()).expect("in bounds")
}

fn report(number: u64, product: &str) -> Report {
    Report {
        number,
        product: product.parse().expect("a name"),
        channel: Channel::stable(),
        version: version("1.0.0"),
        artifact: Digest::of(b"1.0.0"),
        outcome: Outcome::Failed,
        at: at(0),
        text: "it did not start".to_owned(),
        signature: Vec::new(),
    }
}

fn installed(number: &str) -> Installed {
    Installed { version: version(number), artifact: Digest::of(number.as_bytes()), release_dir: format!("{number}-x") }
}

/// What a node finds that had 1.0.0, after 0.9.0, and stopped while 1.1.0 was on probation.
fn on_probation(attempts: u32) -> Recovered {
    let health = Health {
        check: Check::Unit("app.service".to_owned()),
        interval_ms: 1_000,
        timeout_ms: 500,
        successes: 1,
        failures: 1,
        probation_ms: 10_000,
    };
    let journal = JournalEntry {
        directory: "/virtual".to_owned(),
        product: app(),
        state: InstallState::Probation,
        transaction: "t1".to_owned(),
        from: Some(installed("1.0.0")),
        to: Some(installed("1.1.0")),
        attempts,
        way: Way::Forward,
        remaining_ms: Some(5_000),
        reason: None,
        outcome: None,
    };
    Recovered {
        journal: Some(journal),
        installed: Some(installed("1.0.0")),
        previous: Some(installed("0.9.0")),
        current: Some("1.1.0-x".to_owned()),
        trial: Trial { activation: None, health: Some(health), max_attempts: 3 },
        ..Recovered::default()
    }
}

/// The reports that effects keep: how it ended, and of which release.
fn reports(effects: &[Effect]) -> Vec<(Outcome, String, Digest)> {
    let kept = effects.iter().filter_map(|effect| match effect {
        Effect::Outcome(OutcomeEffect::KeepReport(report)) => {
            Some((report.outcome, report.version.to_string(), report.artifact))
        }
        _ => None,
    });
    kept.collect()
}

/// An engine of a repository with the product `app`, which has 1.0.0 installed.
struct Machine {
    engine: Engine,
    repository: TestRepository,
    now: Now,
}

impl Machine {
    fn new(is_seed: bool) -> Self {
        Self::found(is_seed, Recovered { installed: Some(installed("1.0.0")), ..Recovered::default() }).0
    }

    /// A node that found this in its directory, and what it wants done first.
    fn found(is_seed: bool, recovered: Recovered) -> (Self, Vec<Effect>) {
        let mut repository = TestRepository::new(at(0));
        let manifest = repository.publish("1.0.0", b"1.0.0", at(0));
        let (mut files, mut targets) = (BTreeMap::new(), BTreeMap::new());
        for (file, bytes) in &repository.files {
            match file {
                MetaFile::Root { version } => files.insert(format!("{version}.root.json"), bytes.clone()),
                MetaFile::Role { name, version } => files.insert(format!("{version}.{name}.json"), bytes.clone()),
                MetaFile::Target { sha256, .. } => {
                    targets.insert(*sha256, bytes.clone());
                    None
                }
                _ => None,
            };
        }
        let trusted = &repository.signed.trusted;
        files.insert("timestamp.json".to_owned(), trusted.timestamp().expect("whole").bytes().to_vec());
        let snapshot = trusted.snapshot().expect("whole");
        files.insert(format!("{}.snapshot.json", snapshot.version), snapshot.bytes().to_vec());
        let seed = format!("/ip4/192.0.2.1/tcp/1/p2p/{}", peer(1));
        let config = EngineConfig {
            me: peer(100),
            repository: repository.id,
            ticket: (!is_seed).then(|| repository.ticket(vec![seed])),
            is_seed,
            platform: Platform::any(),
            agent: "test".to_owned(),
            random_seed: 1,
            adopt_wait_ms: 0,
            limits: updraft::engine::limits::Limits::default(),
            egress_budget_percent: None,
        };
        let directory = Some("/virtual".to_owned());
        let spec = SubscriptionSpec { product: app(), channel: Channel::stable(), directory };
        let found = Restored {
            metadata: &MetadataReader(&|name| files.get(name).cloned()),
            target: &TargetReader(&|sha256| targets.get(sha256).cloned()),
            artifacts: vec![(manifest.clone(), Some(Bitmap::full(manifest.piece_count())))],
            subscriptions: vec![(spec, recovered)],
            peers: Vec::new(),
            memory: Memory::default(),
            bans: Vec::new(),
        };
        let now = Now { wall: at(1), mono_ms: 1_000 };
        let (engine, first) = Engine::restore(config, found, now).expect("a good repository");
        (Self { engine, repository, now }, first)
    }

    /// What the engine says to `peer` in answer to an input.
    fn swarm(&mut self, input: SwarmInput) -> Vec<(PeerId, Control)> {
        let effects = self.engine.handle(Input::Swarm(input), self.now);
        let said = effects.into_iter().filter_map(|effect| match effect {
            Effect::Swarm(SwarmEffect::Control { peer, message }) => Some((peer, message)),
            _ => None,
        });
        said.collect()
    }

    fn connect(&mut self, n: u8, seed: bool) -> Vec<(PeerId, Control)> {
        let address = "/ip4/192.0.2.1/tcp/1".to_owned();
        let mut said = self.swarm(SwarmInput::Connected { peer: peer(n), address, outbound: true });
        let hello = Hello {
            repository: self.repository.id.0.as_bytes().to_vec(),
            root_version: 1,
            timestamp_version: 1,
            seed,
            ..Hello::default()
        };
        said.extend(self.swarm(SwarmInput::Control { peer: peer(n), message: Control::Hello(hello) }));
        said
    }

    /// Hears a report of node `n`; returns whether it was acknowledged.
    fn hear(&mut self, n: u8, report: Report) -> bool {
        let number = report.number;
        let said = self.swarm(SwarmInput::Control { peer: peer(n), message: Control::Report(Box::new(report)) });
        said.contains(&(peer(n), Control::Reported { numbers: vec![number] }))
    }
}

#[test]
fn a_seed_believes_what_a_node_signed_of_itself_and_nothing_else() {
    let mut seed = Machine::new(true);
    let repository = seed.repository.id.0;
    seed.connect(2, false);
    assert!(!seed.hear(2, report(1, "app")), "unsigned");
    assert!(!seed.hear(2, report(1, "app").sign(&repository, &key(3))), "another's");
    assert!(!seed.hear(2, report(1, "app").sign(&Digest::of(b"another"), &key(2))), "for another repository");
    assert!(seed.engine.fleet()[&peer(2)].products.is_empty());
    assert!(seed.hear(2, report(1, "app").sign(&repository, &key(2))));
    let record = seed.engine.fleet()[&peer(2)].products[&(app(), Channel::stable())].clone();
    assert_eq!(
        record.last.map(|last| (last.outcome, last.text)),
        Some((Outcome::Failed, "it did not start".to_owned()))
    );
    assert!(seed.hear(2, report(2, "unheard-of").sign(&repository, &key(2))), "it need not come again");
    assert_eq!(seed.engine.fleet()[&peer(2)].products.len(), 1, "names cost nothing");
}

#[test]
fn a_seed_keeps_words_about_what_there_is_and_no_others() {
    let mut seed = Machine::new(true);
    let repository = seed.repository.id.0;
    seed.connect(2, false);
    let invented = Report { version: version("9.9.9"), ..report(1, "app") };
    assert!(seed.hear(2, invented.sign(&repository, &key(2))), "it need not come again");
    let other_bytes = Report { artifact: Digest::of(b"other"), ..report(2, "app") };
    assert!(seed.hear(2, other_bytes.sign(&repository, &key(2))));
    let nightly = Report { channel: "nightly".parse().expect("a name"), ..report(3, "app") };
    assert!(seed.hear(2, nightly.sign(&repository, &key(2))));
    assert!(seed.engine.fleet()[&peer(2)].products.is_empty());
    let retired = Report { version: version("0.1.0"), outcome: Outcome::Runs, ..report(0, "app") };
    seed.hear(2, retired.sign(&repository, &key(2)));
    let record = &seed.engine.fleet()[&peer(2)].products[&(app(), Channel::stable())];
    assert_eq!((record.runs.clone(), record.last.clone()), (None, None), "it follows the channel, and that is all");
}

#[test]
fn a_node_that_starts_with_a_slow_clock_outdoes_its_own_last_report() {
    let (mut node, mut effects) = Machine::found(false, on_probation(3));
    let last_number = 9_000_000_000_000;
    node.engine.remember_outcomes(Remembered { last_number, ..Remembered::default() }, node.now);
    effects.extend(node.engine.handle(Input::Tick, node.now));
    let numbers: Vec<u64> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Outcome(OutcomeEffect::KeepReport(report)) => Some(report.number),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, [last_number + 1]);
}

#[test]
fn what_a_node_runs_is_its_last_word_when_it_meets_its_seed() {
    let (mut node, _) = Machine::found(false, on_probation(3));
    let effects = node.engine.handle(Input::Tick, node.now);
    assert_eq!(reports(&effects).len(), 1, "nobody is there to tell yet");
    let said = node.connect(1, true).into_iter().filter_map(|(_, message)| match message {
        Control::Report(report) => Some((report.outcome, report.version.to_string())),
        _ => None,
    });
    let expected = [(Outcome::Failed, "1.1.0".to_owned()), (Outcome::Runs, "1.0.0".to_owned())];
    assert_eq!(said.collect::<Vec<_>>(), expected);
    node.now.mono_ms += 29_000;
    assert_eq!(reports_sent(&node.engine.handle(Input::Tick, node.now)), 0);
    node.now.mono_ms += 2_000;
    assert_eq!(reports_sent(&node.engine.handle(Input::Tick, node.now)), 1, "nobody acknowledged it");
}

fn reports_sent(effects: &[Effect]) -> usize {
    let is_report =
        |effect: &&Effect| matches!(effect, Effect::Swarm(SwarmEffect::Control { message: Control::Report(_), .. }));
    effects.iter().filter(is_report).count()
}

/// A seed whose `stable` halts at half of three nodes, silence of a minute included, since `at(100)`.
fn halting_seed() -> Machine {
    let mut seed = Machine::new(true);
    let halt = Halt { failures_percent: 50, min_reports: 3, silence_s: Some(60) };
    let policy = ChannelPolicy { since: Some(at(100)), halt: Some(halt), ..pointing_to("1.0.0") };
    let mut holder = Holder::of(&seed.repository);
    holder.set_channel(&app(), &Channel::stable(), &policy, at(1));
    let signed = holder.sign(at(1), at(1));
    let published = Input::Published { head: signed.head, files: signed.files };
    let _announced = seed.engine.handle(published, seed.now);
    seed
}

/// Lets so many seconds pass at a seed; returns why it halts, if it does.
fn watch(seed: &mut Machine, seconds: u64) -> Option<String> {
    for _ in 0..seconds / 2 {
        seed.now = Now { wall: seed.now.wall.plus_seconds(2), mono_ms: seed.now.mono_ms + 2_000 };
        let halt = seed.engine.handle(Input::Tick, seed.now).into_iter().find_map(|effect| match effect {
            Effect::Outcome(OutcomeEffect::Halt { version, reason, .. }) => Some((version, reason)),
            _ => None,
        });
        if let Some((at, reason)) = halt {
            assert_eq!(at, version("1.0.0"), "it is of the version that failed");
            return Some(reason);
        }
    }
    None
}

/// Three nodes with a voice that began to install, as the seed has them in its ledger.
fn three_that_began(seed: &mut Machine) {
    let repository = seed.repository.id.0;
    for n in 2..5 {
        seed.connect(n, false);
        seed.hear(n, Report { outcome: Outcome::Runs, ..report(0, "app") }.sign(&repository, &key(n)));
    }
    assert_eq!(watch(seed, 110), None);
    for n in 2..5 {
        assert!(seed.hear(n, Report { outcome: Outcome::Began, ..report(1, "app") }.sign(&repository, &key(n))));
    }
}

#[test]
fn who_says_nothing_more_is_counted_while_the_seed_listens() {
    let mut seed = halting_seed();
    three_that_began(&mut seed);
    assert_eq!(watch(&mut seed, 58), None);
    let reason = watch(&mut seed, 6).expect("a minute is over");
    assert!(reason.contains("failed on 3 of 3 nodes"), "{reason}");
    assert_eq!(watch(&mut seed, 58), None, "it is signed, or cannot be; nobody asks again at once");
}

#[test]
fn a_seed_that_was_away_first_listens() {
    let mut before = halting_seed();
    three_that_began(&mut before);
    let nodes = before.engine.fleet().iter().map(|(peer, node)| (peer.clone(), node.clone())).collect();
    let mut seed = halting_seed();
    seed.now = Now { wall: before.now.wall.plus_seconds(3_600), mono_ms: 10_000 };
    seed.engine.remember_outcomes(Remembered { nodes, ..Remembered::default() }, seed.now);
    assert_eq!(watch(&mut seed, 120), None, "nobody is here who could speak");
    seed.connect(2, false);
    seed.connect(3, false);
    assert_eq!(watch(&mut seed, 30), None);
    let repository = seed.repository.id.0;
    let ended = Report { outcome: Outcome::Installed, ..report(2, "app") };
    for n in [2, 3] {
        assert!(seed.hear(n, ended.clone().sign(&repository, &key(n))), "what waited in its outbox");
    }
    assert_eq!(watch(&mut seed, 120), None, "one of three fell silent");
    assert!(seed.hear(2, report(3, "app").sign(&repository, &key(2))));
    assert!(watch(&mut seed, 4).is_some(), "two of three are too many");
}

#[test]
fn a_node_keeps_its_full_outbox_over_a_restart() {
    let (mut node, _) = Machine::found(false, Recovered::default());
    let kept: Vec<Report> = (1..=64).map(|number| report(number, "app")).collect();
    node.engine.remember_outcomes(Remembered { reports: kept, last_number: 64, ..Remembered::default() }, node.now);
    let sent = node.connect(1, true).into_iter().filter(|(_, message)| matches!(message, Control::Report(_)));
    assert_eq!(sent.count(), 64);
}

#[test]
fn the_longest_words_fit_a_message() {
    let longest = Report {
        number: u64::MAX,
        product: "p".repeat(64).parse().expect("a name"),
        channel: "c".repeat(64).parse().expect("a name"),
        version: format!("1.0.0-{}", "x".repeat(122)).parse().expect("a version"),
        text: fitting(&"\u{1f600}".repeat(1_000)),
        ..report(1, "app")
    };
    let message = Control::Report(Box::new(longest.sign(&Digest::of(b"repository"), &key(2))));
    // After four bytes of length.
    assert_eq!(Control::decode(&message.to_frame()[4..]), Ok(message));
}

#[test]
fn a_flood_of_reports_is_not_looked_at() {
    let mut seed = Machine::new(true);
    let repository = seed.repository.id.0;
    seed.connect(2, false);
    let signed = |number| report(number, "app").sign(&repository, &key(2));
    let heard = (1..=200).filter(|number| seed.hear(2, signed(*number))).count();
    assert_eq!(heard, 96);
    seed.now.mono_ms += 2_000;
    assert!(seed.hear(2, signed(201)) && seed.hear(2, signed(202)) && !seed.hear(2, signed(203)), "one a second");
}

#[test]
fn a_node_tells_the_seed_of_its_ticket_what_it_runs_and_nobody_else() {
    let mut node = Machine::new(false);
    let told = |said: Vec<(PeerId, Control)>| -> Vec<(PeerId, Outcome)> {
        let told = said.into_iter().filter_map(|(peer, message)| match message {
            Control::Report(report) => Some((peer, report.outcome)),
            _ => None,
        });
        told.collect()
    };
    assert_eq!(told(node.connect(2, true)), [], "anybody can call himself a seed");
    assert_eq!(told(node.connect(3, false)), []);
    assert_eq!(told(node.connect(1, true)), [(peer(1), Outcome::Runs)]);
    assert!(!node.hear(3, report(1, "app").sign(&node.repository.id.0, &key(3))), "it is no seed");
}

/// The end of the switch that `effects` ask for.
fn switched(effects: &[Effect]) -> Input {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::Install(InstallEffect::Switch { directory, transaction, .. }) => {
            Some((directory.clone(), transaction.clone()))
        }
        _ => None,
    });
    let (directory, transaction) = found.expect("it goes back");
    Input::Switched { directory, transaction, result: Ok(()) }
}

#[test]
fn a_release_that_is_left_is_what_every_report_of_it_is_about() {
    let (mut node, mut effects) = Machine::found(false, on_probation(3));
    effects.extend(node.engine.handle(switched(&effects), node.now));
    let failed = |outcome| (outcome, "1.1.0".to_owned(), Digest::of(b"1.1.0"));
    assert_eq!(reports(&effects), [failed(Outcome::Failed), failed(Outcome::RolledBack)]);
}

#[test]
fn a_trial_that_an_operator_ends_is_reported() {
    let (mut node, _) = Machine::found(false, on_probation(1));
    let mut effects = node.engine.roll_back(&app(), None, true, &|_| Vec::new(), node.now).expect("granted");
    assert_eq!(reports(&effects), [], "nothing has ended yet, and a person's word is no verdict");
    effects.extend(node.engine.handle(switched(&effects), node.now));
    assert_eq!(reports(&effects), [(Outcome::RolledBack, "1.1.0".to_owned(), Digest::of(b"1.1.0"))]);
}
