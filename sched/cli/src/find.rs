//! Which job is meant: its id, or as much of the beginning as no other one has.

use crate::spool::{Entry, Part, Spool};

/// Of those that could be meant, as many are listed.
const LISTED_MAX: usize = 10;

/// Why it is not known which job is meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unclear {
    #[error("no job begins with '{0}': `fuxi ls --all` lists all there are")]
    None(String),
    #[error("{count} jobs begin with '{beginning}': give more of the id of the one that is meant\n{listed}")]
    Several { beginning: String, count: usize, listed: String },
}

/// The job that is meant, wherever it is.
///
/// # Errors
/// [`Unclear`]; or the spool can not be read.
pub(crate) fn job(spool: &Spool, beginning: &str) -> anyhow::Result<Entry> {
    let all = spool.entries(&spool.queues()?, Part::Refused, |name| name.starts_with(beginning))?;
    Ok(choose(all, beginning)?)
}

fn choose(mut all: Vec<Entry>, beginning: &str) -> Result<Entry, Unclear> {
    let file_name = |entry: &Entry| entry.path.file_name().is_some_and(|name| name == beginning);
    // A whole id is no beginning of another one, even if another one begins so; nor is the name of a file.
    if let Some(exact) = all.iter().position(|entry| entry.id == beginning) {
        return Ok(all.swap_remove(exact));
    }
    if all.iter().filter(|entry| file_name(entry)).count() == 1 {
        all.retain(file_name);
    }
    match all.len() {
        0 => Err(Unclear::None(beginning.to_owned())),
        1 => Ok(all.swap_remove(0)),
        count => {
            let line = |entry: &Entry| format!("  {} in {}", entry.id, entry.path.display());
            let mut lines: Vec<String> = all.iter().take(LISTED_MAX).map(line).collect();
            if count > LISTED_MAX {
                lines.push(format!("  and {} more", count - LISTED_MAX));
            }
            Err(Unclear::Several { beginning: beginning.to_owned(), count, listed: lines.join("\n") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, file: &str) -> Entry {
        Entry { queue: "q".parse().unwrap(), id: id.to_owned(), part: Part::Refused, path: file.into() }
    }

    #[test]
    fn a_whole_id_wins_over_what_begins_with_it() {
        let all = vec![entry("x-1", "/new/x.toml"), entry("x-12", "/run/x-12")];
        assert_eq!(choose(all.clone(), "x-1").unwrap().id, "x-1");
        assert_eq!(choose(all.clone(), "x-12").unwrap().id, "x-12");
        let Err(Unclear::Several { count, listed, .. }) = choose(all, "x") else { panic!("it is not clear") };
        assert!(count == 2 && listed.contains("x-12"), "{listed}");
        assert_eq!(choose(Vec::new(), "y"), Err(Unclear::None("y".to_owned())));
    }

    #[test]
    fn a_refused_file_is_found_by_its_name() {
        let all = vec![entry("x-1", "/failed/x.toml"), entry("x.toml-2", "/failed/x.toml-2")];
        assert_eq!(choose(all, "x.toml").unwrap().id, "x-1");
    }

    #[test]
    fn of_many_a_few_are_listed() {
        let all = (0..12).map(|n| entry(&format!("x-{n}"), "x")).collect();
        let message = choose(all, "x-").unwrap_err().to_string();
        assert!(message.ends_with("  and 2 more") && message.lines().count() == 12, "{message}");
    }
}
