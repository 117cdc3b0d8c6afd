//! The program.

use mimalloc::MiMalloc;

/// Blocks come and go in sizes for which the system's allocator asks the kernel each time
/// (decision 21).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> std::process::ExitCode {
    updraft::cli::main()
}
