//! Files of the largest size that are made to cost the master memory or time. A first version answered the second of them with gigabytes:
//! each task that waited for an unknown one was told the names of all the others.

use sched_spec::{FILE_MAX_BYTES, parse};

/// More than a person reads, and little for a master.
const REPORT_MAX_BYTES: usize = 1 << 20;

fn filled(head: &str, line: impl Fn(usize) -> String) -> String {
    let mut text = head.to_owned();
    for number in 0.. {
        let more = line(number);
        if text.len() + more.len() > FILE_MAX_BYTES {
            break;
        }
        text.push_str(&more);
    }
    text
}

fn report(text: &str) -> String {
    let report = parse(text).expect_err("it is no job").report("x.toml");
    assert!(report.len() <= REPORT_MAX_BYTES, "{} bytes of report", report.len());
    report
}

#[test]
fn a_file_of_unknown_keys() {
    let report = report(&filled("name = \"x\"\n", |number| format!("k{number}=1\n")));
    assert!(report.lines().last().unwrap().contains("more"), "{report}");
}

#[test]
fn a_file_of_tasks_that_wait_for_nothing_there_is() {
    let task = |number| format!("[[task]]\nname=\"t{number}\"\ncommand=\"x\"\nafter=[\"nobody\"]\n");
    let report = report(&filled("name = \"x\"\n", task));
    assert!(report.contains("a job has at most 1000 tasks"), "{}", &report[..400]);
}

#[test]
fn a_thousand_tasks_that_each_wait_for_many_unknown_ones() {
    let task = |number| {
        if number >= 1_000 {
            return " ".repeat(FILE_MAX_BYTES);
        }
        let after = "\"u\",".repeat(200);
        format!("[[task]]\nname=\"t{number}\"\ncommand=\"x\"\nafter=[{after}]\n")
    };
    report(&filled("name = \"x\"\n", task));
}

#[test]
fn a_file_of_syntax_errors() {
    report(&filled("", |_| "=\n".to_owned()));
}

#[test]
fn a_file_of_brackets() {
    report(&filled("a = ", |_| "[".to_owned()));
    report(&filled("a", |_| ".a".to_owned()));
}

#[test]
fn a_file_that_is_too_large_is_not_looked_at() {
    let report = report(&"#".repeat(FILE_MAX_BYTES + 1));
    assert!(report.contains("the most a job file may have"), "{report}");
}
