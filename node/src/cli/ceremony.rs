//! Ceremony files on the command line: what `updraft root` and `updraft targets` share.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use updraft_protocol::key::{PublicKey, SigningKey};
use updraft_protocol::tuf::{Ceremony, CeremonyChange, CeremonyError, Quorum, RoleName};

use super::output::{Painter, Style};
use super::passphrase::PassphraseFlags;
use super::units::printable;
use super::{CommandError, ExitCode, GlobalArgs, Output, absolute, ask};
use crate::atomic;
use crate::control::client::{Client, ClientError};
use crate::control::messages::Request;
use crate::control::results::ApplyView;
use crate::control::views::Schema;
use crate::publisher::ceremony::{self, Change, ChangeError};
use crate::publisher::keys::{self, Keys, KeysError};
use crate::runtime::ceremony as runtime;
use crate::runtime::inspect::{self, InspectError, Inspected};
use crate::runtime::open::wall_clock;

/// Where keys are.
#[derive(Debug, Clone, Default, Args)]
pub struct KeysFlags {
    /// A directory of keys alone [default: `keys` in the node's directory]
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// How encrypted keys are opened.
    #[command(flatten)]
    pub passphrase: PassphraseFlags,
}

impl KeysFlags {
    /// The directory of keys.
    pub fn directory(&self, global: &GlobalArgs) -> Result<Keys, CommandError> {
        match &self.keys {
            Some(directory) => Ok(Keys::at(absolute(directory)?)),
            None => Ok(Keys::new(&global.data_dir()?)),
        }
    }

    /// The directory of keys, with somebody who opens those that are encrypted.
    pub fn open(&self, global: &GlobalArgs, output: &Output) -> Result<Keys, CommandError> {
        Ok(self.directory(global)?.with_unlock(self.passphrase.unlock(output)?))
    }
}

/// What becomes of a change.
#[derive(Debug, Clone, Args)]
pub struct ChangeFlags {
    /// Write the ceremony file here; it must not exist
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Days that the new metadata is valid
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=3650))]
    pub expires_days: Option<i64>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Which keys are used.
    #[command(flatten)]
    pub keys: KeysFlags,
}

