//! Job files: what is wrong with bad ones, and what good ones become.

use proptest::prelude::*;

use crate::{JobSpec, Key, Records, Split, TaskKind, parse, parse_bytes};

const GOOD: &str = "name = \"x\"\n[[task]]\nname = \"a\"\ncommand = \"true\"\n";

/// What follows a good task, and a part of what must be said, with its place.
const BAD_TASK: &[(&str, &str)] = &[
    ("instances = 0", "5:13: instances must be from 1 to 1000000"),
    ("instances = 1000001", "5:13: instances must be from 1 to 1000000"),
    ("instances = \"2\"", "5:13: instances must be a whole number, and is a text"),
    ("instances = 1.5", "5:13: instances must be a whole number, and is a number with a point"),
    ("instances = 2\nsplit = \"file\"\ninputs = [\"x\"]", "5:1: instances and split exclude each other"),
    ("instnaces = 2", "5:1: a task has no key instnaces: did you mean instances?"),
    ("zzz = 2", "5:1: a task has no key zzz: it has name, command"),
    ("split = \"file\"", "5:1: split has nothing to split"),
    ("inputs = [\"x\"]\nsplit = \"1KiB\"", "6:9: split must be at least 64KiB"),
    ("inputs = [\"x\"]\nsplit = \"half\"", "6:9: split: 'half' is no size"),
    ("inputs = [\"x\"]\nsplit = 5", "6:9: split must be a text in quotes, and is a whole number"),
    ("inputs = \"x\"", "5:10: inputs must be a list of texts, as [\"a\", \"b\"], and is a text"),
    ("inputs = [\"x\", 3]", "5:16: inputs is a list of texts, and this is a whole number"),
    ("inputs = [\"/etc/passwd\"]", "5:11: inputs must be relative to the mount"),
    ("inputs = [\"a/../../b\"]", "5:11: inputs must be relative to the mount"),
    ("inputs = [\"\"]", "5:11: inputs must be relative to the mount"),
    ("outputs = [\"../x\"]", "5:12: outputs must be relative to out/"),
    ("instances = 2\noutputs = [\"x\"]", "2:1: out/x would be made by every instance of a"),
    ("after = [\"b\"]", "5:1: a waits for b, and there is no such task (there is a)"),
    ("after = [\"a\"]", "5:1: tasks wait for each other in a circle: a after a"),
    ("after = \"a\"", "5:9: after must be a list of texts"),
    ("timeout = \"10\"", "5:11: timeout: '10' is no time"),
    ("timeout = \"0s\"", "5:11: timeout must not be 0"),
    ("timeout = 10", "5:11: timeout must be a text in quotes"),
    ("attempts = 0", "5:12: attempts must be from 1 to 100"),
    ("failures_allowed = -1", "5:20: failures_allowed must be from 0"),
    ("backup = \"yes\"", "5:10: backup must be true or false, and is a text"),
    ("parallel_max = 0", "5:16: parallel_max must be from 1"),
    ("env = { A = 1 }", "5:13: env.A must be a text in quotes"),
    ("env = { \"A=B\" = \"1\" }", "5:9: env: no variable can have this name"),
    ("env = { \"\" = \"1\" }", "5:9: env: no variable can have this name"),
    ("env = { A = \"\\u0000\" }", "5:13: env.A must not have a NUL byte"),
    ("outputs = [\"o\", \"./o/\"]", "2:1: out/o is twice among the outputs of a"),
    ("inputs = [\"./\"]", "5:11: inputs must be relative to the mount"),
    ("[[task]]\nname = \"b\"\ncommand = \"a\\u0000\"", "7:11: command has a NUL byte"),
    (
        "[[task]]\nname = \"b\"\ncommand = \"true\"\nafter = [\"aa\"]",
        "8:1: b waits for aa, and there is no such task (there is a, b)",
    ),
    (
        "[[task]]\nname = \"build\"\ncommand = \"true\"\nafter = [\"biuld\"]",
        "8:1: build waits for biuld, and there is no such task (did you mean build?)",
    ),
    ("outputs = [\"result\"]\n[mapreduce]\ninputs = [\"x\"]", "out/result is made by a, too"),
    ("env = \"A=1\"", "5:7: env must be a table, and is a text"),
    ("resources = { cpu = \"two\" }", "5:21: resources.cpu: 'two' is no number of cores"),
    ("resources = { memory = 512 }", "5:24: resources.memory: '512' is no size"),
    ("resources = { memory = \"512Mib\" }", "5:24: resources.memory: '512Mib' is no size"),
    ("resources = { gpu = 0.5 }", "5:21: resources.gpu: '0.5' is no amount of gpu"),
    ("resources = { cpu = 0, memory = \"0B\" }", "5:13: resources must not all be 0"),
    ("resources = { cpu = true }", "5:21: resources.cpu must be an amount, and is true or false"),
    ("[[task]]\nname = \"a\"\ncommand = \"true\"", "5:1: there is another task a"),
    ("[[task]]\nname = \"A\"\ncommand = \"true\"", "6:8: name must be 1 to 63 of a-z, 0-9, '-' and '_'"),
    ("[[task]]\nname = \"b/c\"\ncommand = \"true\"", "6:8: name must be 1 to 63"),
    ("[[task]]\ncommand = \"true\"", "5:1: the task has no name"),
    ("[[task]]\nname = \"b\"", "5:1: the task has no command"),
    ("[[task]]\nname = \"b\"\ncommand = \" \"", "7:11: command is empty"),
    ("[[task]]\nname = \"b\"\ncommand = []", "7:11: command is empty"),
    ("[[task]]\nname = \"b\"\ncommand = 7", "7:11: command must be a text for the shell"),
    (
        "outputs = [\"o\"]\n[[task]]\nname = \"b\"\ncommand = \"true\"\noutputs = [\"o\"]",
        "6:1: out/o is made by a, too",
    ),
    (
        "after = [\"b\"]\n[[task]]\nname = \"b\"\ncommand = \"true\"\nafter = [\"c\"]\n[[task]]\nname = \"c\"\ncommand = \"true\"\nafter = [\"b\"]",
        "in a circle: b after c after b",
    ),
];

