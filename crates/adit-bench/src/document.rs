//! The document that the tables go into: what is between the markers is generated, the rest is
//! written by hand and stays.

use std::path::Path;

use crate::error::BenchError;

const BEGIN: &str = "<!-- begin: written by `cargo xtask bench` -->";
const END: &str = "<!-- end -->";
/// What the document starts as.
const TEMPLATE: &str = include_str!("benchmarks.md");

/// Puts `tables` between the markers of the document, which is made if it is not there.
pub(crate) fn write(path: &Path, tables: &str) -> Result<(), BenchError> {
    let old = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => TEMPLATE.to_owned(),
        Err(error) => return Err(BenchError::io(format!("read {}", path.display()))(error)),
    };
    let new = replace(&old, tables).ok_or_else(|| BenchError::Io {
        what: format!("find the markers `{BEGIN}` and `{END}` in {}", path.display()),
        source: std::io::ErrorKind::InvalidData.into(),
    })?;
    std::fs::write(path, new).map_err(BenchError::io(format!("write {}", path.display())))
}

fn replace(document: &str, tables: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", tables.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let document = format!("head\n{BEGIN}\nold\n{END}\nfoot\n");
        let once = replace(&document, "new\n").unwrap();
        assert_eq!(once, format!("head\n{BEGIN}\n\nnew\n\n{END}\nfoot\n"));
        assert_eq!(replace(&once, "new\n").unwrap(), once);
        assert_eq!(replace("no markers", "new"), None);
    }

    #[test]
    fn the_document_is_made_where_there_is_none_and_kept_where_there_is()
    -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("benchmarks.md");
        write(&path, "first")?;
        let text = std::fs::read_to_string(&path)?;
        assert!(text.starts_with("# How fast"), "{text}");
        std::fs::write(&path, text + "by hand\n")?;
        write(&path, "second")?;
        let text = std::fs::read_to_string(&path)?;
        assert!(text.contains("second") && !text.contains("first") && text.ends_with("by hand\n"), "{text}");
        std::fs::write(&path, "no markers")?;
        let error = write(&path, "third").unwrap_err().to_string();
        assert!(error.contains("find the markers"), "{error}");
        Ok(())
    }
}
