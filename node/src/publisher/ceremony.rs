//! Changes of who may sign what: from an operator's words to a ceremony, and from a finished ceremony
//! to the next signed set.
//!
//! Pure: the metadata in force and the time come in. What cannot be undone without the keys of every
//! holder is refused here, before anybody signs it.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;
use updraft_protocol::key::{KeyId, PublicKey};
use updraft_protocol::names::Product;
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{
    Ceremony, CeremonyError, Delegations, Edits, RoleName, Root, Signers, Targets, TopRole, Trusted,
};

use super::draft::{Draft, DraftError, KeySource, ROOT_DAYS, Signed, releases_delegation};
use super::keys::{is_online, short};
use crate::engine::catalog::CatalogView;

/// Characters of a key id that are enough to name it, where no other begins with them.
const MIN_PREFIX_CHARS: usize = 8;

/// Why a change cannot be drafted or applied.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The text names no key of the role.
    #[error("no key of {role} has the id '{}'; its keys are {}", text.escape_debug(), keys.join(", "))]
    NoSuchKey {
        /// The role.
        role: String,
        /// What was named.
        text: String,
        /// What there is.
        keys: Vec<String>,
    },
    /// The role has that key already.
    #[error("{role} lists the key {} already", short(keyid))]
    HasKey {
        /// The role.
        role: RoleName,
        /// The key.
        keyid: KeyId,
    },
    /// Nobody delegates to the role.
    #[error("this repository has no role {0}; `updraft key list` shows those that it has")]
    NoSuchRole(RoleName),
    /// The role has several keys, and which one is to go was not said.
    #[error("{role} has {count} keys; say with --remove which one the new key replaces")]
    WhichKey {
        /// The role.
        role: RoleName,
        /// Its keys.
        count: usize,
    },
    /// The seed renews it by itself.
    #[error("the seed renews {0} by itself, every 6 hours; there is nothing to do")]
    SignsItself(RoleName),
    /// The product is there.
    #[error("{0} is a product of this repository already")]
    HasProduct(Product),
    /// The product is not there.
    #[error("{0} is no product of this repository")]
    NoProduct(Product),
    /// The repository has no top-level targets.
    #[error("the repository lacks its targets metadata; it must be whole before it is changed")]
    NoTargets,
    /// The ceremony cannot be made or is not finished.
    #[error(transparent)]
    Ceremony(#[from] CeremonyError),
    /// The set cannot be signed.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// The ceremony is another repository's.
    #[error("this ceremony file belongs to another repository")]
    OtherRepository,
    /// The metadata was changed since.
    #[error("{0} was changed since this ceremony file was made, so that it no longer fits; draft it again")]
    Outdated(RoleName),
    /// Everything in it is in force.
    #[error("everything in this ceremony file is in force already")]
    InForce,
}

/// What happens to the keys of one role.
#[derive(Debug, Clone, Default)]
pub struct KeyChange {
    /// Keys that may sign from now on.
    pub add: Vec<PublicKey>,
    /// Key ids, or their beginnings, that may no longer.
    pub remove: Vec<String>,
    /// Signatures needed from now on.
    pub threshold: Option<u64>,
}

/// A product and the keys of its publisher.
#[derive(Debug, Clone)]
pub struct ProductKeys {
    /// The product.
    pub product: Product,
    /// Keys that may sign its releases.
    pub keys: Vec<PublicKey>,
}

/// What an operator wants changed.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Keys and thresholds, by role.
    pub roles: BTreeMap<RoleName, KeyChange>,
    /// Roles that are to be signed again with a new expiry.
    pub renew: BTreeSet<RoleName>,
    /// New products.
    pub add_products: Vec<ProductKeys>,
    /// Products that are given up.
    pub remove_products: Vec<Product>,
    /// Products whose publisher's keys are replaced.
    pub product_keys: Vec<ProductKeys>,
    /// Signatures that releases of a product need.
    pub product_thresholds: Vec<(Product, u64)>,
    /// The lowest versions that may be installed.
    pub floors: Vec<(Product, Version)>,
    /// Days that the new metadata is valid.
    pub expires_days: Option<i64>,
}

