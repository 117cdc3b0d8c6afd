//! The program.

fn main() -> std::process::ExitCode {
    updraft::cli::main()
}