/// Commands on a ceremony file.
#[derive(Debug, Subcommand)]
pub enum FileCommand {
    /// Show what a ceremony file changes, who has signed and who has not
    Show {
        /// The ceremony file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Sign a ceremony file with the keys here; needs no network and no repository
    Sign(SignArgs),
    /// Put the signatures of several copies of a ceremony file into one
    Merge {
        /// Copies of one ceremony file
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Write the result here
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Put a signed ceremony file into force (at the seed, running or not)
    Apply {
        /// The ceremony file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// As typed.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The ceremony file; of several copies the signatures are put together
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Sign with this key alone; repeatable [default: every key here that may sign]
    #[arg(long = "key", value_name = "LABEL")]
    pub labels: Vec<String>,
    /// Write the signed file here [default: over the first file]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Which keys are used.
    #[command(flatten)]
    pub keys: KeysFlags,
}

/// `updraft root show` and `updraft targets show`.
#[derive(Debug, Serialize)]
struct CeremonyView {
    schema: Schema,
    /// None where the file holds only the end of a very long root chain.
    repository: Option<String>,
    root_version: u64,
    digest: String,
    roles: Vec<RoleRow>,
    changes: Vec<CeremonyChange>,
    signatures: Vec<QuorumRow>,
    complete: bool,
}

#[derive(Debug, Serialize)]
struct RoleRow {
    role: RoleName,
    version: u64,
}

#[derive(Debug, Serialize)]
struct QuorumRow {
    role: RoleName,
    by: RoleName,
    by_version: u64,
    threshold: u64,
    signed: Vec<String>,
    missing: Vec<String>,
    reached: bool,
}

impl From<Quorum> for QuorumRow {
    fn from(quorum: Quorum) -> Self {
        let reached = quorum.is_reached();
        let texts = |ids: Vec<updraft_protocol::key::KeyId>| ids.into_iter().map(String::from).collect();
        Self {
            role: quorum.role,
            by: quorum.by,
            by_version: quorum.by_version,
            threshold: quorum.threshold,
            signed: texts(quorum.signed),
            missing: texts(quorum.missing),
            reached,
        }
    }
}

fn view(ceremony: &Ceremony) -> CeremonyView {
    CeremonyView {
        schema: Schema,
        repository: ceremony.repository().map(|repository| repository.to_string()),
        root_version: ceremony.base_root().version,
        digest: ceremony.digest().to_string(),
        roles: ceremony.roles().into_iter().map(|(role, version)| RoleRow { role, version }).collect(),
        changes: ceremony.changes(),
        signatures: ceremony.quorums().into_iter().map(QuorumRow::from).collect(),
        complete: ceremony.finish().is_ok(),
    }
}

fn human(view: &CeremonyView, painter: Painter) -> String {
    let mut text = String::new();
    let repository = view.repository.as_deref().unwrap_or("unknown: compare the digest with whoever drafted this");
    let _ = writeln!(text, "repository  {repository}");
    let _ = writeln!(text, "builds on   root {}", view.root_version);
    let _ = writeln!(text, "digest      {}", view.digest);
    let _ = writeln!(text, "\n{}", painter.paint(Style::Bold, "changes"));
    for change in &view.changes {
        let _ = writeln!(text, "  {}", printable(&change.to_string()));
    }
    let _ = writeln!(text, "\n{}", painter.paint(Style::Bold, "signatures"));
    for row in &view.signatures {
        let (role, by) = (printable(&row.role.to_string()), printable(&row.by.to_string()));
        let count = format!("{} of {} as {by} {} asks", row.signed.len(), row.threshold, row.by_version);
        let style = if row.reached { Style::Good } else { Style::Warn };
        let _ = writeln!(text, "  {role}: {}", painter.paint(style, &count));
        for keyid in &row.signed {
            let _ = writeln!(text, "    signed      {}", printable(keyid));
        }
        for keyid in &row.missing {
            let _ = writeln!(text, "    not signed  {}", printable(keyid));
        }
    }
    text
}

impl From<KeysError> for CommandError {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Label(_) => Self::usage(error.to_string()),
            _ => Self::error(error.to_string()),
        }
    }
}

impl From<InspectError> for CommandError {
    fn from(error: InspectError) -> Self {
        Self::error(error.to_string())
    }
}

impl From<CeremonyError> for CommandError {
    fn from(error: CeremonyError) -> Self {
        match error {
            CeremonyError::Nothing => Self::new(ExitCode::NothingToDo, error.to_string()),
            CeremonyError::Base(_) | CeremonyError::BadSignature { .. } | CeremonyError::Verify(_) => {
                Self::new(ExitCode::VerificationFailed, error.to_string())
            }
            _ => Self::error(error.to_string()),
        }
    }
}

impl From<ChangeError> for CommandError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Ceremony(error) => error.into(),
            ChangeError::WhichKey { .. } | ChangeError::NoSuchKey { .. } | ChangeError::NoSuchRole(_) => {
                Self::usage(error.to_string()).with_hint("updraft key list shows the roles and their keys")
            }
            ChangeError::SignsItself(_) | ChangeError::InForce => Self::new(ExitCode::NothingToDo, error.to_string()),
            _ => Self::error(error.to_string()),
        }
    }
}

/// The public key that a person names: a file, or the label of a key that is here.
pub fn public_key(text: &str, keys: &Keys) -> Result<PublicKey, CommandError> {
    let path = Path::new(text);
    if path.is_file() {
        return Ok(keys::read_public(path)?);
    }
    match keys.get(text) {
        Ok(entry) => entry.public.clone().ok_or_else(|| {
            CommandError::error(entry.problem.unwrap_or_else(|| format!("the public half of {text} is not known")))
        }),
        Err(KeysError::Unknown { .. } | KeysError::Label(_)) => Err(CommandError::usage(format!(
            "'{}' is neither a public key file nor a key that is here",
            printable(text)
        ))
        .with_hint("make one: updraft key generate NAME; its public half is NAME.pub")),
        Err(error) => Err(error.into()),
    }
}

