//! The command line as a whole: what parses, what it means, and how it ends.

use std::path::Path;

use super::output::capture;
use super::*;
use crate::control::client::Client;
use crate::control::contract::{sample_equivocation, sample_status};
use crate::control::messages::{ErrorBody, ErrorCode, Event, Line, Phase, Progress, Request, Response};
use crate::control::socket;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("updraft").chain(line.split_whitespace()))
}

/// Runs a command against a node that answers its one request with `lines`.
fn against_node(line: &str, lines: Vec<Line<Response>>) -> (Result<ExitCode, CommandError>, Request, String, String) {
    use std::io::{BufRead as _, Write as _};

    let dir = tempfile::tempdir().expect("a directory");
    let listener = socket::bind(dir.path()).expect("binds");
    let node = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepts");
        let mut request = String::new();
        std::io::BufReader::new(stream.try_clone().expect("clones")).read_line(&mut request).expect("reads");
        for line in lines {
            stream.write_all(&crate::control::framing::encode_line(&line)).expect("writes");
        }
        serde_json::from_str(&request).expect("a request")
    });
    let cli = parse(&format!("{line} --data-dir {}", dir.path().display())).expect("parses");
    let (mut output, out, err) = capture::output(cli.global.json);
    let result = dispatch(cli, &mut output);
    (result, node.join().expect("no panic"), out.text(), err.text())
}

fn without_node(line: &str, dir: &Path) -> (Result<ExitCode, CommandError>, String) {
    let cli = parse(&format!("{line} --data-dir {}", dir.display())).expect("parses");
    let (mut output, out, _) = capture::output(cli.global.json);
    (dispatch(cli, &mut output), out.text())
}

#[test]
fn the_description_of_the_command_line_is_sound() {
    description().debug_assert();
}

#[test]
fn status_as_json_is_the_view_on_one_line() {
    let view = sample_status();
    let (result, request, out, err) =
        against_node("status --explain --json", vec![Line::Result(Response::Status(Box::new(view.clone())))]);
    assert_eq!(result.expect("answers"), ExitCode::Ok);
    assert_eq!(request, Request::Status { explain: true });
    assert_eq!(out, format!("{}\n", serde_json::to_string(&view).expect("serializable")));
    assert_eq!(err, "");
}

#[test]
fn a_status_with_an_equivocation_says_so_in_its_exit_code() {
    let mut view = sample_status();
    view.repositories[0].equivocations.push(sample_equivocation());
    let (result, _, out, _) = against_node("status", vec![Line::Result(Response::Status(Box::new(view)))]);
    assert_eq!(result.expect("answers"), ExitCode::VerificationFailed);
    assert!(out.contains("two different timestamp files of version 7"), "{out}");
}

