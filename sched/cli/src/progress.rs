//! How far a job is, of the table that its master writes for people (`progress`, a line for each task).

/// Instances of all tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) done: u64,
    pub(crate) running: u64,
    pub(crate) failed: u64,
    pub(crate) instances: u64,
}

impl Counts {
    /// `None` if there is no such table: the job has not begun, or its master is of another release.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next()?.split_whitespace().collect();
        let column = |name: &str| head.iter().position(|column| *column == name);
        let (done, running) = (column("done")?, column("running")?);
        let (waiting, failed) = (column("waiting")?, column("failed")?);
        let mut counts = Self::default();
        for line in lines {
            let cells: Vec<&str> = line.split_whitespace().collect();
            let number = |column: usize| cells.get(column)?.parse::<u64>().ok();
            let (done, running) = (number(done)?, number(running)?);
            let (waiting, failed) = (number(waiting)?, number(failed)?);
            counts.done = counts.done.saturating_add(done);
            counts.running = counts.running.saturating_add(running);
            counts.failed = counts.failed.saturating_add(failed);
            for more in [done, running, waiting, failed] {
                counts.instances = counts.instances.saturating_add(more);
            }
        }
        Some(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_added_up() {
        let text = "task  done  running  waiting  failed  median  progress\n\
            map   3  1  6  0  1.5 s  [######..............]  30 %\n\
            sum   0  0  1  2         [....................]   0 %\n";
        let counts = Counts { done: 3, running: 1, failed: 2, instances: 13 };
        assert_eq!(Counts::parse(text), Some(counts));
    }

    #[test]
    fn what_is_no_such_table_counts_nothing() {
        for text in [
            "",
            "half way",
            "task done running waiting failed\nmap 1 2",
            "task done running waiting failed\nmap a b c d",
        ] {
            assert_eq!(Counts::parse(text), None, "{text}");
        }
    }
}