/// `NAME=VALUE`.
pub fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

fn read(file: &Path) -> Result<Ceremony, CommandError> {
    Ok(runtime::read(file)?)
}

fn write(ceremony: &Ceremony, file: &Path) -> Result<(), CommandError> {
    atomic::write(file, &ceremony.encode(), 0o644)
        .map_err(|error| CommandError::error(format!("{} cannot be written: {error}", file.display())))
}

fn write_new(ceremony: &Ceremony, file: &Path) -> Result<(), CommandError> {
    if file.exists() {
        return Err(CommandError::usage(format!("{} exists", file.display())).with_hint("choose another --output"));
    }
    write(ceremony, file)
}

/// Runs a command on a file.
pub fn run(command: FileCommand, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    match command {
        FileCommand::Show { file } => output.answer(&view(&read(&file)?), human)?,
        FileCommand::Sign(args) => sign(&args, global, output)?,
        FileCommand::Merge { files, output: to } => {
            let ceremony = merged(&files)?;
            write_new(&ceremony, &to)?;
            output.answer(&view(&ceremony), human)?;
            what_next(&ceremony, &to, output);
        }
        FileCommand::Apply { file } => {
            read(&file)?;
            let view = apply(&global.data_dir()?, &absolute(&file)?, output)?;
            output.answer(&view, applied)?;
        }
    }
    Ok(ExitCode::Ok)
}

fn merged(files: &[PathBuf]) -> Result<Ceremony, CommandError> {
    let (first, rest) = files.split_first().ok_or_else(|| CommandError::usage("name a ceremony file"))?;
    let mut ceremony = read(first)?;
    for file in rest {
        ceremony.merge(&read(file)?)?;
    }
    Ok(ceremony)
}

fn agreed(yes: bool, question: &str, output: &mut Output) -> Result<(), CommandError> {
    if yes {
        return Ok(());
    }
    if !output.can_prompt() {
        return Err(CommandError::usage("this needs a yes").with_hint("there is no terminal to ask on; add --yes"));
    }
    if output.confirm(question)? { Ok(()) } else { Err(CommandError::error("nothing was signed")) }
}

/// The keys here that may sign, or those of them that were named.
fn signing_keys(ceremony: &Ceremony, keys: &Keys, labels: &[String]) -> Result<Vec<SigningKey>, CommandError> {
    let authorised = ceremony.authorised();
    if labels.is_empty() {
        return Ok(keys.all(&authorised)?);
    }
    let mut chosen = Vec::new();
    for label in labels {
        let entry = keys.get(label)?;
        if entry.id().is_some_and(|keyid| !authorised.lists(&keyid)) {
            return Err(CommandError::usage(format!("the key {label} may not sign this"))
                .with_hint("updraft root show FILE lists who may"));
        }
        chosen.push(keys.open(&entry)?);
    }
    Ok(chosen)
}

fn sign(args: &SignArgs, global: &GlobalArgs, output: &mut Output) -> Result<(), CommandError> {
    let mut ceremony = merged(&args.files)?;
    let keys = args.keys.open(global, output)?;
    if !output.is_json() {
        output.text(human(&view(&ceremony), output.painter()))?;
    }
    agreed(args.yes, "Sign this?", output)?;
    let signing = signing_keys(&ceremony, &keys, &args.labels)?;
    if signing.is_empty() {
        return Err(CommandError::error(format!("no key in {} may sign this", keys.directory().display()))
            .with_hint("name the directory with --keys DIR; updraft root show FILE lists who may sign"));
    }
    let added = ceremony.sign(&signing.iter().collect::<Vec<_>>())?;
    let to = args.output.as_deref().unwrap_or(&args.files[0]);
    write(&ceremony, to)?;
    if output.is_json() {
        output.json(&view(&ceremony))?;
    }
    for (role, keyid) in &added {
        output.note(format_args!("{role} is signed by {keyid}"));
    }
    if added.is_empty() {
        output.note("these keys have signed already");
    }
    what_next(&ceremony, to, output);
    Ok(())
}