/// Whole files.
const BAD_FILE: &[(&str, &str)] = &[
    ("", "1:1: the job has no name"),
    ("name = \"x\"", "1:1: the job does nothing"),
    ("name = ", "1:8: this is no TOML"),
    ("name = \"x\"\nname = \"y\"\n", "2:1: this is no TOML: duplicate key"),
    (
        "name = 5\n[[task]]\nname = \"a\"\ncommand = \"true\"",
        "1:8: name must be a text in quotes, and is a whole number",
    ),
    (
        "name = \"x\"\npriority = 1001\n[[task]]\nname = \"a\"\ncommand = \"true\"",
        "2:12: priority must be from 0 to 1000",
    ),
    (
        "name = \"x\"\nprioritty = 1\n[[task]]\nname = \"a\"\ncommand = \"true\"",
        "2:1: the job has no key prioritty: did you mean priority?",
    ),
    ("name = \"x\"\ntask = 5", "2:8: tasks are written as [[task]], and this is a whole number"),
    ("name = \"x\"\ntask = [5]", "2:9: a task must be a table, and this is a whole number"),
    ("name = \"x\"\n[mapreduce]\n", "[mapreduce] reads nothing"),
    (
        "name = \"x\"\n[mapreduce]\ninputs = [\"a\"]\nmaper = \"cat\"",
        "4:1: [mapreduce] has no key maper: did you mean mapper?",
    ),
    ("name = \"x\"\n[mapreduce]\ninputs = [\"a\"]\nreducers = 0", "4:12: reducers must be from 1 to 10000"),
    (
        "name = \"x\"\n[mapreduce]\ninputs = [\"a\"]\npartition = \"round\"",
        "4:13: partition must be \"hash\" or \"range\"",
    ),
    ("name = \"x\"\n[mapreduce]\ninputs = [\"a\"]\nrecords = \"bytes\"", "4:11: records must be \"lines\""),
    (
        "name = \"x\"\n[mapreduce]\ninputs = [\"a\"]\nrecords = 10\nkey = { from = 0, to = 11 }",
        "5:7: key ends at byte 11, and records have 10 bytes",
    ),
    ("name = \"x\"\n[mapreduce]\ninputs = [\"a\"]\nkey = { from = 4, to = 4 }", "4:7: key must name a field"),
    (
        "name = \"x\"\n[mapreduce]\ninputs = [\"a\"]\nkey = { field = 1, separator = \"ab\" }",
        "4:32: separator must be one ASCII letter",
    ),
    (
        "name = \"x\"\n[mapreduce]\ninputs = [\"a\"]\nkey = { feild = 1 }",
        "4:9: key has no key feild: did you mean field?",
    ),
    (
        "name = \"x\"\n[mapreduce]\ninputs = [\"a\"]\noutput = \"/tmp/x\"",
        "4:10: output must be relative to out/",
    ),
    (
        "name = \"x\"\n[mapreduce]\ninputs = [\"a\"]\n[[task]]\nname = \"map\"\ncommand = \"true\"",
        "there is another task map",
    ),
];

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let tasks = BAD_TASK.iter().map(|(more, expected)| (format!("{GOOD}{more}\n"), *expected));
    let files = BAD_FILE.iter().map(|(file, expected)| ((*file).to_owned(), *expected));
    for (text, expected) in tasks.chain(files) {
        let errors = parse(&text).expect_err(&text);
        let report = errors.report("x.toml");
        assert!(report.contains(expected), "{text}\nshould be told: {expected}\nand was:\n{report}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = "name = \"x\"\npriority = -1\n[[task]]\nname = \"a\"\ncomand = \"true\"\ntimeout = \"1\"\n";
    let report = parse(text).unwrap_err().report("x.toml");
    for line in ["x.toml:2:12:", "x.toml:3:1:", "x.toml:5:1:", "x.toml:6:11:"] {
        assert!(report.contains(line), "{line}\n{report}");
    }
}

#[test]
fn a_mark_stands_under_what_is_wrong() {
    let report =
        parse("name = \"ü\" # ü\n[[task]]\nname = \"a\"\ncommand = \"true\"\n").unwrap_err().report("x.toml");
    let mut lines = report.lines();
    assert!(lines.next().unwrap().starts_with("x.toml:1:8: name must be"), "{report}");
    assert_eq!(lines.next().unwrap(), " 1 | name = \"ü\" # ü");
    assert_eq!(lines.next().unwrap(), "   |        ^^^");
}

#[test]
fn every_key_that_is_misspelled_is_told_at_its_place() {
    for file in examples() {
        let text = std::fs::read_to_string(file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let Some((key, _)) = line.split_once(" = ") else { continue };
            let wrong: Vec<String> = text
                .lines()
                .enumerate()
                .map(
                    |(at, line)| {
                        if at == number { format!("{key}x{}", &line[key.len()..]) } else { line.to_owned() }
                    },
                )
                .collect();
            let report = parse(&wrong.join("\n")).expect_err(line).report("x.toml");
            assert!(report.contains(&format!("x.toml:{}:1: ", number + 1)), "{line}\n{report}");
            assert!(report.contains(&format!("did you mean {key}?")), "{line}\n{report}");
        }
    }
}

fn examples() -> Vec<std::path::PathBuf> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples");
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 4, "{files:?}");
    files
}

