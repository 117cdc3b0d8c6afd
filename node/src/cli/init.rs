//! `updraft init`: a repository out of nothing.

use std::path::PathBuf;

use clap::Args;
use updraft_protocol::names::Product;

use super::{CommandError, ExitCode, GlobalArgs, Output};
use crate::runtime::open::Opened;

/// As typed.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// A product to publish; repeatable, more can follow later
    #[arg(long = "product", value_name = "P")]
    pub products: Vec<Product>,
}

/// As meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitOptions {
    /// Where the repository and its keys go.
    pub data_dir: PathBuf,
    /// The first products, each once.
    pub products: Vec<Product>,
}

impl InitArgs {
    /// Checks what was typed.
    pub fn options(self, global: &GlobalArgs) -> Result<InitOptions, CommandError> {
        let mut products = self.products;
        products.sort();
        let twice = products.windows(2).find_map(|pair| match pair {
            [a, b] if a == b => Some(a),
            _ => None,
        });
        if let Some(twice) = twice {
            return Err(CommandError::usage(format!("the product '{twice}' is named twice")));
        }
        Ok(InitOptions { data_dir: global.data_dir()?, products })
    }
}

/// Creates the repository.
pub fn run(options: &InitOptions, output: &mut Output) -> Result<ExitCode, CommandError> {
    let opened =
        Opened::create(&options.data_dir, &options.products).map_err(|error| CommandError::error(error.to_string()))?;
    let products: Vec<&str> = options.products.iter().map(Product::as_str).collect();
    output.line(format_args!("repository {} is made in {}", opened.repository, options.data_dir.display()))?;
    if !products.is_empty() {
        output.line(format_args!("products: {}", products.join(", ")))?;
    }
    let view = opened.own_view(&options.data_dir).map_err(|error| CommandError::error(error.to_string()))?;
    let offline = opened.keys.offline_here(&view.trusted).map_err(|error| CommandError::error(error.to_string()))?;
    output
        .line("These keys decide what is trusted. Keep copies where this machine cannot reach them, and take them")?;
    output.line("away from here before the seed faces a network that you do not trust:")?;
    for (_, label) in offline {
        output.line(format_args!("  {}", opened.keys.path(&label).display()))?;
    }
    output.line("Next: updraft seed, and updraft publish PATH --product P --version V")?;
    Ok(ExitCode::Ok)
}
