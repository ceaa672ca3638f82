//! `pangu`: looks at a cluster and its files.

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    fs_cli::admin::main(fs_cli::admin::Flags::parse())
}
