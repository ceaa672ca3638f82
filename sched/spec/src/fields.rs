//! Taking keys out of a table: each with its kind, and what is left over is unknown.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::errors::{ERRORS_MAX, JobError};

/// Everything that was found wrong so far; what is beyond [`ERRORS_MAX`] is only counted.
#[derive(Debug, Default)]
pub(crate) struct Wrong {
    pub(crate) errors: Vec<JobError>,
    pub(crate) more: usize,
}

impl Wrong {
    pub(crate) fn add(&mut self, at: Range<usize>, message: impl Into<String>) {
        self.add_with(at, || message.into());
    }

    /// For messages that take time to make.
    pub(crate) fn add_with(&mut self, at: Range<usize>, message: impl FnOnce() -> String) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(JobError { at, message: message() });
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }
}

/// A value and where it is.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) at: Range<usize>,
}

/// One table of the file.
pub(crate) struct Fields<'a, 'i> {
    table: &'a DeTable<'i>,
    /// As the messages call it: "the job", "[mapreduce]", "task map".
    name: String,
    known: Vec<&'static str>,
}

impl<'a, 'i> Fields<'a, 'i> {
    pub(crate) fn new(table: &'a DeTable<'i>, name: impl Into<String>) -> Self {
        Self { table, name: name.into(), known: Vec::new() }
    }

    /// Where a key stands, for messages about its absence or its value.
    pub(crate) fn at(&self, key: &str) -> Option<Range<usize>> {
        self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key).map(|(name, _)| name.span())
    }

    pub(crate) fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key).map(|(_, value)| value)
    }

    pub(crate) fn text(&mut self, key: &'static str, wrong: &mut Wrong) -> Option<At<String>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(At { value: text.to_string(), at: value.span() }),
            other => {
                let message = format!("{key} must be a text in quotes, and is {}", kind(other));
                wrong.add(value.span(), message);
                None
            }
        }
    }

    pub(crate) fn flag(&mut self, key: &'static str, wrong: &mut Wrong) -> Option<bool> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            other => {
                wrong.add(value.span(), format!("{key} must be true or false, and is {}", kind(other)));
                None
            }
        }
    }

    /// A whole number from `least` to `most`.
    pub(crate) fn number(
        &mut self,
        key: &'static str,
        (least, most): (u32, u32),
        wrong: &mut Wrong,
    ) -> Option<u32> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Integer(number) => {
                let number = i128::from_str_radix(number.as_str(), number.radix()).ok();
                let number = number.and_then(|number| u32::try_from(number).ok());
                let number = number.filter(|number| (least..=most).contains(number));
                if number.is_none() {
                    wrong.add(value.span(), format!("{key} must be from {least} to {most}"));
                }
                number
            }
            other => {
                wrong.add(value.span(), format!("{key} must be a whole number, and is {}", kind(other)));
                None
            }
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, key: &'static str, wrong: &mut Wrong) -> Option<Vec<At<String>>> {
        let value = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            let message =
                format!("{key} must be a list of texts, as [\"a\", \"b\"], and is {}", kind(value.get_ref()));
            wrong.add(value.span(), message);
            return None;
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => texts.push(At { value: text.to_string(), at: item.span() }),
                other => {
                    wrong.add(item.span(), format!("{key} is a list of texts, and this is {}", kind(other)));
                }
            }
        }
        Some(texts)
    }

    pub(crate) fn table(&mut self, key: &'static str, wrong: &mut Wrong) -> Option<At<&'a DeTable<'i>>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(At { value: table, at: value.span() }),
            other => {
                wrong.add(value.span(), format!("{key} must be a table, and is {}", kind(other)));
                None
            }
        }
    }

    /// A table of texts by name, as a program's environment is.
    pub(crate) fn named_texts(
        &mut self,
        key: &'static str,
        wrong: &mut Wrong,
    ) -> Option<BTreeMap<String, String>> {
        let table = self.table(key, wrong)?;
        let mut texts = BTreeMap::new();
        for (name, value) in table.value {
            let is_variable = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
            match value.get_ref() {
                DeValue::String(_) if !is_variable(name.get_ref().as_ref()) => {
                    let message = format!(
                        "{key}: no variable can have this name: it must not be empty, nor have '=' or NUL in it"
                    );
                    wrong.add(name.span(), message);
                }
                DeValue::String(text) if text.contains('\0') => {
                    wrong.add(
                        value.span(),
                        format!("{key}.{} must not have a NUL byte in it", name.get_ref()),
                    );
                }
                DeValue::String(text) => {
                    texts.insert(name.get_ref().to_string(), text.to_string());
                }
                other => {
                    let message =
                        format!("{key}.{} must be a text in quotes, and is {}", name.get_ref(), kind(other));
                    wrong.add(value.span(), message);
                }
            }
        }
        Some(texts)
    }

    /// Whatever was not asked for is a mistake.
    pub(crate) fn finish(self, wrong: &mut Wrong) {
        for (name, _) in self.table {
            let key = name.get_ref().as_ref();
            if self.known.contains(&key) {
                continue;
            }
            wrong.add_with(name.span(), || {
                let advice = match nearest(key, &self.known) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("it has {}", self.known.join(", ")),
                };
                format!("{} has no key {key}: {advice}", self.name)
            });
        }
    }
}

/// What a value is, for messages.
pub(crate) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The known name that was probably meant: at most two letters of five wrong, as when two are exchanged.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |known: &&'k str| edits(name, known);
    let near = known.iter().min_by_key(|known| distance(known))?;
    (distance(near) * 5 <= near.len() * 2).then_some(*near)
}

/// Letters to insert, remove or change (Levenshtein, Soviet Physics Doklady 10, 1966).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