#[test]
fn the_examples_are_jobs() {
    for file in examples() {
        let text = std::fs::read_to_string(&file).unwrap();
        if let Err(errors) = parse(&text) {
            panic!("{}", errors.report(&file.display().to_string()));
        }
    }
}

#[test]
fn the_examples_of_the_reference_are_jobs() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/job.md")).unwrap();
    let mut count = 0;
    for example in text.split("```toml\n").skip(1) {
        let example = example.split("```").next().unwrap();
        if let Err(errors) = parse(example) {
            panic!("{}", errors.report("job.md"));
        }
        count += 1;
    }
    assert!(count >= 3, "{count}");
}

#[test]
fn a_mapreduce_becomes_tasks() {
    let text = "name = \"x\"\n[mapreduce]\ninputs = [\"a\"]\nrecords = 100\nkey = { from = 0, to = 10 }\npartition = \"range\"\nreducers = 4\n";
    let job = parse(text).unwrap();
    let names: Vec<&str> = job.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["sample", "map", "reduce"]);
    assert_eq!(job.tasks[1].after, ["sample"]);
    assert_eq!(job.tasks[2].instances, Some(4));
    let TaskKind::Map(map) = &job.tasks[1].kind else { panic!("{job:?}") };
    assert_eq!((map.records, &map.key), (Records::Fixed(100), &Key::Bytes { from: 0, to: 10 }));
    assert_eq!(job.tasks[1].split, Split::Bytes(64 << 20));
    // One reducer needs no boundaries.
    let job = parse(&text.replace("reducers = 4", "reducers = 1")).unwrap();
    assert_eq!(job.tasks.len(), 2);
}

