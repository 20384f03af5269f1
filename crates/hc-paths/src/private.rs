// SPDX-License-Identifier: Apache-2.0
//! Folders that nobody else can reach into.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::Error;

/// Makes the folder where it is missing, and refuses one that is not the caller's alone.
///
/// The last part of `path` must not be a symbolic link; the parts before it are the user's to trust.
pub fn make_private_dir(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Folder { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let metadata = std::fs::symlink_metadata(path).map_err(failed)?;
    let refuse = |reason: String| Err(Error::NotPrivate { path: path.to_owned(), reason });
    let uid = rustix::process::geteuid().as_raw();
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_dir() {
        refuse("it is not a folder".to_owned())
    } else if metadata.uid() != uid {
        refuse(format!("it belongs to user {}, and we are user {uid}", metadata.uid()))
    } else if mode & 0o077 != 0 {
        refuse(format!("others have access to it (mode {mode:03o})"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn a_missing_folder_is_made_with_its_parents_and_twice_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        make_private_dir(&path).unwrap();
        make_private_dir(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_open_to_others_a_link_and_a_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for path in [open, link, file] {
            let error = make_private_dir(&path).unwrap_err();
            assert!(matches!(error, Error::NotPrivate { .. }), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        if std::os::unix::fs::chown(dir.path(), Some(12345), None).is_err() {
            eprintln!("skipped: only root can give a folder to another user");
            return;
        }
        let error = make_private_dir(dir.path()).unwrap_err();
        assert!(error.to_string().contains("it belongs to user 12345"), "{error}");
    }
}
