//! `updraft targets`: which products there are, who publishes them, and how low they may go.

use clap::{Args, Subcommand};
use semver::Version;
use updraft_protocol::names::{Product, parse_version};
use updraft_protocol::tuf::RoleName;

use super::ceremony::{self, ChangeFlags, FileCommand, assignment};
use super::{CommandError, ExitCode, GlobalArgs, Output};
use crate::publisher::ceremony::{Change, ProductKeys};
use crate::publisher::keys::Keys;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum TargetsCommand {
    /// Draft the next targets metadata: products, publishers, security floors, or a new expiry
    Draft(DraftArgs),
    /// Commands on a ceremony file.
    #[command(flatten)]
    File(FileCommand),
}

/// As typed.
#[derive(Debug, Args)]
pub struct DraftArgs {
    /// The role that `--renew` renews: targets, or releases-PRODUCT
    #[arg(long, value_name = "NAME", default_value = "targets")]
    pub role: RoleName,
    /// A new expiry
    #[arg(long)]
    pub renew: bool,
    /// Add a product, published with these keys: public files, or labels here
    #[arg(long = "add-product", value_name = "P=PUBFILE[,PUBFILE...]", value_parser = assignment)]
    pub add_products: Vec<(String, String)>,
    /// Ask for so many signatures of a product's releases
    #[arg(long = "product-threshold", value_name = "P=M", value_parser = assignment)]
    pub product_thresholds: Vec<(String, String)>,
    /// Give a product up: its releases disappear
    #[arg(long = "remove-product", value_name = "P")]
    pub remove_products: Vec<Product>,
    /// Let these keys publish a product in place of those it has
    #[arg(long = "product-key", value_name = "P=PUBFILE[,PUBFILE...]", value_parser = assignment)]
    pub product_keys: Vec<(String, String)>,
    /// The lowest version of a product that may be installed
    #[arg(long = "security-floor", value_name = "P=VERSION", value_parser = assignment)]
    pub floors: Vec<(String, String)>,
    /// Sign with the keys here and put it into force in one go
    #[arg(long)]
    pub apply: bool,
    /// What becomes of it.
    #[command(flatten)]
    pub change: ChangeFlags,
}

fn product(text: &str) -> Result<Product, CommandError> {
    text.parse().map_err(|error| CommandError::usage(format!("{error}")))
}

fn with_keys(pairs: &[(String, String)], keys: &Keys) -> Result<Vec<ProductKeys>, CommandError> {
    pairs
        .iter()
        .map(|(name, files)| {
            let keys = files.split(',').map(|text| ceremony::public_key(text, keys)).collect::<Result<_, _>>()?;
            Ok(ProductKeys { product: product(name)?, keys })
        })
        .collect()
}

impl DraftArgs {
    fn change(&self, global: &GlobalArgs) -> Result<Change, CommandError> {
        let keys = self.change.keys.directory(global)?;
        let threshold = |(name, text): &(String, String)| {
            let threshold = text.parse().ok().filter(|threshold: &u64| *threshold > 0);
            let wrong = || CommandError::usage(format!("'{text}' is no number of signatures"));
            Ok::<_, CommandError>((product(name)?, threshold.ok_or_else(wrong)?))
        };
        let floor = |(name, text): &(String, String)| {
            let version: Version = parse_version(text).map_err(|error| CommandError::usage(format!("{error}")))?;
            Ok::<_, CommandError>((product(name)?, version))
        };
        let mut change = Change {
            expires_days: self.change.expires_days,
            add_products: with_keys(&self.add_products, &keys)?,
            remove_products: self.remove_products.clone(),
            product_keys: with_keys(&self.product_keys, &keys)?,
            product_thresholds: self.product_thresholds.iter().map(threshold).collect::<Result<_, _>>()?,
            floors: self.floors.iter().map(floor).collect::<Result<_, _>>()?,
            ..Change::default()
        };
        if self.renew {
            if self.role == RoleName::root() {
                return Err(CommandError::usage("the root is renewed by `updraft root draft --renew`"));
            }
            change.renew.insert(self.role.clone());
        }
        let products = change.add_products.len() + change.remove_products.len() + change.product_keys.len();
        if change.renew.is_empty() && products + change.product_thresholds.len() + change.floors.len() == 0 {
            return Err(CommandError::usage("nothing to draft")
                .with_hint("--renew for a new expiry, or --add-product, --product-key, --security-floor ..."));
        }
        Ok(change)
    }
}

/// Runs the command.
pub fn run(command: TargetsCommand, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    match command {
        TargetsCommand::File(command) => return ceremony::run(command, global, output),
        TargetsCommand::Draft(args) => {
            let change = args.change(global)?;
            let found = ceremony::repository(global)?;
            if args.apply {
                ceremony::carry_out(&change, &args.change, &found, global, output)?;
            } else {
                ceremony::draft(&change, &args.change, &found, output)?;
            }
        }
    }
    Ok(ExitCode::Ok)
}