/// The key of `signers` that `text` names, by its id or the beginning of it.
fn named<'a>(role: &str, signers: &'a Signers, text: &str) -> Result<&'a KeyId, ChangeError> {
    let exact = signers.keys.iter().map(|(keyid, _)| keyid).find(|keyid| keyid.as_str() == text);
    let mut beginning = signers
        .keys
        .iter()
        .map(|(keyid, _)| keyid)
        .filter(|keyid| text.chars().count() >= MIN_PREFIX_CHARS && keyid.as_str().starts_with(text));
    match (exact, beginning.next(), beginning.next()) {
        (Some(keyid), _, _) | (None, Some(keyid), None) => Ok(keyid),
        _ => {
            let keys = signers.keys.iter().map(|(keyid, _)| short(keyid)).collect();
            Err(ChangeError::NoSuchKey { role: role.to_owned(), text: text.to_owned(), keys })
        }
    }
}

/// The keys and the threshold of a role after `change`.
fn changed(role: &RoleName, signers: &Signers, change: &KeyChange) -> Result<(Vec<PublicKey>, u64), ChangeError> {
    let mut keys = signers.keys.clone();
    for text in &change.remove {
        let gone = named(role.as_str(), signers, text)?;
        keys.retain(|(keyid, _)| keyid != gone);
    }
    for key in &change.add {
        let keyid = key.id();
        if keys.iter().any(|(known, public)| *known == keyid || public.is_same_key(key)) {
            return Err(ChangeError::HasKey { role: role.clone(), keyid });
        }
        keys.push((keyid, key.clone()));
    }
    Ok((keys.into_iter().map(|(_, key)| key).collect(), change.threshold.unwrap_or(signers.threshold)))
}

/// The parts of a repository that a change edits, copied when they are first touched.
struct Workbench<'a> {
    trusted: &'a Trusted,
    root: Option<Root>,
    roles: BTreeMap<RoleName, Targets>,
    expires: UtcTime,
}

impl Workbench<'_> {
    fn root(&mut self) -> &mut Root {
        let (expires, current) = (self.expires, self.trusted.root());
        self.root.get_or_insert_with(|| Root { expires, ..Root::clone(current) })
    }

    fn role(&mut self, role: &RoleName) -> Result<&mut Targets, ChangeError> {
        let current = self.trusted.role(role).ok_or_else(|| ChangeError::NoSuchRole(role.clone()))?;
        let expires = self.expires;
        Ok(self.roles.entry(role.clone()).or_insert_with(|| Targets { expires, ..Targets::clone(current) }))
    }

    fn delegations(&mut self) -> Result<&mut Delegations, ChangeError> {
        let targets = self.role(&RoleName::targets()).map_err(|_| ChangeError::NoTargets)?;
        Ok(targets.delegations.get_or_insert_with(Delegations::default))
    }

    fn change_keys(&mut self, role: &RoleName, change: &KeyChange) -> Result<(), ChangeError> {
        if let Some(top) = TopRole::of(role) {
            let root = self.root();
            let (keys, threshold) = changed(role, &root.signers(top), change)?;
            *root = root.clone().with_role(top, threshold, &keys);
            return Ok(());
        }
        let delegations = self.delegations()?;
        let known = delegations.role(role).cloned().zip(delegations.signers(role));
        let (delegated, signers) = known.ok_or_else(|| ChangeError::NoSuchRole(role.clone()))?;
        let (keys, threshold) = changed(role, &signers, change)?;
        *delegations = std::mem::take(delegations).with_role(delegated, threshold, &keys);
        Ok(())
    }

    fn products(&mut self, change: &Change) -> Result<(), ChangeError> {
        let threshold = |product: &Product| {
            let said = change.product_thresholds.iter().find(|(of, _)| of == product);
            said.map(|(_, threshold)| *threshold)
        };
        for ProductKeys { product, keys } in &change.add_products {
            let delegations = self.delegations()?;
            if delegations.role(&RoleName::releases(product)).is_some() {
                return Err(ChangeError::HasProduct(product.clone()));
            }
            let delegated = releases_delegation(product);
            *delegations = std::mem::take(delegations).with_role(delegated, threshold(product).unwrap_or(1), keys);
        }
        for product in &change.remove_products {
            let role = RoleName::releases(product);
            let delegations = self.delegations()?;
            if delegations.role(&role).is_none() {
                return Err(ChangeError::NoProduct(product.clone()));
            }
            delegations.roles.retain(|delegated| delegated.name != role);
            let roles = delegations.roles.clone();
            delegations.keys.retain(|keyid, _| roles.iter().any(|role| role.keyids.contains(keyid)));
        }
        for ProductKeys { product, keys } in &change.product_keys {
            let role = RoleName::releases(product);
            let delegations = self.delegations()?;
            let Some(delegated) = delegations.role(&role).cloned() else {
                return Err(ChangeError::NoProduct(product.clone()));
            };
            let threshold = threshold(product).unwrap_or(delegated.threshold);
            *delegations = std::mem::take(delegations).with_role(delegated, threshold, keys);
        }
        let named = |product: &Product| {
            let mut with_keys = change.add_products.iter().chain(&change.product_keys);
            with_keys.any(|with_keys| with_keys.product == *product)
        };
        for (product, threshold) in change.product_thresholds.iter().filter(|(product, _)| !named(product)) {
            let change = KeyChange { threshold: Some(*threshold), ..KeyChange::default() };
            self.change_keys(&RoleName::releases(product), &change)?;
        }
        for (product, version) in &change.floors {
            if self.delegations()?.role(&RoleName::releases(product)).is_none() {
                return Err(ChangeError::NoProduct(product.clone()));
            }
            let targets = self.role(&RoleName::targets())?;
            targets.security_floor.insert(product.clone(), version.clone());
        }
        Ok(())
    }
}

