//! `updraft gc`: removes what nothing needs, and tells why the rest stays.

use clap::Args;
use updraft_protocol::names::{Platform, Product};

use super::output::{Painter, Style};
use super::table::{Cell, Table};
use super::units::bytes;
use super::{CommandError, ExitCode, GlobalArgs, Output, ask};
use crate::control::garbage::{GcArtifact, GcTree, GcView};
use crate::control::messages::Request;

/// As typed.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Only tell what would go
    #[arg(long)]
    pub dry_run: bool,
}

/// Collects, or tells what would be collected.
pub fn run(args: &GcArgs, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let view: GcView = ask::ask(&global.data_dir()?, &Request::Gc { dry_run: args.dry_run }, output)?;
    output.answer(&view, human)?;
    for warning in &view.warnings {
        output.note(format_args!("warning: {warning}"));
    }
    output.note(summary(&view));
    Ok(ExitCode::Ok)
}

fn human(view: &GcView, painter: Painter) -> String {
    if view.artifacts.is_empty() && view.trees.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["WHAT", "PRODUCT", "VERSION", "SIZE", "VERDICT", "WHY"]);
    let verdict = |goes: bool| match (goes, view.dry_run) {
        (true, true) => Cell::new("would go").styled(Style::Warn),
        (true, false) => Cell::new("gone").styled(Style::Warn),
        (false, _) => Cell::new("stays"),
    };
    for GcArtifact { product, version, platform, size_bytes, goes, reason, sha256 } in &view.artifacts {
        let version = version.clone().unwrap_or_else(|| sha256.short());
        let version = match platform.as_ref().filter(|platform| **platform != Platform::any()) {
            Some(platform) => format!("{version} {platform}"),
            None => version,
        };
        table.row(vec![
            Cell::new("artifact"),
            Cell::new(product.as_ref().map(Product::as_str).unwrap_or_default()),
            Cell::new(version),
            Cell::number(bytes(*size_bytes)),
            verdict(*goes),
            Cell::new(reason),
        ]);
    }
    for GcTree { product, name, size_bytes, goes, reason, .. } in &view.trees {
        table.row(vec![
            Cell::new("tree"),
            Cell::new(product.as_str()),
            Cell::new(name),
            Cell::number(bytes(*size_bytes)),
            verdict(*goes),
            Cell::new(reason),
        ]);
    }
    table.render(painter)
}

fn summary(view: &GcView) -> String {
    let freed = bytes(view.bytes_freed);
    let freed = match (view.bytes_freed, view.dry_run) {
        (0, _) => "nothing to remove".to_owned(),
        (_, true) => format!("{freed} would be freed"),
        (_, false) => format!("{freed} freed"),
    };
    let held = bytes(view.cache_bytes);
    match view.cache_limit_bytes {
        Some(limit) if view.cache_bytes > limit => {
            format!("{freed}; {held} of artifacts stay, over the limit of {}: each is needed", bytes(limit))
        }
        Some(limit) => format!("{freed}; {held} of artifacts stay, of {} allowed", bytes(limit)),
        None => format!("{freed}; {held} of artifacts stay"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::views::Schema;
    use updraft_protocol::digest::Digest;

    fn view(dry_run: bool) -> GcView {
        let artifact = |version: Option<&str>, goes: bool, reason: &str| GcArtifact {
            sha256: Digest::from([0xab; 32]),
            product: version.map(|_| "app".parse().expect("a name")),
            version: version.map(str::to_owned),
            platform: version.map(|_| Platform::any()),
            size_bytes: 2048,
            goes,
            reason: reason.to_owned(),
        };
        let tree = |name: &str, goes: bool, reason: &str| GcTree {
            directory: "/opt/app".into(),
            product: "app".parse().expect("a name"),
            name: name.to_owned(),
            size_bytes: 4096,
            goes,
            reason: reason.to_owned(),
            pid: None,
        };
        GcView {
            schema: Schema,
            dry_run,
            bytes_freed: 6144,
            cache_bytes: 2048,
            cache_limit_bytes: Some(1024),
            artifacts: vec![artifact(Some("2.0.0"), false, "is installed"), artifact(None, true, "nothing needs it")],
            trees: vec![tree("1.0.0-abababab", true, "nothing needs it")],
            warnings: Vec::new(),
        }
    }

    #[test]
    fn what_goes_and_what_stays_is_one_table() {
        let expected = "\
WHAT      PRODUCT  VERSION            SIZE  VERDICT   WHY
artifact  app      2.0.0           2.0 KiB  stays     is installed
artifact  -        abababab        2.0 KiB  would go  nothing needs it
tree      app      1.0.0-abababab  4.0 KiB  would go  nothing needs it
";
        assert_eq!(human(&view(true), Painter::new(false)), expected);
    }

    #[test]
    fn the_summary_tells_what_is_over_the_limit() {
        assert_eq!(
            summary(&view(false)),
            "6.0 KiB freed; 2.0 KiB of artifacts stay, over the limit of 1.0 KiB: each is needed"
        );
    }
}
