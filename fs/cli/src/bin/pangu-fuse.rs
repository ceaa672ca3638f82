//! `pangu-fuse`: mounts Pangu.

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    fs_cli::fuse::main(fs_cli::fuse::Flags::parse())
}
