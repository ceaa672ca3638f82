//! `fuxi check`: what is wrong with job files, before anybody is asked to run them.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use sched_spec::{FILE_MAX_BYTES, JobErrors, JobSpec};
use serde_json::json;

use crate::show;

/// See [`crate::Command::Check`].
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Job files; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

impl Check {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        let mut all_good = true;
        for file in &self.files {
            let name = file.display().to_string();
            let checked = read(file).map(|bytes| sched_spec::parse_bytes(&bytes));
            all_good &= matches!(checked, Ok(Ok(_)));
            match checked {
                Ok(Ok(spec)) if json => show::print_json(&described(&name, &spec))?,
                Ok(Ok(spec)) => show::print(format!("{name}: {}\n", summary(&spec)).as_bytes())?,
                Ok(Err(errors)) if json => show::print_json(&refused(&name, &errors))?,
                Ok(Err(errors)) => eprint!("{}", errors.report(&name)),
                // The other files are looked at all the same.
                Err(error) => show::error(json, format_args!("{error:#}")),
            }
        }
        Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A job file, or as much of it as shows that it is too large.
///
/// # Errors
/// It can not be read.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = FILE_MAX_BYTES as u64 + 1;
    let read = if file == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("read the job file {}", file.display()))?;
    Ok(bytes)
}

fn summary(spec: &JobSpec) -> String {
    let known: u64 = spec.tasks.iter().filter_map(|task| task.instances).map(u64::from).sum();
    let open: Vec<&str> =
        spec.tasks.iter().filter(|task| task.instances.is_none()).map(|task| &*task.name).collect();
    let counted = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let tasks = counted(spec.tasks.len() as u64, "task");
    let by_inputs = format!("as many of {} as its inputs give", open.join(", "));
    let instances = match (known, open.is_empty()) {
        (known, true) => counted(known, "instance"),
        (0, false) => format!("instances: {by_inputs}"),
        (known, false) => format!("{} and {by_inputs}", counted(known, "instance")),
    };
    format!("job {}, {tasks}, {instances}", spec.name)
}

fn described(file: &str, spec: &JobSpec) -> serde_json::Value {
    let tasks: Vec<_> =
        spec.tasks.iter().map(|task| json!({"task": task.name, "instances": task.instances})).collect();
    json!({"file": file, "job": spec.name, "priority": spec.priority, "tasks": tasks})
}

/// All that is wrong with a file, for programs.
pub(crate) fn refused(file: &str, errors: &JobErrors) -> serde_json::Value {
    let all: Vec<_> = errors
        .errors()
        .iter()
        .map(|error| {
            let (line, column) = errors.place(error);
            json!({"line": line, "column": column, "message": error.message})
        })
        .collect();
    json!({"file": file, "errors": all, "more": errors.more()})
}
