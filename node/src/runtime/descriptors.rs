//! How many files and sockets the process may have open: systems start programs with few and let them
//! ask for more.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is asked for at most. More serves no node, and loops over all descriptors in programs that are
/// started from here would take long.
const WANTED: u64 = 65_536;

/// Raises the limit on open descriptors as far as the system allows without privileges, at most to what a
/// node can use. Returns the limit that is in force then; a limit that was higher stays.
pub fn raise_limit() -> io::Result<u64> {
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(WANTED, |most| most.min(WANTED));
    let current = now.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return Ok(current);
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: now.maximum })?;
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_never_falls() {
        let before = getrlimit(Resource::Nofile);
        let raised = raise_limit().expect("allowed up to the maximum");
        assert!(before.current.is_none_or(|before| raised >= before));
        assert_eq!(raise_limit().expect("again"), raised);
        assert_eq!(getrlimit(Resource::Nofile).maximum, before.maximum);
    }
}
