//! Changes of who may sign, as a running seed takes them, and what its keys give reason to warn of.

use updraft_protocol::tuf::Trusted;

use crate::publisher::keys::Keys;

/// Offline keys that are still on the seed, for `status`.
pub(super) fn key_warnings(keys: &Keys, trusted: &Trusted) -> Vec<String> {
    let here = match keys.offline_here(trusted) {
        Ok(here) => here,
        Err(error) => return vec![format!("the keys cannot be listed: {error}")],
    };
    if here.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = here.iter().map(|(role, label)| format!("{role}: {label}.pem")).collect();
    vec![format!(
        "the offline keys ({}) are still on this machine, in {}: whoever takes it over can publish; move them away (updraft key export NAME --output FILE --move)",
        names.join(", "),
        keys.directory().display()
    )]
}
