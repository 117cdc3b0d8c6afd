//! `updraft fleet`: what the nodes run and how their installs ended, in their own words.

use std::fmt::Write as _;

use clap::Args;

use super::output::{Painter, Style};
use super::table::{Cell, Table};
use super::units::printable;
use super::{CommandError, ExitCode, GlobalArgs, Output, ask};
use crate::control::fleet::{FleetView, MAX_LISTED_NODES};
use crate::control::messages::Request;

/// As typed.
#[derive(Debug, Args)]
pub struct FleetArgs {
    /// Nodes to list, those that failed first
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_LISTED_NODES)))]
    pub limit: u32,
}

/// Lists the fleet.
pub fn run(args: &FleetArgs, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let view: FleetView = ask::ask(&global.data_dir()?, &Request::Fleet { limit: args.limit }, output)?;
    output.answer(&view, human)?;
    if view.nodes_known == 0 {
        output.note("no node has been here yet; `updraft ticket` prints what nodes join by");
    }
    Ok(ExitCode::Ok)
}

fn human(view: &FleetView, painter: Painter) -> String {
    let mut text = String::new();
    for paused in &view.paused {
        let why = paused.reason.as_ref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
        let line = format!("{}:{} is paused{why}", paused.product, paused.channel);
        text += &painter.paint(Style::Warn, &line);
        text.push('\n');
    }
    if !view.paused.is_empty() {
        text.push('\n');
    }
    let mut table = Table::new(&["PRODUCT", "VERSION", "RUNNING", "PENDING", "FAILED"]);
    for row in &view.versions {
        let style = if row.failed > 0 { Style::Bad } else { Style::Plain };
        table.row(vec![
            Cell::new(row.product.as_str()),
            Cell::new(&row.version),
            Cell::number(row.running.to_string()),
            Cell::number(row.pending.to_string()),
            Cell::number(row.failed.to_string()).styled(style),
        ]);
    }
    text.push_str(&table.render(painter));
    if view.nodes.is_empty() {
        return text;
    }
    text.push('\n');
    text.push_str(&nodes(view, painter));
    let hidden = view.nodes_known.saturating_sub(view.nodes.len() as u64);
    if hidden > 0 {
        let _ = writeln!(text, "{hidden} more nodes; --limit shows more");
    }
    text
}

fn nodes(view: &FleetView, painter: Painter) -> String {
    let mut table = Table::new(&["NODE", "LAST SEEN", "PRODUCT", "RUNS", "LAST INSTALL", "WORDS"]);
    for node in &view.nodes {
        let short = &node.peer_id[node.peer_id.len().saturating_sub(8)..];
        let seen = if node.connected { "now".to_owned() } else { node.last_seen.to_string() };
        if node.products.is_empty() {
            table.row([short, &seen, "", "", "", ""].into_iter().map(Cell::new).collect());
        }
        for product in &node.products {
            let state = product.state.as_deref().unwrap_or_default();
            let last = [product.version.as_deref().unwrap_or_default(), state].join(" ");
            let style = match state {
                "failed" | "rolled_back" => Style::Bad,
                "installed" => Style::Good,
                _ => Style::Plain,
            };
            table.row(vec![
                Cell::new(short),
                Cell::new(&seen),
                Cell::new(format!("{}:{}", product.product, product.channel)),
                Cell::new(product.runs.as_deref().unwrap_or_default()),
                Cell::new(last.trim()).styled(style),
                Cell::new(product.text.as_deref().unwrap_or_default()),
            ]);
        }
    }
    table.render(painter)
}
