//! `updraft peers`: who is connected, what they hold, and what flows.

use clap::{Args, Subcommand};

use super::output::{Painter, Style};
use super::table::{Cell, Table};
use super::units::{bytes, duration, percent, printable, rate};
use super::{CommandError, ExitCode, GlobalArgs, Output, ask};
use crate::control::messages::Request;
use crate::control::views::{PeerRow, PeersView};

/// As typed.
#[derive(Debug, Args)]
pub struct PeersArgs {
    /// What to do; lists the peers where nothing is said
    #[command(subcommand)]
    command: Option<PeersCommand>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum PeersCommand {
    /// Let a banned peer back in
    Unban {
        /// Its identity, or the end of it as the table shows it
        #[arg(value_name = "PEER")]
        peer: String,
    },
}

/// Lists the peers, or lifts a ban.
pub fn run(args: PeersArgs, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    if let Some(PeersCommand::Unban { peer }) = args.command {
        let request = Request::Unban { peer: peer.clone() };
        let view: PeersView = ask::ask(&global.data_dir()?, &request, output)?;
        output.answer(&view, |_, _| format!("{} may come back\n", printable(&peer)))?;
        return Ok(ExitCode::Ok);
    }
    let view: PeersView = ask::ask(&global.data_dir()?, &Request::Peers {}, output)?;
    output.answer(&view, human)?;
    if view.peers.is_empty() {
        output.note("nobody is connected; `updraft events` tells what was tried");
    }
    Ok(ExitCode::Ok)
}

fn human(view: &PeersView, painter: Painter) -> String {
    let mut table = Table::new(&[
        "PEER", "ROLE", "ADDRESS", "UP", "HOLDS", "IN", "OUT", "RECEIVED", "WASTED", "SENT", "LIMITS", "SCORE",
    ]);
    for peer in &view.peers {
        let score = Cell::number(peer.score.to_string());
        table.row(vec![
            Cell::new(short(&peer.peer_id)),
            Cell::new(if peer.seed { "seed" } else { "peer" }),
            Cell::new(address(peer)),
            Cell::number(duration(peer.connected_ms)),
            Cell::number(holds(peer)),
            Cell::number(rate(peer.rate_in_bytes_per_second)),
            Cell::number(rate(peer.rate_out_bytes_per_second)),
            Cell::number(bytes(peer.bytes_in)),
            Cell::number(bytes(peer.bytes_duplicate.saturating_add(peer.bytes_unsolicited))),
            Cell::number(bytes(peer.bytes_out)),
            Cell::new(if peer.lan_exempt { "exempt" } else { "apply" }),
            if peer.score < 0 { score.styled(Style::Warn) } else { score },
        ]);
    }
    let mut text = table.render(painter);
    if !view.banned.is_empty() {
        let mut table = Table::new(&["BANNED", "UNTIL", "TIMES", "WHY"]);
        for ban in &view.banned {
            table.row(vec![
                Cell::new(short(&ban.peer_id)),
                Cell::new(ban.until.to_string()),
                Cell::number(ban.offences.to_string()),
                Cell::new(format!("it {}", printable(&ban.reason))).styled(Style::Warn),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render(painter));
    }
    text
}

/// The last eight characters: the ones that differ.
pub(super) fn short(peer_id: &str) -> String {
    let count = peer_id.chars().count();
    peer_id.chars().skip(count.saturating_sub(8)).collect()
}

fn address(peer: &PeerRow) -> String {
    let arrow = if peer.outbound { "to" } else { "from" };
    peer.addresses.first().map_or_else(String::new, |address| format!("{arrow} {address}"))
}

/// `2 whole`, `45 %`, `2 whole, 45 %`: complete artifacts, then the furthest of the others.
fn holds(peer: &PeerRow) -> String {
    let whole = peer.objects.iter().filter(|object| object.pieces_have == object.pieces_total).count();
    let furthest = peer
        .objects
        .iter()
        .filter(|object| object.pieces_have < object.pieces_total)
        .map(|object| percent(object.pieces_have.into(), object.pieces_total.into()))
        .max();
    match (whole, furthest) {
        (0, None) => String::new(),
        (0, Some(share)) => format!("{share} %"),
        (whole, None) => format!("{whole} whole"),
        (whole, Some(share)) => format!("{whole} whole, {share} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::views::{PeerObject, Schema};
    use updraft_protocol::digest::Digest;

    #[test]
    fn a_row_tells_who_where_what_and_how_fast() {
        let object = |pieces_have| PeerObject { artifact: Digest::ZERO, pieces_have, pieces_total: 200 };
        let view = PeersView {
            schema: Schema,
            peers: vec![PeerRow {
                peer_id: "12D3KooWabcdefgh".to_owned(),
                addresses: vec!["/ip4/192.0.2.7/tcp/4880".to_owned()],
                outbound: true,
                seed: false,
                agent: "updraft/0.1.0".to_owned(),
                connected_ms: 61_000,
                rate_in_bytes_per_second: 2048,
                rate_out_bytes_per_second: 0,
                bytes_in: 1024,
                bytes_out: 0,
                bytes_duplicate: 16,
                bytes_unsolicited: 0,
                lan_exempt: true,
                objects: vec![object(200), object(90)],
                score: 0,
            }],
            banned: Vec::new(),
        };
        assert_eq!(
            human(&view, Painter::new(false)),
            "PEER      ROLE  ADDRESS                            UP          HOLDS         IN    OUT  RECEIVED  WASTED  SENT  LIMITS  SCORE\n\
             abcdefgh  peer  to /ip4/192.0.2.7/tcp/4880  1 min 1 s  1 whole, 45 %  2.0 KiB/s  0 B/s   1.0 KiB    16 B   0 B  exempt      0\n"
        );
    }

    #[test]
    fn short_names_do_not_break_on_odd_ids() {
        assert_eq!(short("abc"), "abc");
        assert_eq!(short("ééééééééé"), "éééééééé");
    }
}
