//! `nuwa txn`: a transaction as JSON.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use nuwa_api::ops;
use nuwa_api::proto::compare::With;
use nuwa_api::proto::{self, Existence, Operation, OperationResult, Relation};
use nuwa_api::session::TxnDone;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Context;
use crate::show;

/// Of the document.
const BYTES_MAX: u64 = 16 << 20;

/// See [`crate::Command::Txn`]. Ends with 0 if all compares held, with 2 if not.
#[derive(Debug, Args)]
#[command(after_help = FORMAT)]
pub(crate) struct Txn {}

const FORMAT: &str = r#"The document:
  {"if":   [COMPARE, ...],      may be left out, as the two others
   "then": [OPERATION, ...],    done if every compare holds
   "else": [OPERATION, ...]}    done if one does not
  COMPARE    {"path": "/a", "version": 3}; instead of version: modified, owner or fence (numbers),
             exists (true or false), value (text); 0 is the version of what does not exist.
             "is": "!=", "<" or ">" says how it is to compare, otherwise "="
  OPERATION  {"put": {"path": "/a", "value": "text", "new": true, "existing": true, "parents": true}}
             {"mkdir": {"path": "/d/", "parents": true, "may_exist": true}}
             {"rm": {"path": "/a", "recursive": true, "force": true}}
             {"mv": {"from": "/a", "to": "/b", "no_replace": true}}
             {"get": {"path": "/a"}}
Ends with 0 if every compare held, with 2 if one did not."#;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, rename = "if")]
    compares: Vec<Compare>,
    #[serde(default)]
    then: Vec<Step>,
    #[serde(default, rename = "else")]
    otherwise: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compare {
    path: String,
    #[serde(default)]
    is: Option<Is>,
    version: Option<u64>,
    modified: Option<u64>,
    owner: Option<u64>,
    fence: Option<u64>,
    exists: Option<bool>,
    value: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Is {
    #[serde(rename = "=")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = ">")]
    Greater,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum Step {
    Put {
        path: String,
        #[serde(default)]
        value: String,
        #[serde(default)]
        new: bool,
        #[serde(default)]
        existing: bool,
        #[serde(default)]
        parents: bool,
    },
    Mkdir {
        path: String,
        #[serde(default)]
        parents: bool,
        #[serde(default)]
        may_exist: bool,
    },
    Rm {
        path: String,
        #[serde(default)]
        recursive: bool,
        #[serde(default)]
        force: bool,
    },
    Mv {
        from: String,
        to: String,
        #[serde(default)]
        no_replace: bool,
    },
    Get {
        path: String,
    },
}

impl Compare {
    fn into_proto(self) -> anyhow::Result<proto::Compare> {
        let given = [
            self.version.map(With::Version),
            self.modified.map(With::Modified),
            self.owner.map(With::Owner),
            self.fence.map(With::Fence),
            self.exists.map(With::Exists),
            self.value.map(|value| With::Value(value.into())),
        ];
        let mut given = given.into_iter().flatten();
        let (Some(with), None) = (given.next(), given.next()) else {
            anyhow::bail!("the compare of {} must say one thing to compare with", self.path);
        };
        let relation = match self.is {
            None | Some(Is::Equal) => Relation::Equal,
            Some(Is::NotEqual) => Relation::NotEqual,
            Some(Is::Less) => Relation::Less,
            Some(Is::Greater) => Relation::Greater,
        };
        Ok(ops::compare(self.path, relation, with))
    }
}

impl From<Step> for Operation {
    fn from(step: Step) -> Self {
        match step {
            Step::Put { path, value, new, existing, parents } => {
                let existence = match (new, existing) {
                    (true, _) => Existence::MustNotExist,
                    (_, true) => Existence::MustExist,
                    _ => Existence::Any,
                };
                let put = ops::put(path, value);
                proto::Put { existence: existence.into(), with_parents: parents, ..put }.into()
            }
            Step::Mkdir { path, parents, may_exist } => {
                proto::MakeDirectory { path, with_parents: parents, may_exist }.into()
            }
            Step::Rm { path, recursive, force } => {
                proto::Delete { path, subtree: recursive, may_be_absent: force }.into()
            }
            Step::Mv { from, to, no_replace } => proto::Rename { no_replace, ..ops::rename(from, to) }.into(),
            Step::Get { path } => ops::get(path).into(),
        }
    }
}

impl Step {
    /// What it is called in the document.
    const fn word(&self) -> &'static str {
        match self {
            Self::Put { .. } => "put",
            Self::Mkdir { .. } => "mkdir",
            Self::Rm { .. } => "rm",
            Self::Mv { .. } => "mv",
            Self::Get { .. } => "get",
        }
    }

    /// What it is about; of a move, what it gives.
    fn path(&self) -> &str {
        match self {
            Self::Put { path, .. }
            | Self::Mkdir { path, .. }
            | Self::Rm { path, .. }
            | Self::Get { path } => path,
            Self::Mv { to, .. } => to,
        }
    }
}

impl Txn {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let mut text = String::new();
        std::io::stdin().lock().take(BYTES_MAX).read_to_string(&mut text).context("read the transaction")?;
        let document: Document = serde_json::from_str(&text)
            .context("the transaction does not parse: `nuwa txn --help` shows what it looks like")?;
        let Document { compares, then, otherwise } = document;
        let compares = compares.into_iter().map(Compare::into_proto).collect::<Result<_, _>>()?;
        let said = |steps: &[Step]| -> Vec<_> {
            steps.iter().map(|step| format!("{:<6} {}", step.word(), step.path())).collect()
        };
        let (said_then, said_otherwise) = (said(&then), said(&otherwise));
        let operations = |steps: Vec<Step>| steps.into_iter().map(Operation::from).collect();
        let done = context.txn(compares, operations(then), operations(otherwise)).await?;
        if context.json {
            show::print_json(&as_json(&done))?;
        } else {
            let steps = if done.succeeded { &said_then } else { &said_otherwise };
            show::print(as_text(&done, steps).as_bytes())?;
        }
        Ok(if done.succeeded { ExitCode::SUCCESS } else { ExitCode::from(2) })
    }
}

fn as_json(done: &TxnDone) -> Value {
    let result = |result: &OperationResult| {
        result.entry.as_ref().map_or(Value::Null, nuwa_api::json::entry_with_value)
    };
    let results: Vec<Value> = done.results.iter().map(result).collect();
    json!({"succeeded": done.succeeded, "revision": done.revision, "results": results})
}

/// For people: which branch it was, and a line for each of its operations.
fn as_text(done: &TxnDone, steps: &[String]) -> String {
    let held = if done.succeeded { "every compare held" } else { "a compare did not hold" };
    let mut text = format!("{held}; revision {}\n", done.revision);
    for (step, result) in steps.iter().zip(&done.results) {
        text += &format!("{step}  {}\n", outcome(step, result));
    }
    text
}

fn outcome(step: &str, result: &OperationResult) -> String {
    match &result.entry {
        Some(entry) if entry.path.ends_with('/') => "directory".to_owned(),
        Some(entry) if step.starts_with("get") => {
            format!("version {}  {}", entry.version, show::shortened(&entry.value))
        }
        Some(entry) => format!("version {}", entry.version),
        None if step.starts_with("get") => "does not exist".to_owned(),
        None => format!("{} removed", result.touched),
    }
}