fn what_next(ceremony: &Ceremony, file: &Path, output: &mut Output) {
    let file = file.display();
    match ceremony.finish() {
        Ok(_) => output.note(format_args!("all signatures are there; at the seed: updraft root apply {file}")),
        Err(error) => {
            output.note(error);
            output.note(format_args!("pass {file} to the holders of those keys: updraft root sign {file}"));
        }
    }
}

fn apply(data_dir: &Path, file: &Path, output: &mut Output) -> Result<ApplyView, CommandError> {
    match Client::connect(data_dir) {
        Ok(client) => ask::converse(client, &Request::Apply { path: file.to_owned() }, output),
        Err(ClientError::Unreachable { .. }) => Ok(runtime::apply_offline(data_dir, &read(file)?)?),
        Err(error) => Err(error.into()),
    }
}

fn applied(view: &ApplyView, _painter: Painter) -> String {
    let roles: Vec<String> = view.roles.iter().map(|role| format!("{} {}", role.role, role.version)).collect();
    format!("in force: {} (head {})\n", roles.join(", "), view.timestamp_version)
}

/// The repository of this directory.
pub fn repository(global: &GlobalArgs) -> Result<Inspected, CommandError> {
    Ok(inspect::repository(&global.data_dir()?)?)
}

/// A ceremony for `change`, checked like any other.
fn drafted(change: &Change, found: &Inspected) -> Result<Ceremony, CommandError> {
    Ok(ceremony::draft(&found.view.trusted, found.roots.clone(), change, wall_clock())?)
}

/// Writes the ceremony file of a change, unsigned.
pub fn draft(change: &Change, flags: &ChangeFlags, found: &Inspected, output: &mut Output) -> Result<(), CommandError> {
    let Some(file) = &flags.output else {
        return Err(CommandError::usage("say where the ceremony file goes").with_hint("--output FILE, or --apply"));
    };
    let ceremony = drafted(change, found)?;
    write_new(&ceremony, file)?;
    output.answer(&view(&ceremony), human)?;
    what_next(&ceremony, file, output);
    Ok(())
}

/// Signs a change with the keys here and puts it into force; what lacks signatures becomes a file for
/// those who hold the other keys.
pub fn carry_out(
    change: &Change,
    flags: &ChangeFlags,
    found: &Inspected,
    global: &GlobalArgs,
    output: &mut Output,
) -> Result<(), CommandError> {
    let mut ceremony = drafted(change, found)?;
    let keys = flags.keys.open(global, output)?;
    if !output.is_json() {
        output.text(human(&view(&ceremony), output.painter()))?;
    }
    agreed(flags.yes, "Sign this with the keys here?", output)?;
    let signing = keys.all(&ceremony.authorised())?;
    ceremony.sign(&signing.iter().collect::<Vec<_>>())?;
    if let Err(error) = ceremony.finish() {
        let default = || {
            let (role, version) = ceremony.roles().into_iter().next().unwrap_or((RoleName::root(), 0));
            PathBuf::from(format!("{}-{version}.ceremony.json", role.file_stem()))
        };
        let file = flags.output.clone().unwrap_or_else(default);
        write_new(&ceremony, &file)?;
        if output.is_json() {
            output.json(&view(&ceremony))?;
        }
        output.note(error);
        output.note(format_args!(
            "nothing is in force yet: {} is for the holders of those keys (updraft root sign), then for the seed (updraft root apply)",
            file.display()
        ));
        return Ok(());
    }
    let data_dir = global.data_dir()?;
    let failed =
        |error: std::io::Error| CommandError::error(format!("cannot write to {}: {error}", data_dir.display()));
    let handed = tempfile::NamedTempFile::new_in(&data_dir).map_err(failed)?;
    std::fs::write(handed.path(), ceremony.encode()).map_err(failed)?;
    // Nothing in it is secret, and the node may run as another user.
    std::fs::set_permissions(handed.path(), std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
    let view = apply(&data_dir, handed.path(), output)?;
    output.answer(&view, applied)?;
    Ok(())
}
