//! `nuwa snapshot`, `nuwa restore`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use nuwa_api::snapshot::{self, Contents, ExportError, Reader, RestoreError};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::Context;
use crate::show;

/// Standard input, or output.
const STANDARD: &str = "-";
/// Times a snapshot is begun again when its member stops in the middle of it.
const ATTEMPTS: u32 = 3;
/// Between two words about how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

/// See [`crate::Command::Snapshot`].
#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    /// Where to; - for standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace FILE if it exists
    #[arg(short, long, conflicts_with = "check")]
    force: bool,
    /// Make none: read FILE (- for standard input) to its end, check all of it, and say what it has. Needs no cluster
    #[arg(long)]
    check: bool,
}

/// See [`crate::Command::Restore`].
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// Where from; - for standard input
    #[arg(value_name = "FILE", required_unless_present = "abandon")]
    file: Option<PathBuf>,
    /// How far the revision goes beyond the snapshot's: more than the lost cluster has given out since then
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    revision_bump: u64,
    /// Give up a restore that was broken off: the tree is empty again
    #[arg(long, conflicts_with_all = ["file", "revision_bump"])]
    abandon: bool,
}

impl Snapshot {
    /// What it is to do without a cluster, if that is asked for.
    pub(crate) fn check(&self, json: bool) -> Option<anyhow::Result<()>> {
        self.check.then(|| {
            let contents = if is_standard(&self.file) {
                snapshot::verify(BufReader::new(io::stdin().lock()))
            } else {
                snapshot::verify(BufReader::new(open(&self.file)?))
            };
            let contents = contents.with_context(|| self.file.display().to_string())?;
            say(json, &self.file, &contents, None)
        })
    }

    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        if is_standard(&self.file) {
            let (_, contents) = save(context, BufWriter::new(io::stdout().lock())).await?;
            if context.json {
                eprintln!("{}", as_json(&self.file, &contents, None));
            } else {
                eprint!("{}", text(&self.file, &contents));
            }
            return Ok(());
        }
        anyhow::ensure!(
            self.force || !self.file.try_exists().unwrap_or(true),
            "{} exists: take another name, or --force to replace it",
            self.file.display()
        );
        let contents = self.save_file(context).await?;
        say(context.json, &self.file, &contents, None)
    }

    /// The file appears whole, and durable, or not at all.
    async fn save_file(&self, context: &Context) -> anyhow::Result<Contents> {
        let directory = self.file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or_else(|| Path::new("."));
        let said = || format!("write {}", self.file.display());
        let mut attempt = 1;
        let (file, contents) = loop {
            let file = NamedTempFile::new_in(directory).with_context(said)?;
            match save(context, BufWriter::new(file)).await {
                Ok(saved) => break saved,
                Err(ExportError::Client(error)) if error.refusal().is_none() && attempt < ATTEMPTS => {
                    attempt += 1;
                    show::warn(context.json, format_args!("{error}: beginning again"));
                }
                Err(error) => return Err(error.into()),
            }
        };
        let file = file.into_inner().map_err(io::IntoInnerError::into_error).with_context(said)?;
        file.as_file().sync_all().with_context(said)?;
        let kept = if self.force { file.persist(&self.file) } else { file.persist_noclobber(&self.file) };
        kept.map_err(|failed| failed.error).with_context(said)?;
        File::open(directory).and_then(|directory| directory.sync_all()).with_context(said)?;
        Ok(contents)
    }
}

async fn save<W: io::Write>(context: &Context, out: W) -> Result<(W, Contents), ExportError> {
    let mut progress = Progress::new("taken");
    let cluster = &context.cluster;
    snapshot::save(&context.client, cluster, out, context.timeout, |contents| progress.say(contents)).await
}

impl Restore {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Some(path) = self.file else {
            snapshot::abandon(&context.client, context.timeout).await?;
            return if context.json { show::print_json(&json!({"abandoned": true})) } else { Ok(()) };
        };
        let name = || path.display().to_string();
        let mut file = if is_standard(&path) { spooled()? } else { open(&path)? };
        // All of it is checked before the cluster is asked for anything.
        let contents = snapshot::verify(BufReader::new(&mut file)).with_context(name)?;
        file.rewind().with_context(name)?;
        let reader = Reader::new(BufReader::new(file)).with_context(name)?;
        anyhow::ensure!(*reader.header() == contents.header, "{} changes while it is read", name());
        let mut progress = Progress::new("restored");
        let restored =
            snapshot::restore(&context.client, reader, self.revision_bump, context.timeout, |contents| {
                progress.say(contents)
            });
        match restored.await {
            Ok(restored) => say(context.json, &path, &restored.contents, Some(restored.revision)),
            Err(RestoreError::NotBegun(error)) => {
                Err(anyhow::Error::new(error).context("a snapshot goes into an empty tree only; nothing was changed"))
            }
            Err(error @ RestoreError::BrokenOff { .. }) => Err(anyhow::Error::new(error).context(
                "the tree refuses everything until it is restored: restore it again, or give it up with `nuwa restore --abandon`",
            )),
        }
    }
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == STANDARD
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("open {}", path.display()))
}

/// Standard input can be read once only.
fn spooled() -> anyhow::Result<File> {
    let mut file = tempfile::tempfile().context("make a temporary file")?;
    io::copy(&mut io::stdin().lock(), &mut file).context("read the snapshot")?;
    file.flush().and_then(|()| file.rewind()).context("read the snapshot again")?;
    Ok(file)
}

/// How far it is, for whoever sits in front of it.
struct Progress {
    what: &'static str,
    next: Instant,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        Self { what, next: Instant::now() + PROGRESS }
    }

    fn say(&mut self, contents: &Contents) {
        if Instant::now() >= self.next && io::stderr().is_terminal() {
            self.next = Instant::now() + PROGRESS;
            eprintln!("{} entries, {} bytes {}", contents.records, contents.file_bytes, self.what);
        }
    }
}

/// `now`: the revision of the tree it was restored to.
fn say(json: bool, path: &Path, contents: &Contents, now: Option<u64>) -> anyhow::Result<()> {
    if json {
        return show::print_json(&as_json(path, contents, now));
    }
    let mut text = text(path, contents);
    if let Some(revision) = now {
        text += &format!("restored: the tree is at revision {revision} now\n");
    }
    show::print(text.as_bytes())
}

fn text(path: &Path, contents: &Contents) -> String {
    let Contents { header, directories, files, quotas, value_bytes, file_bytes, .. } = contents;
    let quotas = if *quotas == 0 { String::new() } else { format!(", {quotas} quotas") };
    format!(
        "{}: {} at revision {}: {directories} directories, {files} files with {value_bytes} bytes{quotas}; {file_bytes} bytes\n",
        path.display(),
        header.cluster,
        header.revision,
    )
}

fn as_json(path: &Path, contents: &Contents, now: Option<u64>) -> Value {
    let Contents { header, directories, files, quotas, value_bytes, file_bytes, .. } = contents;
    let mut value = json!({
        "file": path.display().to_string(), "cluster": header.cluster, "revision": header.revision,
        "made_unix_nanos": header.made_unix_nanos, "directories": directories, "files": files, "quotas": quotas,
        "value_bytes": value_bytes, "file_bytes": file_bytes,
    });
    if let Some(revision) = now {
        value["restored_revision"] = json!(revision);
    }
    value
}
