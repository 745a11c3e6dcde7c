//! The document with the tables. The text between the markers is generated; the rest is written by
//! hand and stays.

use std::path::Path;

use crate::error::BenchError;

const END: &str = "<!-- end -->";
/// The initial document.
const TEMPLATE: &str = include_str!("benchmarks.md");

/// A part of the document that is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The tables measured on the machine itself.
    Machine,
    /// The tables measured in an emulated machine.
    Guest,
}

impl Part {
    fn begin(self) -> &'static str {
        match self {
            Self::Machine => "<!-- begin: written by `cargo xtask bench` -->",
            Self::Guest => "<!-- begin: written by `cargo xtask vm bench` -->",
        }
    }
}

/// Puts `tables` between the markers of a part of the document. Creates the document if there is
/// none.
pub(crate) fn write(path: &Path, part: Part, tables: &str) -> Result<(), BenchError> {
    let old = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => TEMPLATE.to_owned(),
        Err(error) => return Err(BenchError::io(format!("read {}", path.display()))(error)),
    };
    let new = replace(&old, part, tables).ok_or_else(|| BenchError::Io {
        what: format!("find the markers `{}` and `{END}` in {}", part.begin(), path.display()),
        source: std::io::ErrorKind::InvalidData.into(),
    })?;
    std::fs::write(path, new).map_err(BenchError::io(format!("write {}", path.display())))
}

fn replace(document: &str, part: Part, tables: &str) -> Option<String> {
    let begin = part.begin();
    let (before, rest) = document.split_once(begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n\n{}\n\n{END}{after}", tables.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_of_the_part_changes() {
        let begin = Part::Guest.begin();
        let document =
            format!("head\n{}\nmachine\n{END}\nmiddle\n{begin}\nold\n{END}\nfoot\n", Part::Machine.begin());
        let once = replace(&document, Part::Guest, "new\n").unwrap();
        assert_eq!(once, document.replace("\nold\n", "\n\nnew\n\n"));
        assert_eq!(replace(&once, Part::Guest, "new\n").unwrap(), once);
        assert_eq!(replace("no markers", Part::Guest, "new"), None);
    }

    #[test]
    fn the_document_is_made_where_there_is_none_and_kept_where_there_is()
    -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("benchmarks.md");
        write(&path, Part::Machine, "tables-1")?;
        write(&path, Part::Guest, "tables-3")?;
        let text = std::fs::read_to_string(&path)?;
        assert!(text.starts_with("# How fast"), "{text}");
        std::fs::write(&path, text + "by hand\n")?;
        write(&path, Part::Machine, "tables-2")?;
        let text = std::fs::read_to_string(&path)?;
        assert!(
            text.contains("tables-2") && !text.contains("tables-1") && text.ends_with("by hand\n"),
            "{text}"
        );
        assert!(text.contains("tables-3"), "{text}");
        std::fs::write(&path, "no markers")?;
        let error = write(&path, Part::Machine, "third").unwrap_err().to_string();
        assert!(error.contains("find the markers"), "{error}");
        Ok(())
    }
}
