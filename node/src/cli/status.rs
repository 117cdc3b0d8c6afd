//! `updraft status`: what the node does, and at first sight why it waits.

use std::fmt::Write as _;

use clap::Args;

use super::output::{Painter, Style};
use super::progress::sources;
use super::table::{Cell, Table};
use super::units::{bytes, duration, percent, printable, rate};
use super::{CommandError, ExitCode, GlobalArgs, Output, ask};
use crate::control::messages::Request;
use crate::control::traffic::{ArtifactView, Copies, LimitView, LimitsView, TransferView};
use crate::control::views::{
    GateVerdict, HeadView, Mode, RepositoryView, StatusView, SubscriptionState, SubscriptionView,
};

/// As typed.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Every gate that a release must pass, its verdict, and when it may open
    #[arg(long)]
    pub explain: bool,
}

/// Shows the status.
pub fn run(args: &StatusArgs, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let view: StatusView = ask::ask(&global.data_dir()?, &Request::Status { explain: args.explain }, output)?;
    output.answer(&view, human)?;
    // A script that asks for the status must not miss that a key of the repository is in wrong hands.
    let sound = view.repositories.iter().all(|repository| repository.equivocations.is_empty());
    Ok(if sound { ExitCode::Ok } else { ExitCode::VerificationFailed })
}

fn human(view: &StatusView, painter: Painter) -> String {
    let mut text = String::new();
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(text, "{}  {value}", painter.paint(Style::Bold, &format!("{name:<10}")));
    };
    fact(
        &view.role.to_string(),
        &format!("{}  updraft {}, up {}", printable(&view.peer_id), printable(&view.version), duration(view.uptime_ms)),
    );
    for repository in &view.repositories {
        fact("repository", &self::repository(repository, painter));
        fact("head", &head(repository.head.as_ref(), painter));
        for equivocation in &repository.equivocations {
            fact("alarm", &painter.paint(Style::Bad, &printable(&equivocation.text)));
        }
    }
    fact("peers", &peers(view.connected_peers, painter));
    fact("listening", &printable(&list_or_nothing(&view.listen)));
    if let Some(http) = &view.http {
        fact("http", &format!("http://{}/", printable(http)));
    }
    fact("transfer", &transfer(&view.transfer));
    fact("limits", &limits(&view.limits, painter));
    if !view.subscriptions.is_empty() {
        text.push('\n');
        text.push_str(&subscriptions(&view.subscriptions, painter));
    }
    for subscription in &view.subscriptions {
        text.push_str(&gates(subscription, painter));
    }
    if !view.artifacts.is_empty() {
        text.push('\n');
        text.push_str(&artifacts(&view.artifacts, view.limits.egress_budget_copies, painter));
    }
    if !view.warnings.is_empty() {
        text.push('\n');
    }
    for warning in &view.warnings {
        let _ = writeln!(text, "{}: {}", painter.paint(Style::Warn, "warning"), printable(warning));
    }
    text
}

fn repository(repository: &RepositoryView, painter: Painter) -> String {
    let id = painter.paint(Style::Dim, &format!("({}, root {})", repository.id.short(), repository.root_version));
    format!("{} {id}", printable(&repository.fingerprint))
}

fn head(head: Option<&HeadView>, painter: Painter) -> String {
    let Some(head) = head else {
        return painter.paint(Style::Warn, "none yet: no peer has told what the repository offers");
    };
    let signed = format!("version {}, signed {} ago", head.timestamp_version, duration(head.age_ms));
    if head.fresh {
        format!("{signed}, {} until {}", painter.paint(Style::Good, "fresh"), head.expires_at)
    } else {
        let stale = painter.paint(Style::Bad, "not fresh");
        format!("{signed}, {stale} (valid until {}): nothing new is installed", head.expires_at)
    }
}

fn peers(connected: u64, painter: Painter) -> String {
    match connected {
        0 => painter.paint(Style::Warn, "nobody is connected"),
        1 => "1 connected".to_owned(),
        count => format!("{count} connected"),
    }
}

/// What went in and out, and what of it was in vain.
fn transfer(transfer: &TransferView) -> String {
    let mut text = format!("{} in, {} out", bytes(transfer.bytes_in), bytes(transfer.bytes_out));
    for (count, what) in [
        (transfer.bytes_duplicate, "duplicate"),
        (transfer.bytes_rejected, "rejected"),
        (transfer.bytes_unsolicited, "unsolicited"),
        (transfer.bytes_reused, "reused"),
        (transfer.bytes_overhead_in.saturating_add(transfer.bytes_overhead_out), "overhead"),
    ] {
        if count > 0 {
            let _ = write!(text, ", {} {what}", bytes(count));
        }
    }
    text
}

