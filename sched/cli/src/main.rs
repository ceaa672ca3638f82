//! `fuxi`: Fuxi's command line, one command a file.
//!
//! Jobs are files of the mount, and so are all commands about them: they work wherever the mount is, with the rights of
//! who runs them. Only what no file says, nodes and quota, is asked of the master.

mod check;
mod ctl;
mod files;
mod find;
mod logs;
mod ls;
mod master;
mod mount;
mod nodes;
mod progress;
mod quota;
mod rm;
mod show;
mod spool;
mod status;
mod submit;
mod table;
mod top;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::ctl::Control;
use crate::spool::Spool;

/// Submits jobs to Fuxi and looks after them.
///
/// JOB is a job's id, as `fuxi submit` and `fuxi ls` print it, or as much of its beginning as no other job has.
#[derive(Debug, Parser)]
#[command(name = "fuxi", version, after_help = EXAMPLES)]
struct Flags {
    /// Where Pangu is mounted [default: the mount in which the current directory is, else the only one, else /mnt/pangu]
    #[arg(long, value_name = "DIR", global = true, env = "FUXI_MOUNT")]
    mount: Option<PathBuf>,
    #[command(flatten)]
    master: master::MasterFlags,
    /// Print JSON instead of text for people
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what is wrong with job files, without submitting them
    Check(check::Check),
    /// Print the JSON schema of job files, for editors
    Schema,
    /// Submit a job file, and print the job's id
    ///
    /// With --wait it ends when the job has: with 0 if the job is done, with 1 if it failed or was killed.
    Submit(submit::Submit),
    /// List jobs that wait or run
    Ls(ls::Ls),
    /// Show how a job is
    Status(status::Job),
    /// Say what a job waits for, or why it failed or was refused
    Why(status::Job),
    /// Print what a job's instances said
    Logs(logs::Logs),
    /// Stop a job for good
    Kill(ctl::Job),
    /// Let a job's instances that run end, and begin no others
    Pause(ctl::Job),
    /// Go on with a job that was paused
    Resume(ctl::Job),
    /// Remove a job that has ended, with all it made
    Rm(rm::Rm),
    /// Machines, what they have and what of it is used
    Nodes,
    /// Jobs by what they hold, and how full the cluster is
    Top,
    /// Queues: what each uses, is guaranteed, and may use
    Quota,
}

const EXAMPLES: &str = "\
Examples:
  fuxi check wordcount.toml
  fuxi submit wordcount.toml --wait
  fuxi ls --queue batch --all
  fuxi why wordc
  fuxi logs -f wordcount-zy map.3
  fuxi kill wordcount-zy
  fuxi nodes --json";

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => return misused(&error),
    };
    let json = flags.json;
    run(flags).unwrap_or_else(|error| {
        show::error(json, format_args!("{error:#}"));
        ExitCode::FAILURE
    })
}

/// Says what is wrong with the arguments, or the help that was asked for.
fn misused(error: &clap::Error) -> ExitCode {
    // They do not parse: whether there is to be JSON can only be guessed.
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        show::error(true, format_args!("{}", error.to_string().trim()));
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
    }
    error.exit()
}

fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let Flags { mount, master, json, command } = flags;
    let spool = || Spool::in_mount(&mount::find(mount.as_deref())?);
    match command {
        Command::Check(check) => return check.run(json),
        Command::Schema => show::print_json(&sched_spec::schema())?,
        Command::Submit(submit) => return submit.run(spool, json),
        Command::Ls(ls) => ls.run(&spool()?, json)?,
        Command::Status(job) => job.status(&spool()?, json)?,
        Command::Why(job) => job.why(&spool()?, json)?,
        Command::Logs(logs) => logs.run(&spool()?, json)?,
        Command::Kill(job) => job.run(&spool()?, Control::Kill, json)?,
        Command::Pause(job) => job.run(&spool()?, Control::Pause, json)?,
        Command::Resume(job) => job.run(&spool()?, Control::Resume, json)?,
        Command::Rm(rm) => rm.run(&spool()?, json)?,
        Command::Nodes => nodes::run(&master.overview(mount.as_deref())?, json)?,
        Command::Top => top::run(&master.overview(mount.as_deref())?, json)?,
        Command::Quota => quota::run(&master.overview(mount.as_deref())?, json)?,
    }
    Ok(ExitCode::SUCCESS)
}