#[test]
fn what_is_sent_to_workers_comes_back_as_it_was() {
    for file in examples() {
        let job = parse(&std::fs::read_to_string(file).unwrap()).unwrap();
        let json = serde_json::to_vec(&job).unwrap();
        assert_eq!(serde_json::from_slice::<JobSpec>(&json).unwrap(), job);
    }
}

#[test]
fn the_schema_has_every_key() {
    let schema = crate::schema();
    let task = &schema["properties"]["task"]["items"]["properties"];
    for key in [
        "name",
        "command",
        "instances",
        "inputs",
        "split",
        "outputs",
        "after",
        "env",
        "resources",
        "timeout",
        "attempts",
        "failures_allowed",
        "backup",
        "parallel_max",
    ] {
        assert!(task.get(key).is_some(), "{key}");
    }
    // An unknown key's message lists all that are known: none may be missing from the schema.
    let report = parse(&format!("{GOOD}zzz = 1\n")).unwrap_err().report("x");
    let known = report.split("it has ").nth(1).unwrap().lines().next().unwrap();
    for key in known.split(", ") {
        assert!(task.get(key).is_some(), "{key}");
    }
}

/// The mark of what is far to the right, in a line that is cut.
#[test]
fn of_a_long_line_what_is_around_the_mark_is_shown() {
    let text = format!(
        "name = \"x\"\ntask = [{{ name = \"a\",\tcommand = \"{}\", backup = 5 }}]\n",
        "c".repeat(400)
    );
    let report = parse(&text).unwrap_err().report("x.toml");
    let lines: Vec<&str> = report.lines().collect();
    assert!(lines[0].contains("backup must be true or false"), "{report}");
    assert_eq!(lines[1].find("5 }"), lines[2].find('^'), "{report}");
    // A tab stays one letter wide.
    let report =
        parse("name = \"x\"\ntask = [{ name = \"a\",\tcommand = 5 }]\n").unwrap_err().report("x.toml");
    assert!(!report.contains('\t'), "{report}");
}

#[test]
fn paths_are_written_in_one_way() {
    let job = parse(&format!("{GOOD}inputs = [\"./a//b/*\", \"c/\"]\n")).unwrap();
    assert_eq!(job.tasks[0].inputs, ["a/b/*", "c"]);
}

#[test]
fn bytes_that_are_no_text_are_told_with_their_place() {
    let report = parse_bytes(b"name = \"x\"\n# \xff\n").unwrap_err().report("x.toml");
    assert!(report.starts_with("x.toml:2:3: byte 14 of the file is no UTF-8"), "{report}");
    // A file that is too large, whose last letter is cut where reading ends.
    let large = "\u{fc}".repeat(crate::FILE_MAX_BYTES);
    let report = parse_bytes(large.as_bytes()).unwrap_err().report("x.toml");
    assert!(report.contains("the most a job file may have"), "{report}");
    assert_eq!(parse_bytes(GOOD.as_bytes()).unwrap(), parse(GOOD).unwrap());
}

proptest! {
    #[test]
    fn no_bytes_bring_the_master_down(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Err(errors) = parse_bytes(&bytes) {
            prop_assert!(!errors.report("x").is_empty());
        }
    }

    #[test]
    fn nothing_that_is_dropped_brings_the_master_down(text in ".{0,400}") {
        if let Err(errors) = parse(&text) {
            prop_assert!(!errors.report("x").is_empty());
        }
    }

    /// Near misses of a job: one byte range of a good file is replaced.
    #[test]
    fn nor_does_what_is_nearly_a_job(at in 0usize..120, len in 0usize..10, with in "[\\[\\]{}=\"a-z0-9.\\n ]{0,6}") {
        let mut text = format!("{GOOD}instances = 3\nresources = {{ cpu = 0.5, memory = \"1GiB\" }}\nafter = []\n");
        let at = at.min(text.len());
        let end = (at + len).min(text.len());
        text.replace_range(at..end, &with);
        if let Err(errors) = parse(&text) {
            for error in errors.errors() {
                let (line, column) = errors.place(error);
                prop_assert!(line >= 1 && column >= 1);
            }
            prop_assert!(!errors.report("x").is_empty());
        }
    }
}
