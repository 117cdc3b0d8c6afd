//! Puts a fetched artifact where an operator asked for it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use updraft_protocol::digest::{Digest, Hasher};

use crate::atomic;
use crate::control::messages::{ErrorBody, ErrorCode, Phase, Progress};
use crate::control::reply::ReplySender;
use crate::store::Artifact;

/// Puts a complete artifact at `output`: as another name of the stored file where that can be, else as a
/// copy that is hashed once more.
pub(super) fn deliver(
    artifact: &Artifact,
    may_lend: bool,
    output: Option<&Path>,
    reply: &ReplySender,
) -> Result<PathBuf, ErrorBody> {
    let Some(output) = output else { return Ok(artifact.path().to_owned()) };
    let lent = may_lend && artifact.is_proven() && artifact.lend(output).unwrap_or(false);
    if !lent {
        write_out(artifact.path(), artifact.manifest().artifact(), output, reply)?;
    }
    Ok(output.to_owned())
}

fn write_out(data: &Path, sha256: &Digest, output: &Path, reply: &ReplySender) -> Result<(), ErrorBody> {
    let failed =
        |cause: io::Error| ErrorBody::new(ErrorCode::Error, format!("cannot write {}: {cause}", output.display()));
    let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("/"));
    let mut temp = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let mut source = fs::File::open(data).map_err(failed)?;
    let total = source.metadata().map_err(failed)?.len();
    let (mut hasher, mut buffer, mut done) = (Hasher::new(), vec![0; 1 << 20], 0_u64);
    loop {
        let count = io::Read::read(&mut source, &mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        io::Write::write_all(&mut temp, &buffer[..count]).map_err(failed)?;
        done += count as u64;
        reply.progress(Progress::local(Phase::Writing, done, Some(total)));
    }
    if hasher.finish() != *sha256 {
        let body = ErrorBody::new(ErrorCode::VerificationFailed, "the artifact in the store is damaged");
        return Err(body.with_hint("check the disk; remove the artifact's directory and fetch it again"));
    }
    temp.as_file().sync_all().map_err(failed)?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(temp.path(), permissions).map_err(failed)?;
    temp.persist(output).map_err(|cause| failed(cause.error))?;
    atomic::sync_dir(directory).map_err(failed)
}
