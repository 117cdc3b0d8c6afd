//! Flags over file over defaults, and what must hold between values.

use super::*;

fn with_file(text: &str, flags: Overrides) -> Result<EffectiveConfig, ConfigError> {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join(CONFIG_NAME), text).expect("writes");
    load(Overrides { data_dir: Some(dir.path().to_owned()), ..flags })
}

fn without_file(flags: Overrides) -> EffectiveConfig {
    load(Overrides { data_dir: Some("/nonexistent/updraft".into()), ..flags }).expect("defaults are valid")
}

#[test]
fn a_node_listens_on_both_families_and_both_transports_by_default() {
    assert_eq!(
        without_file(Overrides::default()).config.listen,
        ["/ip4/0.0.0.0/tcp/4880", "/ip4/0.0.0.0/udp/4880/quic-v1", "/ip6/::/tcp/4880", "/ip6/::/udp/4880/quic-v1"]
    );
}

#[test]
fn only_a_seed_has_an_http_face_by_default_and_it_is_loopback() {
    let seed = without_file(Overrides { role: Some(Role::Seed), ..Overrides::default() });
    assert_eq!(seed.config.http, Some("127.0.0.1:8888".parse().expect("an address")));
    assert_eq!(without_file(Overrides::default()).config.http, None);
}

#[test]
fn off_is_off() {
    let flags = Overrides { role: Some(Role::Seed), http: Some(None), ..Overrides::default() };
    assert_eq!(without_file(flags).config.http, None);
    let seed = with_file("role = \"seed\"\nhttp = \"off\"\n", Overrides::default()).expect("valid");
    assert_eq!(seed.config.http, None);
    assert_eq!(seed.source("http"), Source::File);
}

#[test]
fn flags_go_over_the_file_and_the_file_over_defaults() {
    let text = "max_peers = 10\nmdns = true\n";
    let flags = Overrides { max_peers: Some(20), ..Overrides::default() };
    let effective = with_file(text, flags).expect("valid");
    assert_eq!((effective.config.max_peers, effective.source("max_peers")), (20, Source::Flag));
    assert_eq!((effective.config.mdns, effective.source("mdns")), (true, Source::File));
    assert_eq!((effective.config.keep_releases, effective.source("keep_releases")), (2, Source::Default));
    assert_eq!(effective.source("data_dir"), Source::Flag);
}

#[test]
fn a_seeds_directory_is_not_run_as_a_peer_by_accident() {
    let flags = Overrides { role: Some(Role::Peer), ..Overrides::default() };
    let error = with_file("role = \"seed\"\n", flags).expect_err("contradiction");
    assert!(error.to_string().contains("run `updraft seed`"), "{error}");
}

#[test]
fn subscriptions_parse_with_and_without_channel() {
    let install = Subscription::parse_install("editor:beta=/opt/editor").expect("valid");
    assert_eq!(install.to_string(), "editor:beta=/opt/editor");
    let mirror = Subscription::parse_mirror("editor").expect("valid");
    assert_eq!(mirror.to_string(), "editor:stable");
    for bad in ["editor", "editor=", "=/opt", "Editor=/opt", "editor:=/opt"] {
        assert!(Subscription::parse_install(bad).is_err(), "{bad}");
    }
    let relative = Subscription::parse_install("editor=here").expect("valid");
    assert!(relative.directory.expect("a directory").is_absolute());
}

#[test]
fn subscriptions_on_the_command_line_that_drop_a_health_check_of_the_file_are_warned_of() {
    let file = "[[subscriptions]]\nproduct = \"editor\"\ndirectory = \"/opt/editor\"\nrestart = \"editor\"\n\n\
                [[subscriptions]]\nproduct = \"kiosk\"\ndirectory = \"/opt/kiosk\"\n";
    let flags = || Overrides {
        subscriptions: Some(vec![Subscription::parse_install("editor=/opt/editor").expect("valid")]),
        ..Overrides::default()
    };
    let warned = with_file(file, flags()).expect("valid");
    assert_eq!(warned.warnings().len(), 1, "{:?}", warned.warnings());
    assert!(warned.warnings()[0].contains("checking editor is not in force"), "{:?}", warned.warnings());
    assert!(with_file(file, Overrides::default()).expect("valid").warnings().is_empty());
    assert!(without_file(flags()).warnings().is_empty());
}

#[test]
fn install_directories_keep_apart() {
    let with = |specs: &[&str]| {
        let subscriptions = specs.iter().map(|s| Subscription::parse_install(s).expect("valid")).collect();
        load(Overrides {
            data_dir: Some("/var/lib/updraft".into()),
            subscriptions: Some(subscriptions),
            ..Overrides::default()
        })
    };
    assert!(with(&["a=/opt/a", "b=/opt/b"]).is_ok());
    for bad in [
        &["a=/opt/a", "a=/opt/a"][..],
        &["a=/opt/a", "b=/opt/a"],
        &["a=/opt/a", "b=/opt/a/b"],
        &["a=/var/lib/updraft/a"],
        &["a=/var"],
    ] {
        assert!(matches!(with(bad), Err(ConfigError::Contradiction(_))), "{bad:?}");
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    for text in
        ["max_peers = 0", "max_peers = 5000", "keep_releases = 1", "keep_releases = 5000", "adopt_wait_seconds = 601"]
    {
        assert!(matches!(with_file(text, Overrides::default()), Err(ConfigError::Contradiction(_))), "{text}");
    }
}

#[test]
fn this_platform_is_a_valid_name() {
    assert!(this_platform().as_str().contains('-'));
}