#[test]
fn what_is_typed_about_a_channel_is_what_the_seed_is_asked() {
    use crate::control::channels::ChannelRequest;
    use crate::engine::policy::{Change, Setting, Settings};

    let error = || vec![Line::Error(ErrorBody::new(ErrorCode::NothingToDo, "so already"))];
    let asked = |line: &str| {
        let (result, request, ..) = against_node(line, error());
        assert_eq!(result.expect_err("refused").exit_code(), ExitCode::NothingToDo);
        request
    };
    let request = |channel: &str, change, dry_run| {
        let (product, channel) = ("editor".parse().expect("a name"), channel.parse().expect("a name"));
        Request::ChangeChannel(Box::new(ChannelRequest { product, channel, change, dry_run }))
    };
    let version = semver::Version::new(1, 1, 0);
    let settings = Settings {
        release: Some(version.clone()),
        rollout: Some("10@now,100@+1d".parse().expect("a schedule")),
        allow_downgrade: Some(Setting::Off),
        halt_percent: Some(Setting::To(20)),
        halt_silence_s: Some(Setting::To(7_200)),
        max_head_age_s: Some(Setting::Off),
        ..Settings::default()
    };
    let typed = "channel set editor:beta --release 1.1.0 --rollout 10@now,100@+1d --allow-downgrade none --halt-threshold 20% --halt-silence 2h --max-head-age default --dry-run";
    assert_eq!(asked(typed), request("beta", Change::Set(settings), true));
    let promote = Change::Promote { version: version.clone(), rollout: None };
    assert_eq!(asked("channel promote editor 1.1.0 --to stable"), request("stable", promote, false));
    let pause = Change::Pause { reason: Some("broken".to_owned()) };
    assert_eq!(asked("channel pause editor --reason broken"), request("stable", pause, false));
    assert_eq!(asked("channel resume editor:beta"), request("beta", Change::Resume {}, false));
    assert_eq!(
        asked("channel yank editor 1.1.0 --undo"),
        request("stable", Change::Yank { version, undo: true }, false)
    );
    assert_eq!(asked("fleet --limit 5"), Request::Fleet { limit: 5 });
    for bad in [
        "channel set editor --halt-threshold 0",
        "channel set editor --halt-min-reports 0",
        "channel yank editor one",
        "channel pause Editor",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn progress_goes_to_stderr_and_never_to_stdout() {
    let progress = Line::Progress(Progress::local(Phase::Staging, 1, Some(2)));
    let error = ErrorBody::new(ErrorCode::RolledBack, "editor 1.1.0 failed its health check")
        .with_hint("see `updraft history`");
    let (result, request, out, err) = against_node("install editor@1.1.0 --now", vec![progress, Line::Error(error)]);
    assert_eq!(result.expect_err("failed").exit_code(), ExitCode::RolledBack);
    let product = "editor".parse().expect("a name");
    assert_eq!(request, Request::Install { product, version: Some(semver::Version::new(1, 1, 0)), now: true });
    assert_eq!(out, "");
    assert_eq!(err, "staging 50 %, 1 B of 2 B\n");
}

#[test]
fn events_are_a_json_object_a_line_and_losses_go_to_stderr() {
    let event = |seq| {
        Line::Event(Event {
            seq,
            at: updraft_protocol::time::UtcTime::from_unix(0),
            kind: "peer_connected".to_owned(),
            product: None,
            version: None,
            peer: None,
            text: "hello\u{1b}[2J".to_owned(),
            fields: serde_json::Map::new(),
        })
    };
    let lines = || vec![event(1), Line::Dropped(3), event(5), Line::Result(Response::Done {})];
    let (_, _, out, err) = against_node("events --json", lines());
    assert_eq!(out.lines().count(), 2);
    assert!(out.starts_with(r#"{"seq":1,"at":"1970-01-01T00:00:00Z","kind":"peer_connected""#), "{out}");
    assert!(err.contains("3 events were lost"), "{err}");
    let (_, _, out, _) = against_node("events", lines());
    assert!(out.starts_with("1970-01-01T00:00:00Z  peer_connected        hello\u{fffd}[2J\n"), "{out}");
}

#[test]
fn without_a_node_inspecting_commands_end_with_8() {
    let dir = tempfile::tempdir().expect("a directory");
    for line in ["status", "peers", "releases", "fetch a", "install a", "rollback a --yes", "history", "events -f"] {
        let error = without_node(line, dir.path()).0.expect_err(line);
        assert_eq!(error.exit_code(), ExitCode::NodeUnreachable, "{line}");
        assert!(error.to_string().contains("control.sock"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("updraft peer --join")), "{line}");
    }
}

#[test]
fn a_rollback_without_terminal_and_yes_asks_for_yes() {
    let dir = tempfile::tempdir().expect("a directory");
    let error = without_node("rollback editor", dir.path()).0.expect_err("nobody to ask");
    assert_eq!(error.exit_code(), ExitCode::Usage);
    assert!(error.hint().is_some_and(|hint| hint.contains("--yes")));
}

#[test]
fn what_makes_no_sense_is_refused_while_parsing() {
    for line in [
        "",
        "fly",
        "seed --listen 0.0.0.0:1",
        "seed --http 8888",
        "peer --subscribe editor",
        "peer --subscribe Editor=/opt",
        "peer --done-file /tmp/x",
        "peer --fetch editor",
        "publish /tmp",
        "publish /tmp --product a --version 1",
        "publish /tmp --product a --version 1.0.0 --level 23",
        "ticket --address /ip4/0.0.0.0/tcp/1",
        "fetch a@b",
        "history -n 0",
        "completions sushi",
        "config show --role king",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn a_version_of_a_release_is_not_the_version_of_the_program() {
    let cli = parse("publish /tmp --product a --version 1.2.3").expect("parses");
    let Command::Publish(args) = cli.command else { panic!("another command") };
    assert_eq!(args.release, Some(semver::Version::new(1, 2, 3)));
    assert_eq!(
        (args.channel.as_str(), args.platform.as_str(), args.level),
        ("stable", "any", crate::archive::DEFAULT_LEVEL)
    );
}

#[test]
fn a_publish_is_checked_before_anybody_is_asked() {
    let dir = tempfile::tempdir().expect("a directory");
    let notes = dir.path().join("notes");
    std::fs::write(&notes, "x".repeat(64 * 1024 + 1)).expect("writes");
    let dir = dir.path().display();
    for line in [
        format!("publish {dir}/nothing --product a --version 1.0.0"),
        format!("publish {dir} --product a --version 1.0.0 --notes {dir}/notes"),
        format!("publish {dir} --product a --version 1.0.0 --notes {dir}/none"),
        format!("publish {dir} --product a --version 1.0.0 --min-from 1.0.0"),
    ] {
        let cli = parse(&line).expect("parses");
        let Command::Publish(args) = cli.command else { panic!("another command") };
        assert_eq!(args.options(&cli.global).expect_err(&line).exit_code(), ExitCode::Usage);
    }
}

#[test]
fn a_publish_goes_through_the_running_seed_with_an_absolute_path() {
    let error = ErrorBody::new(ErrorCode::Usage, "editor 1.0.0 exists already");
    let (result, request, _, _) = against_node("publish . --product editor --version 1.0.0", vec![Line::Error(error)]);
    assert_eq!(result.expect_err("refused").exit_code(), ExitCode::Usage);
    let Request::Publish(request) = request else { panic!("another request") };
    assert!(request.path.is_absolute());
}

#[test]
fn a_peers_flags_become_its_configuration() {
    let cli = parse(
        "peer --data-dir /nonexistent/d --subscribe a=/opt/a --mirror b:beta --listen /ip4/127.0.0.1/tcp/0 --http 127.0.0.1:0 \
         --fetch c@1.0.0=/tmp/c --done-file /tmp/done",
    )
    .expect("parses");
    let Command::Peer(args) = cli.command else { panic!("another command") };
    let options = args.options(&cli.global).expect("valid");
    let config = options.config.config;
    let subscriptions: Vec<_> = config.subscriptions.iter().map(ToString::to_string).collect();
    assert_eq!(subscriptions, ["a:stable=/opt/a", "b:beta"]);
    assert_eq!(config.listen, ["/ip4/127.0.0.1/tcp/0"]);
    assert_eq!(config.http.map(|a| a.port()), Some(0));
    assert_eq!(options.fetch.map(|f| f.output), Some("/tmp/c".into()));
    assert_eq!(options.done_file, Some("/tmp/done".into()));
}

#[test]
fn a_wrong_configuration_file_ends_with_2_and_an_unreadable_one_with_1() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join(crate::config::CONFIG_NAME);
    assert!(without_node("config check", dir.path()).1.contains("the defaults hold"));
    std::fs::write(&file, "lisen = []\n").expect("writes");
    let error = without_node("config check", dir.path()).0.expect_err("invalid");
    assert_eq!(error.exit_code(), ExitCode::Usage);
    assert!(error.to_string().ends_with("updraft.toml:1: unknown key 'lisen'; did you mean 'listen'?"), "{error}");
    std::fs::remove_file(&file).expect("removes");
    std::fs::create_dir(&file).expect("creates");
    assert_eq!(without_node("config check", dir.path()).0.expect_err("no file").exit_code(), ExitCode::Error);
}

#[test]
fn completions_and_manual_name_every_command() {
    let dir = tempfile::tempdir().expect("a directory");
    let names: Vec<_> = description().get_subcommands().map(|c| c.get_name().to_owned()).collect();
    let (_, script) = without_node("completions bash", dir.path());
    let (_, page) = without_node("man", dir.path());
    for name in &names {
        assert!(script.contains(name.as_str()), "{name}");
        assert!(page.contains(name.as_str()), "{name}");
    }
    let pages = dir.path().join("man1");
    let cli = parse(&format!("man --dir {}", pages.display())).expect("parses");
    let (mut output, _, _) = capture::output(false);
    dispatch(cli, &mut output).expect("writes");
    assert!(pages.join("updraft.1").exists());
    assert!(pages.join("updraft-config-show.1").exists());
}

#[test]
fn a_demo_does_not_play_in_a_directory_that_is_in_use() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = |line: String| match parse(&line).expect("parses").command {
        Command::Demo(args) => args.options(),
        _ => panic!("another command"),
    };
    let line = format!("demo --dir {}", dir.path().display());
    assert!(options(line.clone()).expect("empty").keep, "a directory that the user named stays");
    std::fs::write(dir.path().join("file"), "x").expect("writes");
    assert_eq!(options(line).expect_err("in use").exit_code(), ExitCode::Usage);
    let node = Client::connect(dir.path());
    assert!(node.is_err());
}
