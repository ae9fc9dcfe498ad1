//! Files that hold a secret or a signed statement.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::FetchError;

/// Largest file that is read.
const BYTES_MAX: u64 = 64 << 10;

/// The text of a file without the white space around it.
pub(super) fn read(path: &Path) -> Result<String, FetchError> {
    check(path).map_err(|reason| FetchError::File { path: path.display().to_string(), reason })
}

/// The same for whoever names the file himself, such as the configuration: the reason alone.
///
/// # Errors
///
/// What is wrong with the file, to be put behind its name.
pub(crate) fn check(path: &Path) -> Result<String, String> {
    let text = read_text(path).map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("has more than {BYTES_MAX} bytes"));
    }
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.contains(['\n', '\r', '\0']) {
        return Err("has more than one line".to_owned());
    }
    Ok(text.to_owned())
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let seen = |text: &str| {
            std::fs::write(&path, text).unwrap();
            check(&path)
        };
        assert_eq!(seen(" s3cr~t \n").as_deref(), Ok("s3cr~t"));
        assert_eq!(seen(" \n"), Err("is empty".to_owned()));
        assert_eq!(seen("one\ntwo"), Err("has more than one line".to_owned()));
        assert_eq!(seen(&"x".repeat(70_000)), Err("has more than 65536 bytes".to_owned()));
        let absent = read(&folder.path().join("absent")).unwrap_err();
        assert!(absent.to_string().contains("absent: cannot be read: "), "{absent}");
    }
}
