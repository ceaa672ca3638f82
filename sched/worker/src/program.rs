//! A task's command made ready to be started many times: the file that is run, its arguments, and the part of its environment that all
//! instances share.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::spawn::Strings;
use crate::task::Task;

/// Where programs are looked for if nobody says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a task has no program that could be run here.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("the task has no command")]
    Empty,
    #[error(
        "there is no program {name:?} in {path}: give its full path, or one below the mount that has a '/'"
    )]
    NotInPath { name: String, path: String },
    #[error("{}: {source}", .path.display())]
    NotUsable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0:?} has a zero byte, which no program can be given")]
    Zero(String),
}

/// See the module.
#[derive(Debug)]
pub struct Program {
    pub path: CString,
    pub arguments: Strings,
    pub environment: Strings,
    shared: usize,
}

impl Program {
    /// # Errors
    /// See [`ProgramError`].
    pub fn of(task: &Task, config: &Config, home: &Path) -> Result<Self, ProgramError> {
        let name = task.command.first().filter(|name| !name.is_empty()).ok_or(ProgramError::Empty)?;
        let inherited = std::env::var("PATH").unwrap_or_else(|_| PATH.to_owned());
        let search = task.environment.get("PATH").map_or(inherited.as_str(), String::as_str);
        let path = find(name, search, &config.mount)?;
        let mut program = Self {
            path: c_string(path.as_os_str())?,
            arguments: Strings::default(),
            environment: Strings::default(),
            shared: 0,
        };
        for argument in &task.command {
            program.arguments.push(c_string(OsStr::new(argument))?);
        }
        let grant = config.grant.to_string();
        let agent = std::env::var_os("FUXI_AGENT").unwrap_or_default();
        let job_directory = config.job_directory();
        let ours: [(&str, &OsStr); 11] = [
            ("PATH", OsStr::new(search)),
            ("HOME", home.as_os_str()),
            ("TMPDIR", home.as_os_str()),
            ("LANG", OsStr::new("C.UTF-8")),
            ("FUXI_JOB", OsStr::new(&config.job)),
            ("FUXI_TASK", OsStr::new(&task.name)),
            ("FUXI_NODE", OsStr::new(&config.node)),
            ("FUXI_MOUNT", config.mount.as_os_str()),
            ("FUXI_JOB_DIR", job_directory.as_os_str()),
            // By these two the agent finds what is left of a worker that died.
            ("FUXI_GRANT", OsStr::new(&grant)),
            ("FUXI_AGENT", &agent),
        ];
        // The task's own come last and win where a name is not ours to give.
        for (key, value) in ours.iter().filter(|(key, _)| !task.environment.contains_key(*key)) {
            program.set(key, value)?;
        }
        for (key, value) in &task.environment {
            program.set(key, OsStr::new(value))?;
        }
        program.shared = program.environment.len();
        Ok(program)
    }

    /// Adds to the environment of the next start only.
    ///
    /// # Errors
    /// The value has a zero byte.
    pub fn set(&mut self, key: &str, value: impl AsRef<OsStr>) -> Result<(), ProgramError> {
        let value = value.as_ref();
        let mut bytes = Vec::with_capacity(key.len() + value.len() + 2);
        bytes.extend_from_slice(key.as_bytes());
        bytes.push(b'=');
        bytes.extend_from_slice(value.as_bytes());
        self.environment.push(c_string(OsStr::from_bytes(&bytes))?);
        Ok(())
    }

    /// Forgets what was added for the last start.
    pub fn reset(&mut self) {
        self.environment.truncate(self.shared);
    }
}

fn c_string(text: &OsStr) -> Result<CString, ProgramError> {
    CString::new(text.as_bytes()).map_err(|_zero| ProgramError::Zero(text.to_string_lossy().into_owned()))
}

/// A name with a '/' is a path, below the mount if it is relative: programs of a job lie there. Others are looked for in `search`.
fn find(name: &str, search: &str, mount: &Path) -> Result<PathBuf, ProgramError> {
    if name.contains('/') {
        let path = mount.join(name);
        return match is_executable(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(ProgramError::NotUsable { path, source }),
        };
    }
    let mut refused = None;
    for folder in search.split(':').filter(|folder| folder.starts_with('/')) {
        let path = Path::new(folder).join(name);
        match is_executable(&path) {
            Ok(()) => return Ok(path),
            Err(source) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                refused.get_or_insert(ProgramError::NotUsable { path, source });
            }
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| ProgramError::NotInPath { name: name.to_owned(), path: search.to_owned() }))
}

fn is_executable(path: &Path) -> std::io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    let text = CString::new(path.as_os_str().as_bytes())?;
    let text: &CStr = &text;
    // SAFETY: a C string that outlives the call.
    if unsafe { libc::access(text.as_ptr(), libc::X_OK) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(command: &[&str]) -> Task {
        Task { command: command.iter().map(|&word| word.to_owned()).collect(), ..Task::default() }
    }

    fn program(command: &[&str], mount: &Path) -> Result<Program, ProgramError> {
        Program::of(&task(command), &Config::new("j", 1, mount, "/tmp"), Path::new("/tmp"))
    }

    #[test]
    fn programs_are_found_in_path_and_below_the_mount() {
        let mount = tempfile::tempdir().unwrap();
        assert!(program(&["true"], mount.path()).is_ok());
        let own = mount.path().join("bin/own");
        std::fs::create_dir(mount.path().join("bin")).unwrap();
        std::fs::write(&own, "#!/bin/sh\n").unwrap();
        assert!(matches!(program(&["bin/own"], mount.path()), Err(ProgramError::NotUsable { .. })));
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&own, executable).unwrap();
        let found = program(&["bin/own"], mount.path()).unwrap();
        assert_eq!(found.path.to_str().unwrap(), own.to_str().unwrap());
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = program(&["no-such-program"], Path::new("/")).unwrap_err().to_string();
        assert!(missing.contains("\"no-such-program\""), "{missing}");
        assert!(matches!(program(&[], Path::new("/")), Err(ProgramError::Empty)));
        assert!(matches!(
            program(&["tr\0ue"], Path::new("/")),
            Err(ProgramError::NotInPath { .. } | ProgramError::Zero(_))
        ));
    }

    #[test]
    fn what_one_instance_was_told_the_next_is_not() {
        let mut program = program(&["true"], Path::new("/")).unwrap();
        let shared = program.environment.len();
        program.set("FUXI_INSTANCE", "1").unwrap();
        program.reset();
        assert_eq!(program.environment.len(), shared);
    }
}
