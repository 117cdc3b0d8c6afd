//! The software that the demo ships: this very program, its manual, its completions and its documents.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use clap::ValueEnum as _;
use clap_complete::Shell;

const README: &str = include_str!("../../../../README.md");
const ARCHITECTURE: &str = include_str!("../../../../docs/architecture.md");

/// Makes the tree of `version` in `root`, which must not exist.
pub(super) fn make(root: &Path, version: &str) -> io::Result<()> {
    for directory in ["bin", "share/man/man1", "share/completions", "share/doc", "var/empty"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy(std::env::current_exe()?, root.join("bin/updraft"))?;
    fs::set_permissions(root.join("bin/updraft"), fs::Permissions::from_mode(0o755))?;
    symlink("updraft", root.join("bin/ud"))?;
    fs::write(root.join("VERSION"), format!("{version}\n"))?;
    fs::write(root.join("share/doc/README.md"), README)?;
    let mut command = super::super::description();
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut command, "updraft", root.join("share/completions"))?;
    }
    let mut manual = Vec::new();
    clap_mangen::Man::new(command).render(&mut manual)?;
    fs::write(root.join("share/man/man1/updraft.1"), manual)?;
    if version != super::FIRST {
        fs::write(root.join("share/doc/architecture.md"), ARCHITECTURE)?;
        fs::write(root.join("share/doc/NEWS"), format!("{version} brings a document and this file.\n"))?;
    }
    Ok(())
}