/// A ceremony that changes what is in force as the operator wants. `roots` is the whole chain.
pub fn draft(trusted: &Trusted, roots: Vec<Vec<u8>>, change: &Change, now: UtcTime) -> Result<Ceremony, ChangeError> {
    let expires = now.plus_days(change.expires_days.unwrap_or(ROOT_DAYS));
    let mut bench = Workbench { trusted, root: None, roles: BTreeMap::new(), expires };
    for role in &change.renew {
        match TopRole::of(role) {
            Some(TopRole::Root) => {
                bench.root();
            }
            _ if is_online(role) => return Err(ChangeError::SignsItself(role.clone())),
            _ => {
                bench.role(role)?;
            }
        }
    }
    for (role, keys) in &change.roles {
        bench.change_keys(role, keys)?;
    }
    bench.products(change)?;
    let edits = Edits { root: bench.root, roles: bench.roles };
    Ok(Ceremony::new(trusted, roots, edits, expires, &is_online)?)
}

/// The change that puts `new` in the place of a role's keys `remove`, or of its only key.
pub fn rotation(trusted: &Trusted, role: &RoleName, new: PublicKey, remove: &[String]) -> Result<Change, ChangeError> {
    let signers = trusted.signers(role).ok_or_else(|| ChangeError::NoSuchRole(role.clone()))?;
    let remove = match (remove, signers.keys.as_slice()) {
        ([], [(only, _)]) => vec![only.as_str().to_owned()],
        ([], keys) => return Err(ChangeError::WhichKey { role: role.clone(), count: keys.len() }),
        (said, _) => said.to_vec(),
    };
    let keys = KeyChange { add: vec![new], remove, threshold: None };
    Ok(Change { roles: BTreeMap::from([(role.clone(), keys)]), ..Change::default() })
}

/// The change that takes a key from every role that lists it.
pub fn revocation(trusted: &Trusted, text: &str) -> Result<Change, ChangeError> {
    let mut all = Signers { threshold: 1, keys: Vec::new() };
    let mut by_role = Vec::new();
    for role in trusted.signed_roles() {
        if let Some(signers) = trusted.signers(&role) {
            all.keys.extend(signers.keys.iter().filter(|(keyid, _)| !all.lists(keyid)).cloned().collect::<Vec<_>>());
            by_role.push((role, signers));
        }
    }
    let gone = named("this repository", &all, text)?.clone();
    let listing = by_role.into_iter().filter(|(_, signers)| signers.lists(&gone));
    let remove = || KeyChange { remove: vec![gone.as_str().to_owned()], ..KeyChange::default() };
    Ok(Change { roles: listing.map(|(role, _)| (role, remove())).collect(), ..Change::default() })
}

