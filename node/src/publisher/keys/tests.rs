use super::*;

#[derive(Debug)]
struct Knows(&'static str);

impl Unlock for Knows {
    fn passphrase(&self, _label: &str) -> Result<Passphrase, String> {
        Ok(secret(self.0))
    }
}

fn secret(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned())).expect("a passphrase")
}

fn keys() -> (tempfile::TempDir, Keys) {
    let directory = tempfile::tempdir().expect("a directory");
    let keys = Keys::new(directory.path());
    (directory, keys)
}

fn signers(threshold: u64, keys: &[&SigningKey]) -> Signers {
    Signers { threshold, keys: keys.iter().map(|key| (key.public().id(), key.public())).collect() }
}

fn root() -> RoleName {
    RoleName::root()
}

#[test]
fn a_role_is_signed_by_its_keys_whatever_their_files_are_called() {
    let (_directory, keys) = keys();
    let (a, b) = (keys.generate("alice", None).expect("made"), keys.generate("root", None).expect("made"));
    let found = keys.signers(&root(), &signers(1, &[&a])).expect("here");
    assert_eq!(found.iter().map(SigningKey::public).collect::<Vec<_>>(), [a.public()]);
    let exactly = keys.signers(&root(), &signers(1, &[&a, &b])).expect("here");
    assert_eq!(exactly.len(), 1, "a head takes exactly threshold many signatures");
}

#[test]
fn too_few_keys_are_named_with_what_to_do() {
    let (_directory, keys) = keys();
    let here = keys.generate("alice", None).expect("made");
    let away = SigningKey::from_seed([1; 32]);
    let error = keys.signers(&root(), &signers(2, &[&here, &away])).expect_err("one is away").to_string();
    for part in ["root", "2 of its 2", "alice", &short(&here.public().id()), &short(&away.public().id())] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(error.contains("updraft root draft"), "{error}");
}

#[test]
fn a_key_is_never_overwritten_and_its_file_is_private() {
    let (_directory, keys) = keys();
    keys.generate("root", None).expect("made");
    let before = fs::read(keys.path("root")).expect("there");
    assert!(matches!(keys.generate("root", None), Err(KeysError::Exists(_))));
    assert_eq!(fs::read(keys.path("root")).expect("there"), before);
    let mode = fs::metadata(keys.path("root")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for label in ["", ".x", "../x", "a/b", "ü", &"x".repeat(MAX_LABEL_BYTES + 1)] {
        assert!(matches!(keys.generate(label, None), Err(KeysError::Label(_))), "{label}");
    }
}

#[test]
fn an_encrypted_key_is_listed_without_its_passphrase_and_opened_with_it() {
    let (_directory, keys) = keys();
    let key = keys.generate("root", Some(&secret("swordfish"))).expect("made");
    let entry = keys.get("root").expect("there");
    assert!(entry.encrypted && entry.problem.is_none());
    assert_eq!(entry.id(), Some(key.public().id()));
    let authorised = signers(1, &[&key]);
    assert!(!keys.can_sign(&authorised));
    let error = keys.signers(&root(), &authorised).expect_err("nobody can be asked");
    assert!(matches!(error, KeysError::Locked { .. }), "{error}");
    let right = keys.clone().with_unlock(Arc::new(Knows("swordfish")));
    assert!(right.can_sign(&authorised));
    assert_eq!(right.signers(&root(), &authorised).expect("opened").len(), 1);
    let wrong = keys.with_unlock(Arc::new(Knows("sword")));
    let error = wrong.signers(&root(), &authorised).expect_err("a wrong passphrase");
    assert!(error.to_string().contains("passphrase is wrong"), "{error}");
}

#[test]
fn keys_that_open_by_themselves_are_taken_first() {
    let (_directory, keys) = keys();
    let locked = keys.generate("a", Some(&secret("x"))).expect("made");
    let plain = keys.generate("b", None).expect("made");
    let found = keys.signers(&root(), &signers(1, &[&locked, &plain])).expect("one opens");
    assert_eq!(found[0].public(), plain.public());
}

#[test]
fn a_public_file_that_lies_is_found_out() {
    let (_directory, keys) = keys();
    let key = keys.generate("root", Some(&secret("x"))).expect("made");
    let other = SigningKey::from_seed([1; 32]);
    fs::write(keys.public_path("root"), key_file::encode_public(&other.public())).expect("written");
    let keys = keys.with_unlock(Arc::new(Knows("x")));
    let error = keys.signers(&root(), &signers(1, &[&other])).expect_err("another key");
    assert!(matches!(error, KeysError::Mismatch(_)), "{error}");
    assert!(keys.signers(&root(), &signers(1, &[&key])).is_err(), "under its own id it is not known");
}

#[test]
fn what_is_no_key_is_listed_with_its_problem_and_hides_no_other() {
    let (_directory, keys) = keys();
    keys.generate("good", None).expect("made");
    fs::write(keys.path("rubbish"), "rubbish").expect("written");
    fs::write(keys.path("huge"), "x".repeat(100_000)).expect("written");
    fs::create_dir(keys.path("directory")).expect("made");
    fs::write(keys.directory().join("notes.txt"), "x").expect("written");
    let listed = keys.list().expect("listed");
    let shown: Vec<(&str, bool)> = listed.iter().map(|entry| (entry.label.as_str(), entry.problem.is_some())).collect();
    assert_eq!(shown, [("directory", true), ("good", false), ("huge", true), ("rubbish", true)]);
}

#[test]
fn no_error_shows_private_bytes() {
    let (_directory, keys) = keys();
    let key = keys.generate("root", None).expect("made");
    let pem = fs::read_to_string(keys.path("root")).expect("text");
    let body = pem.lines().nth(1).expect("a body");
    fs::write(keys.path("root"), pem.replacen('M', "A", 1)).expect("written");
    let entry = keys.get("root").expect("there");
    let error = keys.open(&entry).expect_err("broken");
    let error = format!("{error} {error:?} {entry:?} {key:?}");
    assert!(!error.contains(&body[8..]), "{error}");
}
