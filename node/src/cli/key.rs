//! `updraft key`: the private keys here, which roles they hold, and carrying them elsewhere.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use updraft_protocol::key::KeyId;
use updraft_protocol::tuf::{RoleName, Trusted};

use super::ceremony::KeysFlags;
use super::output::{Painter, Style};
use super::table::{Cell, Table};
use super::units::printable;
use super::{CommandError, ExitCode, GlobalArgs, Output};
use crate::control::views::Schema;
use crate::publisher::keys::{KeyEntry, Keys, is_online, short};
use crate::runtime::inspect;

mod rotate;

pub use rotate::{RevokeArgs, RotateArgs};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key; needs no repository
    Generate(GenerateArgs),
    /// List the keys here and the roles they hold, and the keys that are elsewhere
    List(KeysFlags),
    /// Copy a key into a file, or move it away
    Export(ExportArgs),
    /// Take a key from a file in
    Import(ImportArgs),
    /// Put another key in the place of one of a role's
    Rotate(RotateArgs),
    /// Take a key from every role that lists it
    Revoke(RevokeArgs),
    /// Give a key another passphrase, or none
    Passphrase(PassphraseArgs),
}

/// As typed.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// What the key is called: letters, digits and . _ -
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Encrypt it under a passphrase
    #[arg(long)]
    pub passphrase: bool,
    /// Where it goes.
    #[command(flatten)]
    pub keys: KeysFlags,
}

/// As typed.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Which key
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The file; it must not exist
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Only the public half
    #[arg(long)]
    pub public: bool,
    /// Remove it here once the copy is safe
    #[arg(long = "move", conflicts_with = "public")]
    pub moves: bool,
    /// Where it is.
    #[command(flatten)]
    pub keys: KeysFlags,
}

/// As typed.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A private key file in PKCS#8 PEM form
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What it is called here [default: the file's name without its ending]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where it goes.
    #[command(flatten)]
    pub keys: KeysFlags,
}

/// As typed.
#[derive(Debug, Args)]
pub struct PassphraseArgs {
    /// Which key
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Leave it without one, as a running seed needs its online keys
    #[arg(long)]
    pub remove: bool,
    /// The new passphrase is the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "remove")]
    pub new_passphrase_file: Option<PathBuf>,
    /// Where it is, and how it is opened.
    #[command(flatten)]
    pub keys: KeysFlags,
}

/// `updraft key list --json`.
#[derive(Debug, Serialize)]
struct ListView {
    schema: Schema,
    directory: PathBuf,
    keys: Vec<KeyRow>,
    roles: Vec<RoleRow>,
}