/// Takes a finished ceremony: the next signed set, with what the seed signs by itself.
pub fn apply(
    ceremony: &Ceremony,
    view: &CatalogView,
    keys: &dyn KeySource,
    now: UtcTime,
) -> Result<Signed, ChangeError> {
    if ceremony.repository().is_some() && ceremony.repository() != view.trusted.repository() {
        return Err(ChangeError::OtherRepository);
    }
    if ceremony.is_in_force(&view.trusted) {
        return Err(ChangeError::InForce);
    }
    if let Some(role) = ceremony.outdated(&view.trusted) {
        return Err(ChangeError::Outdated(role));
    }
    let finished = ceremony.finish()?;
    let mut draft = Draft::of(view, now);
    draft.adopt(finished)?;
    Ok(draft.sign(keys)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use updraft_protocol::tuf::{Expiry, Timestamp, sign_role};

    use super::*;
    use crate::engine::effect::Save;
    use crate::publisher::keys::Keys;
    use crate::publisher::{self, NewRepository};

    fn now() -> UtcTime {
        UtcTime::from_unix(1_790_000_000)
    }

    fn view(signed: &Signed) -> CatalogView {
        CatalogView::new(&signed.trusted, &BTreeMap::new())
    }

    fn repository(data_dir: &Path) -> (Keys, NewRepository) {
        let keys = Keys::new(data_dir);
        let made = publisher::create(&keys, &["app".parse().expect("a name")], now()).expect("made");
        (keys, made)
    }

    fn versions(signed: &Signed) -> Vec<u64> {
        let role = |name: &str| signed.trusted.role(&name.parse().expect("a role name")).map_or(0, |role| role.version);
        vec![signed.trusted.root().version, role("targets"), role("releases-app"), role("channels")]
    }

    #[test]
    fn a_seed_renews_what_grows_old_as_far_as_it_has_the_keys() {
        let directory = tempfile::tempdir().expect("a directory");
        let (keys, made) = repository(directory.path());
        let early = publisher::renew(&view(&made.signed), &keys, now().plus_days(5)).expect("signed");
        assert_eq!(versions(&early), [1, 1, 1, 1]);
        let late = now().plus_days(300);
        let renewed = publisher::renew(&view(&made.signed), &keys, late).expect("signed");
        assert_eq!(versions(&renewed), [2, 2, 2, 2]);
        assert_eq!(renewed.trusted.root().expires, late.plus_days(ROOT_DAYS));
        for label in ["root", "targets", "releases-app"] {
            keys.remove(&keys.get(label).expect("there")).expect("removed");
        }
        let without = publisher::renew(&view(&made.signed), &keys, late).expect("signed");
        assert_eq!(versions(&without), [1, 1, 1, 2], "the seed's own roles stay fresh");
    }

    #[test]
    fn what_expired_is_said_to_have_expired() {
        let directory = tempfile::tempdir().expect("a directory");
        let (keys, made) = repository(directory.path());
        keys.remove(&keys.get("root").expect("there")).expect("removed");
        let error = publisher::renew(&view(&made.signed), &keys, now().plus_days(400)).expect_err("the root expired");
        assert!(error.to_string().contains("updraft root draft --renew"), "{error}");
    }

    #[test]
    fn a_new_root_is_written_between_its_timestamp_and_the_place_of_that() {
        let directory = tempfile::tempdir().expect("a directory");
        let (keys, made) = repository(directory.path());
        let renewed = publisher::renew(&view(&made.signed), &keys, now().plus_days(300)).expect("signed");
        let names: Vec<String> = publisher::in_order(&renewed)
            .into_iter()
            .filter_map(|save| match save {
                Save::Metadata { name, .. } => Some(name),
                Save::Target { .. } | Save::Memory(_) => None,
            })
            .collect();
        let end = &names[names.len() - 4..];
        assert_eq!(end, ["2.snapshot.json", "pending.2.timestamp.json", "2.root.json", "timestamp.json"]);
    }

    #[test]
    fn a_finished_ceremony_fits_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let (keys, made) = repository(directory.path());
        let new = keys.generate("new", None).expect("made").public();
        let trusted = &made.signed.trusted;
        let change = rotation(trusted, &RoleName::targets(), new, &[]).expect("one key");
        let mut ceremony = draft(trusted, vec![made.root.clone()], &change, now()).expect("drafted");
        let signing = keys.all(&ceremony.authorised()).expect("all here");
        assert!(matches!(apply(&ceremony, &view(&made.signed), &keys, now()), Err(ChangeError::Ceremony(_))));
        ceremony.sign(&signing.iter().collect::<Vec<_>>()).expect("signed");
        let signed = apply(&ceremony, &view(&made.signed), &keys, now()).expect("applied");
        assert_eq!(versions(&signed), [2, 2, 1, 1], "what the targets delegate to is as it was");
        assert!(matches!(apply(&ceremony, &view(&signed), &keys, now()), Err(ChangeError::InForce)));
        let next = publisher::renew(&view(&signed), &keys, now()).expect("signed");
        let version = |signed: &Signed| signed.trusted.timestamp().map_or(0, |timestamp| timestamp.version);
        assert_eq!((version(&made.signed), version(&signed), version(&next)), (1, 2, 3));
    }

    #[test]
    fn a_version_that_a_thief_pushed_to_the_end_is_undone_by_a_new_key() {
        let directory = tempfile::tempdir().expect("a directory");
        let (keys, made) = repository(directory.path());
        let mut trusted = made.signed.trusted.clone();
        let stolen = keys.open(&keys.get("timestamp").expect("there")).expect("plain");
        let listed = trusted.timestamp().expect("signed").snapshot.clone();
        let last = sign_role(&Timestamp::new(u64::MAX, now().plus_days(14), listed), &[&stolen]);
        let _new = trusted.update_timestamp(&last, Expiry::Enforce(now())).expect("validly signed");
        let pushed = Signed { trusted: trusted.clone(), ..made.signed.clone() };
        assert!(publisher::renew(&view(&pushed), &keys, now()).is_err(), "there is no next version");

        let new = keys.generate("new", None).expect("made").public();
        let change = rotation(&trusted, &RoleName::timestamp(), new, &[]).expect("one key");
        let mut ceremony = draft(&trusted, vec![made.root.clone()], &change, now()).expect("drafted");
        let signing = keys.all(&ceremony.authorised()).expect("all here");
        ceremony.sign(&signing.iter().collect::<Vec<_>>()).expect("signed");
        let signed = apply(&ceremony, &view(&pushed), &keys, now()).expect("applied");
        let version = |signed: &Signed| signed.trusted.timestamp().map_or(0, |timestamp| timestamp.version);
        assert_eq!(version(&signed), 1);
        assert_eq!(version(&publisher::renew(&view(&signed), &keys, now()).expect("signed")), 2);
    }

    #[test]
    fn a_product_that_was_given_up_can_come_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let (keys, made) = repository(directory.path());
        let product: Product = "app".parse().expect("a name");
        let renewed = publisher::renew(&view(&made.signed), &keys, now().plus_days(300)).expect("signed");
        assert_eq!(versions(&renewed)[2], 2);
        let roots = vec![made.root.clone(), renewed.trusted.root().bytes().to_vec()];
        let change = Change { remove_products: vec![product.clone()], ..Change::default() };
        let later = now().plus_days(300);
        let mut ceremony = draft(&renewed.trusted, roots, &change, later).expect("drafted");
        let signing = keys.all(&ceremony.authorised()).expect("all here");
        ceremony.sign(&signing.iter().collect::<Vec<_>>()).expect("signed");
        let without = apply(&ceremony, &view(&renewed), &keys, later).expect("applied");
        assert_eq!(versions(&without)[2], 0);
        let mut again = Draft::of(&view(&without), later);
        again.add_product(&product, &keys.generate("again", None).expect("made").public());
        assert_eq!(versions(&again.sign(&keys).expect("signed"))[2], 3, "versions never go back");
    }

    #[test]
    fn a_key_is_named_by_its_id_or_enough_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let (keys, made) = repository(directory.path());
        let trusted = &made.signed.trusted;
        let keyid = keys.get("timestamp").expect("there").id().expect("plain");
        for text in [keyid.as_str(), &keyid.as_str()[..8]] {
            let change = revocation(trusted, text).expect("one key");
            assert_eq!(change.roles.keys().collect::<Vec<_>>(), [&RoleName::timestamp()]);
        }
        for text in ["", &keyid.as_str()[..7], "ffffffffffffffff"] {
            assert!(matches!(revocation(trusted, text), Err(ChangeError::NoSuchKey { .. })), "{text}");
        }
    }
}
