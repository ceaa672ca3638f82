//! The journal as a file in the job's directory (`sched/docs/journal.md`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sched_job::Record;
use sched_job::journal::{self, JournalError};

/// Why a journal can not be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalFileError {
    #[error("{doing} the journal {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}", path.display())]
    Content {
        path: PathBuf,
        #[source]
        source: JournalError,
    },
}

/// See the module. One process writes it: the job's master.
#[derive(Debug)]
pub struct JournalFile {
    file: File,
    path: PathBuf,
    next_frame: u32,
}

impl JournalFile {
    /// Opens the journal, makes it if there is none, and reads what it says. What a crash left of its last append is cut off, and
    /// the cut is durable before anything is appended.
    ///
    /// # Errors
    /// See [`JournalFileError`].
    pub fn open(path: &Path, fingerprint: u32) -> Result<(Self, Vec<Record>), JournalFileError> {
        let io = |doing| move |source| JournalFileError::Io { doing, path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("open"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read"))?;
        let read = journal::read(&bytes, fingerprint)
            .map_err(|source| JournalFileError::Content { path: path.to_owned(), source })?;
        file.set_len(read.len_bytes as u64).map_err(io("cut"))?;
        file.seek(SeekFrom::Start(read.len_bytes as u64)).map_err(io("cut"))?;
        if read.len_bytes == 0 {
            file.write_all(&journal::header(fingerprint)).map_err(io("begin"))?;
        }
        file.sync_all().map_err(io("sync"))?;
        if let Some(directory) = path.parent() {
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(io("sync the directory of"))?;
        }
        Ok((Self { file, path: path.to_owned(), next_frame: read.next_frame }, read.records))
    }

    /// Appends records; they are durable when this returns. After an error nobody knows what is on the disk: the process must
    /// stop, and the next one reads it.
    ///
    /// # Errors
    /// See [`JournalFileError`].
    pub fn append(&mut self, records: &[Record]) -> Result<(), JournalFileError> {
        let frame = journal::frame(self.next_frame, records);
        let written = self.file.write_all(&frame).and_then(|()| self.file.sync_data());
        written.map_err(|source| JournalFileError::Io {
            doing: "append to",
            path: self.path.clone(),
            source,
        })?;
        self.next_frame += 1;
        Ok(())
    }
}

/// Writes a file whole or not at all, durably.
///
/// # Errors
/// Nothing was changed, or all of it.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use sched_job::TaskId;

    use super::*;

    #[test]
    fn what_a_crash_tore_is_cut_off_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, records) = JournalFile::open(&path, 7).unwrap();
        assert_eq!(records, []);
        let record = Record::Reopened { task: TaskId(0), instance: 3 };
        journal.append(std::slice::from_ref(&record)).unwrap();
        journal.append(std::slice::from_ref(&record)).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let (mut journal, records) = JournalFile::open(&path, 7).unwrap();
        assert_eq!(records, std::slice::from_ref(&record));
        journal.append(std::slice::from_ref(&record)).unwrap();
        let (_, records) = JournalFile::open(&path, 7).unwrap();
        assert_eq!(records.len(), 2);
    }

    #[test]
    fn a_journal_of_another_plan_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        JournalFile::open(&path, 7).unwrap();
        assert!(matches!(JournalFile::open(&path, 8), Err(JournalFileError::Content { .. })));
    }
}
