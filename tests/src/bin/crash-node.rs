//! `crash-node`: `updraft`, with the listener of the crash campaign ([`updraft_tests::crash`]).

fn main() -> std::process::ExitCode {
    updraft_tests::crash::listen();
    updraft::cli::main()
}
