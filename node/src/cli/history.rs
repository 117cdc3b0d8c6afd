//! `updraft history`: what happened here, newest first.

use clap::Args;
use updraft_protocol::names::Product;

use super::output::{Painter, Style};
use super::table::{Cell, Table};
use super::{CommandError, ExitCode, GlobalArgs, Output, ask};
use crate::control::messages::Request;
use crate::control::views::HistoryView;

/// As typed.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Only this product's
    #[arg(value_name = "PRODUCT")]
    pub product: Option<Product>,
    /// So many entries, the newest
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// Lists the history.
pub fn run(args: HistoryArgs, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let request = Request::History { product: args.product, limit: args.limit };
    let view: HistoryView = ask::ask(&global.data_dir()?, &request, output)?;
    output.answer(&view, human)?;
    if view.entries.is_empty() {
        output.note("nothing happened yet");
    }
    Ok(ExitCode::Ok)
}

fn human(view: &HistoryView, painter: Painter) -> String {
    let mut table = Table::new(&["TIME", "PRODUCT", "VERSION", "WHAT", "DETAIL"]);
    for row in &view.entries {
        let good = matches!(row.kind.as_str(), "installed" | "published" | "fetch_complete");
        let style = if good { Style::Good } else { Style::Warn };
        table.row(vec![
            Cell::new(row.at.to_string()),
            Cell::new(row.product.as_ref().map(Product::as_str).unwrap_or_default()),
            Cell::new(row.version.as_deref().unwrap_or_default()),
            Cell::new(&row.kind).styled(style),
            Cell::new(&row.text),
        ]);
    }
    table.render(painter)
}
