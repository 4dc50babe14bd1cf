use std::process::ExitCode;

use clap::Parser;
use tollgate::cli::{self, Cli, Exit};

// Many small, short-lived buffers on several threads: the system's allocator
// holds on to more memory and takes longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let exit = cli::run(Cli::parse()).unwrap_or_else(|error| {
        eprintln!("tollgate: {error:#}");
        Exit::Refused
    });
    exit.into()
}
