//! `tuf-client`: see [`updraft_tests::tuf_client`].
//!
//! Exits 0 where the command did what it says and 1 in every other case, panics among them.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    match std::panic::catch_unwind(|| updraft_tests::tuf_client::run(arguments)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            // Nobody may be listening; the exit code says it too.
            let _ = writeln!(std::io::stderr(), "tuf-client: {error}");
            ExitCode::from(1)
        }
        // The panic has said itself what it was.
        Err(_) => ExitCode::from(1),
    }
}
