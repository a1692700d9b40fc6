//! The program: everything it does is in the room `cli`.

use std::process::ExitCode;

/// Both runtimes and the reference allocate many short-lived buffers, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(aludel::cli::main())
}
