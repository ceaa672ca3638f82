//! `pangu-fuse`: mounts Pangu.

use clap::Parser as _;

/// Small requests are mostly allocations; the C library's allocator took an eighth of a master's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    fs_cli::fuse::main(fs_cli::fuse::Flags::parse())
}
