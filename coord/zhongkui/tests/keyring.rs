//! Files of keys and capabilities: who can read them, and that none is written over.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use common::{authorities, granted, key};
use zhongkui::keyring::{self, KeyringError};

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_secret_key_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alice.key");
    keyring::write_secret_key(&path, &key(2)).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(keyring::read_secret_key(&path).unwrap().public(), key(2).public());
    for exposed in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).unwrap();
        let error = keyring::read_secret_key(&path).unwrap_err();
        assert!(matches!(&error, KeyringError::Exposed { mode, .. } if *mode == exposed), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    keyring::read_secret_key(&path).unwrap();
}

#[test]
fn nothing_is_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alice.key");
    keyring::write_secret_key(&path, &key(2)).unwrap();
    assert!(matches!(keyring::write_secret_key(&path, &key(3)), Err(KeyringError::Exists(_))));
    assert_eq!(keyring::read_secret_key(&path).unwrap().public(), key(2).public());
    // And nothing is left beside.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_others_see_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let (public, capability) = (folder.path().join("alice.pub"), folder.path().join("alice.cap"));
    keyring::write_public_key(&public, &key(2).public()).unwrap();
    assert_eq!(keyring::read_public_key(&public).unwrap(), key(2).public());
    let granted = granted(&key(2), &["read on directory:6"]);
    keyring::write_capability(&capability, &granted).unwrap();
    assert_eq!(mode(&capability), 0o644);
    let read = keyring::read_capability(&capability).unwrap();
    assert_eq!(read.verify(&authorities()).unwrap(), granted);
    assert!(fs::read_to_string(&capability).unwrap().contains("# capability 123456789abcdef0 for alice"));
}

#[test]
fn other_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge");
    fs::write(&path, vec![b'#'; 70 << 10]).unwrap();
    assert!(matches!(keyring::read_capability(&path), Err(KeyringError::TooLarge(_))));
    let missing = keyring::read_public_key(&folder.path().join("nobody.pub")).unwrap_err();
    assert!(missing.to_string().contains("nobody.pub"), "{missing}");
    fs::write(&path, "hello\n").unwrap();
    assert!(matches!(keyring::read_public_key(&path), Err(KeyringError::Content { .. })));
}