fn limits(limits: &LimitsView, painter: Painter) -> String {
    let limit = |what: &str, limit: &LimitView| {
        let shown = match limit.bytes_per_second {
            None => format!("{what} unlimited"),
            Some(0) => painter.paint(Style::Warn, &format!("{what} paused")),
            Some(cap) => format!("{what} {}", rate(cap)),
        };
        // That nothing was ever said about a direction needs no reason.
        if limit.bytes_per_second.is_none() && limit.until.is_none() {
            return shown;
        }
        let until = limit.until.map(|until| format!(", until {until}")).unwrap_or_default();
        format!("{shown} ({}{until})", printable(&limit.why))
    };
    let mut text = format!("{}; {}", limit("upload", &limits.upload), limit("download", &limits.download));
    if limits.lan_exempt {
        text.push_str("; local peers are exempt");
    }
    if let Some(budget) = limits.egress_budget_copies {
        let _ = write!(text, "; at most {budget} copies of each artifact leave");
    }
    text
}

fn artifacts(rows: &[ArtifactView], budget: Option<Copies>, painter: Painter) -> String {
    let mut table = Table::new(&["ARTIFACT", "SIZE", "DONE", "FROM SEEDS", "FROM PEERS", "WASTED", "SENT", "COPIES"]);
    for row in rows {
        let name = match (&row.product, &row.version) {
            (Some(product), Some(version)) => format!("{product} {version}"),
            _ => row.sha256.short(),
        };
        let wasted = row.bytes_duplicate.saturating_add(row.bytes_rejected);
        table.row(vec![
            Cell::new(name),
            Cell::number(bytes(row.size_bytes)),
            Cell::number(format!("{} %", percent(row.bytes_done, row.size_bytes))),
            Cell::number(bytes(row.bytes_from_seed)),
            Cell::number(bytes(row.bytes_from_peers)),
            Cell::number(bytes(wasted)),
            Cell::number(bytes(row.bytes_sent)),
            Cell::new(copies(row, budget)),
        ]);
    }
    table.render(painter)
}

/// `1.05 of 1.20: 1.00 first, 0.05 again`.
fn copies(row: &ArtifactView, budget: Option<Copies>) -> String {
    if row.bytes_sent == 0 {
        return String::new();
    }
    let budget = budget.map(|budget| format!(" of {budget}")).unwrap_or_default();
    format!("{}{budget}: {} first, {} again", row.copies_sent, row.copies_sent_first, row.copies_sent_repeat)
}

fn list_or_nothing(listen: &[String]) -> String {
    if listen.is_empty() { "nowhere".to_owned() } else { listen.join(" ") }
}

fn subscriptions(rows: &[SubscriptionView], painter: Painter) -> String {
    let mut table = Table::new(&["PRODUCT", "CHANNEL", "INSTALLED", "OFFERED", "STATE", "WHY"]);
    for row in rows {
        table.row(vec![
            Cell::new(row.product.as_str()),
            Cell::new(row.channel.as_str()),
            Cell::new(row.installed.as_deref().unwrap_or_default()),
            Cell::new(row.offered.as_deref().unwrap_or_default()),
            Cell::new(row.state.as_str()).styled(state_style(row.state)),
            Cell::new(why(row)),
        ]);
    }
    table.render(painter)
}

fn state_style(state: SubscriptionState) -> Style {
    match state {
        SubscriptionState::Idle => Style::Plain,
        SubscriptionState::Committed => Style::Good,
        SubscriptionState::RollingBack | SubscriptionState::Quarantined => Style::Bad,
        _ => Style::Bold,
    }
}

/// The one sentence that a waiting person wants.
fn why(row: &SubscriptionView) -> String {
    let mut parts = Vec::new();
    if let Some(progress) = row.progress {
        parts.push(format!(
            "{} %, {} of {}, {}",
            percent(progress.bytes_done, progress.bytes_total),
            bytes(progress.bytes_done),
            bytes(progress.bytes_total),
            rate(progress.rate_bytes_per_second)
        ));
        parts.extend(sources(progress.bytes_from_seed, progress.bytes_from_peers, progress.bytes_reused));
    }
    parts.extend(row.reason.clone());
    if !parts.is_empty() {
        return parts.join(", ");
    }
    let have = if row.mode == Mode::Mirror { "held whole" } else { "up to date" };
    match (&row.installed, &row.offered) {
        (_, None) => "the channel offers nothing for this platform".to_owned(),
        (Some(installed), Some(offered)) if installed == offered => have.to_owned(),
        _ => String::new(),
    }
}

