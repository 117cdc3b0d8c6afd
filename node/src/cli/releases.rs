//! `updraft releases`: what the node knows.

use clap::Args;
use updraft_protocol::names::Product;

use super::output::{Painter, Style};
use super::table::{Cell, Table};
use super::units::{bytes, percent};
use super::{CommandError, ExitCode, GlobalArgs, Output, ask};
use crate::control::messages::Request;
use crate::control::views::{LocalCopy, ReleaseRow, ReleasesView};

/// As typed.
#[derive(Debug, Args)]
pub struct ReleasesArgs {
    /// Only this product's
    #[arg(value_name = "PRODUCT")]
    pub product: Option<Product>,
}

/// Lists the releases.
pub fn run(args: ReleasesArgs, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let view: ReleasesView = ask::ask(&global.data_dir()?, &Request::Releases { product: args.product }, output)?;
    output.answer(&view, human)?;
    if view.releases.is_empty() {
        output.note("no releases are known; publish one at the seed, or wait for the first head (`updraft status`)");
    }
    Ok(ExitCode::Ok)
}

fn human(view: &ReleasesView, painter: Painter) -> String {
    let mut table = Table::new(&["PRODUCT", "VERSION", "PLATFORM", "CHANNELS", "SIZE", "ROLLOUT", "LOCAL", "SENT"]);
    for row in &view.releases {
        let channels: Vec<_> = row.channels.iter().map(ToString::to_string).collect();
        table.row(vec![
            Cell::new(row.product.as_str()),
            Cell::new(&row.version),
            Cell::new(row.platform.as_str()),
            Cell::new(channels.join(",")),
            Cell::number(bytes(row.size_bytes)),
            Cell::number(format!("{} %", row.rollout_percent)),
            local(row),
            sent(row),
        ]);
    }
    table.render(painter)
}

/// How often it left this node.
fn sent(row: &ReleaseRow) -> Cell {
    Cell::new(if row.bytes_sent == 0 { String::new() } else { format!("{} copies", row.copies_sent) })
}

fn local(row: &ReleaseRow) -> Cell {
    match row.local {
        LocalCopy::Complete => Cell::new("complete").styled(Style::Good),
        LocalCopy::Partial => Cell::new(format!("{} %", percent(row.bytes_local, row.size_bytes))),
        LocalCopy::Absent => Cell::new("absent").styled(Style::Dim),
    }
}