#[derive(Debug, Serialize)]
struct KeyRow {
    label: String,
    key_id: Option<String>,
    scheme: Option<String>,
    encrypted: bool,
    roles: Vec<RoleName>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct RoleRow {
    role: RoleName,
    /// Whether a running seed signs it by itself.
    online: bool,
    threshold: u64,
    keys: Vec<RoleKey>,
}

#[derive(Debug, Serialize)]
struct RoleKey {
    key_id: String,
    /// The key's label where it is here; none where it is elsewhere.
    label: Option<String>,
}

/// Runs the command.
pub fn run(command: KeyCommand, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    match command {
        KeyCommand::Generate(args) => generate(&args, global, output)?,
        KeyCommand::List(flags) => list(&flags, global, output)?,
        KeyCommand::Export(args) => export(&args, global, output)?,
        KeyCommand::Import(args) => import(&args, global, output)?,
        KeyCommand::Rotate(args) => rotate::rotate(&args, global, output)?,
        KeyCommand::Revoke(args) => rotate::revoke(&args, global, output)?,
        KeyCommand::Passphrase(args) => passphrase(&args, global, output)?,
    }
    Ok(ExitCode::Ok)
}

fn row(entry: &KeyEntry, trusted: Option<&Trusted>) -> KeyRow {
    let keyid = entry.id();
    let holds = |trusted: &Trusted| {
        let roles = trusted.signed_roles().into_iter();
        let lists = |role: &RoleName| {
            let signers = trusted.signers(role);
            keyid.as_ref().is_some_and(|keyid| signers.is_some_and(|signers| signers.lists(keyid)))
        };
        roles.filter(lists).collect()
    };
    KeyRow {
        label: entry.label.clone(),
        key_id: keyid.as_ref().map(|keyid| keyid.as_str().to_owned()),
        scheme: entry.public.as_ref().map(|public| public.scheme().as_str().to_owned()),
        encrypted: entry.encrypted,
        roles: trusted.map(holds).unwrap_or_default(),
        problem: entry.problem.clone(),
    }
}

fn generate(args: &GenerateArgs, global: &GlobalArgs, output: &mut Output) -> Result<(), CommandError> {
    let keys = args.keys.directory(global)?;
    let flags = &args.keys.passphrase;
    let locked = args.passphrase || flags.passphrase_file.is_some();
    let passphrase = locked.then(|| flags.choose(&args.name, output)).transpose()?;
    keys.generate(&args.name, passphrase.as_ref())?;
    answer(&keys.get(&args.name)?, output)
}

fn answer(entry: &KeyEntry, output: &mut Output) -> Result<(), CommandError> {
    if output.is_json() {
        #[derive(Serialize)]
        struct View {
            schema: Schema,
            #[serde(flatten)]
            key: KeyRow,
        }
        return output.json(&View { schema: Schema, key: row(entry, None) });
    }
    let keyid = entry.id().map(|keyid| keyid.to_string()).unwrap_or_default();
    output.line(format_args!("{}  {}", entry.label, printable(&keyid)))?;
    output.note(format_args!("private: {}", entry.path.display()));
    output.note(format_args!("public:  {}  (this one may be passed on)", entry.path.with_extension("pub").display()));
    Ok(())
}

fn list(flags: &KeysFlags, global: &GlobalArgs, output: &mut Output) -> Result<(), CommandError> {
    let keys = flags.directory(global)?;
    let listed = keys.list()?;
    let found = inspect::look(&global.data_dir()?)?;
    let trusted = found.as_ref().map(|found| &found.view.trusted);
    let label = |keyid: &KeyId| {
        let of = |entry: &&KeyEntry| entry.id().as_ref() == Some(keyid);
        listed.iter().find(of).map(|entry| entry.label.clone())
    };
    let role = |role: RoleName| {
        let signers = trusted?.signers(&role)?;
        let key = |keyid: &KeyId| RoleKey { key_id: keyid.as_str().to_owned(), label: label(keyid) };
        let keys = signers.keys.iter().map(|(keyid, _)| key(keyid)).collect();
        Some(RoleRow { online: is_online(&role), threshold: signers.threshold, keys, role })
    };
    let roles = trusted.map(Trusted::signed_roles).unwrap_or_default();
    let view = ListView {
        schema: Schema,
        directory: keys.directory().to_owned(),
        keys: listed.iter().map(|entry| row(entry, trusted)).collect(),
        roles: roles.into_iter().filter_map(role).collect(),
    };
    output.answer(&view, human)
}

fn human(view: &ListView, painter: Painter) -> String {
    let short = |keyid: &str| keyid.chars().take(16).collect::<String>();
    let mut table = Table::new(&["KEY", "KEY ID", "SCHEME", "PASSPHRASE", "ROLES", "PROBLEM"]);
    for row in &view.keys {
        let roles: Vec<&str> = row.roles.iter().map(RoleName::as_str).collect();
        table.row(vec![
            Cell::new(&row.label),
            Cell::new(row.key_id.as_deref().map(short).unwrap_or_default()),
            Cell::new(row.scheme.as_deref().unwrap_or_default()),
            Cell::new(if row.encrypted { "yes" } else { "no" }),
            Cell::new(roles.join(",")),
            Cell::new(row.problem.as_deref().unwrap_or_default()).styled(Style::Bad),
        ]);
    }
    let mut text = table.render(painter);
    if view.roles.is_empty() {
        return text;
    }
    let mut table = Table::new(&["ROLE", "SIGNED BY", "NEEDS", "KEYS HERE", "KEYS ELSEWHERE"]);
    for row in &view.roles {
        let (here, elsewhere): (Vec<&RoleKey>, Vec<&RoleKey>) = row.keys.iter().partition(|key| key.label.is_some());
        let labels: Vec<&str> = here.iter().filter_map(|key| key.label.as_deref()).collect();
        let ids: Vec<String> = elsewhere.iter().map(|key| short(&key.key_id)).collect();
        table.row(vec![
            Cell::new(row.role.as_str()),
            Cell::new(if row.online { "the seed" } else { "people" }),
            Cell::new(format!("{} of {}", row.threshold, row.keys.len())),
            Cell::new(labels.join(",")),
            Cell::new(ids.join(",")),
        ]);
    }
    text.push('\n');
    text.push_str(&table.render(painter));
    text
}

/// Roles that a running seed signs with this key.
fn online_roles(entry: &KeyEntry, data_dir: &Path) -> Vec<String> {
    let Ok(Some(found)) = inspect::look(data_dir) else { return Vec::new() };
    let roles = row(entry, Some(&found.view.trusted)).roles;
    roles.iter().filter(|role| is_online(role)).map(ToString::to_string).collect()
}

fn export(args: &ExportArgs, global: &GlobalArgs, output: &mut Output) -> Result<(), CommandError> {
    let keys = args.keys.directory(global)?;
    let entry = keys.get(&args.name)?;
    if args.public {
        Keys::export_public(&entry, &args.output)?;
        output.note(format_args!("the public half of {} is in {}", entry.label, args.output.display()));
        return Ok(());
    }
    if keys.contains(&args.output) {
        return Err(CommandError::usage("the file would be in the directory of keys itself")
            .with_hint("name a place on another medium or machine"));
    }
    keys.export(&entry, &args.output)?;
    if !args.moves {
        output.note(format_args!("{} is copied to {}, and still here", entry.label, args.output.display()));
        return Ok(());
    }
    keys.remove(&entry)?;
    output.note(format_args!("{} is in {} and no longer here", entry.label, args.output.display()));
    let roles = online_roles(&entry, &global.data_dir()?);
    if !roles.is_empty() {
        output.warn(&format!(
            "the seed signs {} with this key: without it the repository goes stale within days; bring it back with `updraft key import {}`",
            roles.join(" and "),
            args.output.display()
        ));
    }
    Ok(())
}

fn import(args: &ImportArgs, global: &GlobalArgs, output: &mut Output) -> Result<(), CommandError> {
    let keys = args.keys.open(global, output)?;
    let stem = args.file.file_stem().and_then(|stem| stem.to_str());
    let name = args.name.as_deref().or(stem).ok_or_else(|| CommandError::usage("name the key with --name"))?;
    let entry = keys.import(&args.file, name)?;
    answer(&entry, output)?;
    output.note(format_args!("{} is still there; remove it where it should not be", args.file.display()));
    Ok(())
}

fn passphrase(args: &PassphraseArgs, global: &GlobalArgs, output: &mut Output) -> Result<(), CommandError> {
    let keys = args.keys.open(global, output)?;
    let entry = keys.get(&args.name)?;
    let key = keys.open(&entry)?;
    if args.remove {
        keys.replace(&entry.label, &key, None)?;
        output.note(format_args!("{} needs no passphrase any more", entry.label));
        return Ok(());
    }
    let flags = super::passphrase::PassphraseFlags { passphrase_file: args.new_passphrase_file.clone() };
    let chosen = flags.choose(&entry.label, output)?;
    keys.replace(&entry.label, &key, Some(&chosen))?;
    let keyid = key.public().id();
    output.note(format_args!("{} ({}) opens with the new passphrase alone", entry.label, short(&keyid)));
    Ok(())
}
