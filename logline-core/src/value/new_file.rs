//! Files that decide about trust: how they are made, and who may have written them.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use crate::value::clock::{Clock as _, IdSource as _, SystemClock, SystemIds};

/// Makes a file with these Unix permissions, and makes it durable. A file, or a link, that is there already is not changed: that is
/// [`io::ErrorKind::AlreadyExists`].
///
/// It is written beside, under a name that nobody can foresee, and linked. So nobody ever reads a part of it, and a crash leaves the
/// whole file or none.
///
/// # Errors
/// The operating system's.
pub fn write_new(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let write = |path: &Path| options.open(path).and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.part", SystemIds.next_id(SystemClock.now()).simple()));
    let linked = write(Path::new(&beside)).and_then(|()| match std::fs::hard_link(&beside, path) {
        // A file system without links.
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => write(path),
        linked => linked,
    });
    let removed = std::fs::remove_file(&beside);
    linked.and(removed)?;
    // Without this a crash may lose the name of the file.
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// The user who owns a file and the user of this process, if they differ and the owner is not root. `None` on systems that cannot be
/// asked, short of unsafe code.
#[cfg(unix)]
#[must_use]
pub fn foreign_owner(found: &Metadata) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    // The owner of this folder is the user of this process.
    let process = std::fs::metadata("/proc/self").ok()?;
    Some((found.uid(), process.uid())).filter(|(owner, user)| is_foreign(*owner, *user))
}

#[cfg(unix)]
fn is_foreign(owner: u32, user: u32) -> bool {
    owner != user && owner != 0
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_user_is_foreign_unless_root_owns_it() {
        assert!(!is_foreign(1000, 1000) && !is_foreign(0, 1000));
        assert!(is_foreign(1000, 0) && is_foreign(1000, 1001));
    }

    #[test]
    fn a_file_or_a_link_that_is_there_is_not_changed_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write_new(&at("a"), 0o600, b"first").unwrap();
        std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nothing"), at("dangling")).unwrap();
        for name in ["a", "link", "dangling"] {
            let refused = write_new(&at(name), 0o600, b"second").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists, "{name}");
        }
        assert_eq!(std::fs::read(at("a")).unwrap(), b"first");
        assert!(!at("nothing").exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