fn gates(row: &SubscriptionView, painter: Painter) -> String {
    let Some(gates) = &row.gates else {
        return String::new();
    };
    let mut table = Table::new(&["  GATE", "VERDICT", "WHY", "MAY OPEN"]);
    for gate in gates {
        let (word, style) = match gate.verdict {
            GateVerdict::Open => ("open", Style::Good),
            GateVerdict::Waiting => ("waiting", Style::Warn),
            GateVerdict::Closed => ("closed", Style::Bad),
        };
        table.row(vec![
            Cell::new(format!("  {}", gate.gate)),
            Cell::new(word).styled(style),
            Cell::new(&gate.reason),
            Cell::new(gate.opens_at.map_or_else(String::new, |time| time.to_string())),
        ]);
    }
    let offered = row.offered.as_deref().unwrap_or("nothing");
    let title = format!("{}:{} {}", row.product, row.channel, printable(offered));
    format!("\n{}\n{}", painter.paint(Style::Bold, &title), table.render(painter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::contract::sample_status;
    use crate::control::views::GateView;

    fn shown(view: &StatusView) -> String {
        human(view, Painter::new(false))
    }

    #[test]
    fn a_fetching_peer_is_understood_at_first_sight() {
        assert_eq!(
            shown(&sample_status()),
            "\
peer        12D3KooWexample  updraft 0.1.0, up 1 min 1 s
repository  0123-4567-89ab-cdef (abababab, root 1)
head        version 7, signed 1 min ago, fresh until 2026-12-06T14:30:00Z
peers       3 connected
listening   /ip4/127.0.0.1/tcp/4880
transfer    50 B in, 6 B out, 1 B duplicate, 2 B unsolicited, 19 B overhead
limits      upload 1.0 MiB/s (window 08:00-18:00 mon-fri, until 2026-11-22T15:31:00Z); download unlimited; local peers are exempt; at most 1.20 copies of each artifact leave

PRODUCT  CHANNEL  INSTALLED  OFFERED  STATE     WHY
editor   stable   1.0.0      1.1.0    fetching  25 %, 50 B of 200 B, 5 B/s, 20 % from seeds, 80 % from peers

ARTIFACT       SIZE  DONE  FROM SEEDS  FROM PEERS  WASTED  SENT  COPIES
editor 1.1.0  200 B  25 %        10 B        40 B     1 B   6 B  0.03 of 1.20: 0.02 first, 0.01 again

warning: the private keys of the repository are still on this machine
"
        );
    }

    #[test]
    fn explain_lists_every_gate_and_when_it_may_open() {
        let mut view = sample_status();
        view.subscriptions[0].gates = Some(vec![
            GateView {
                gate: "platform".to_owned(),
                verdict: GateVerdict::Open,
                reason: "any".to_owned(),
                opens_at: None,
            },
            GateView {
                gate: "rollout".to_owned(),
                verdict: GateVerdict::Waiting,
                reason: "bucket 83, the rollout is at 25".to_owned(),
                opens_at: "2026-11-22T15:31:00Z".parse().ok(),
            },
        ]);
        let text = shown(&view);
        let part = "\
editor:stable 1.1.0
  GATE      VERDICT  WHY                              MAY OPEN
  platform  open     any                              -
  rollout   waiting  bucket 83, the rollout is at 25  2026-11-22T15:31:00Z
";
        assert!(text.contains(part), "{text}");
    }

    #[test]
    fn an_idle_subscription_says_why_it_has_nothing_to_do() {
        let mut row = sample_status().subscriptions.remove(0);
        row.progress = None;
        row.reason = Some("held by the operator".to_owned());
        assert_eq!(why(&row), "held by the operator");
        row.reason = None;
        row.installed.clone_from(&row.offered);
        assert_eq!(why(&row), "up to date");
        row.mode = Mode::Mirror;
        assert_eq!(why(&row), "held whole");
        row.offered = None;
        assert_eq!(why(&row), "the channel offers nothing for this platform");
    }

    #[test]
    fn a_node_that_knows_nothing_yet_says_so() {
        let mut view = sample_status();
        view.repositories[0].head = None;
        view.connected_peers = 0;
        view.listen.clear();
        let text = shown(&view);
        for part in ["none yet", "nobody is connected", "nowhere"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn limits_say_what_set_them_and_a_pause_is_not_overlooked() {
        let mut view = sample_status();
        view.limits = LimitsView::default();
        assert!(shown(&view).contains("\nlimits      upload unlimited; download unlimited\n"));
        view.limits.upload =
            LimitView { bytes_per_second: Some(0), why: "window 08:00-18:00 daily".to_owned(), until: None };
        view.limits.download = LimitView { bytes_per_second: Some(5 << 20), why: "always".to_owned(), until: None };
        let text = shown(&view);
        let line = "upload paused (window 08:00-18:00 daily); download 5.0 MiB/s (always)\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_stale_head_is_said_to_stop_installs() {
        let mut view = sample_status();
        if let Some(head) = &mut view.repositories[0].head {
            head.fresh = false;
        }
        assert!(shown(&view).contains("not fresh"));
    }
}
