//! The reader's entry points: a file or a text becomes a [`Config`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::check::{check_addresses, check_options};
use crate::model::Config;
use crate::problem::{Diagnostics, Problems};
use crate::read::read;
use crate::source::Source;
use crate::syntax::syntax;

/// Longest file that is read, in bytes: some 30 times the size of 100,000 prefixes. It keeps an
/// endless device or pipe, given by mistake, from filling the memory.
const MAX_FILE: u64 = 64 << 20;

/// The reason why a file gives no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read the configuration `{}`: {source}; {}", .path.display(), help(.source))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is longer than any configuration.
    #[error("`{}` is longer than {} MiB, which no configuration is; is this the right file?", .path.display(), MAX_FILE >> 20)]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It is a pipe, a device or a directory.
    #[error("`{}` is no regular file; a daemon that runs reads no other, because a pipe could block it", .path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// The file was read and has mistakes.
    #[error(transparent)]
    Problems(#[from] Problems),
}

fn help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "give the path of a site's file, such as /etc/adit/a.toml",
        io::ErrorKind::PermissionDenied => "read it as its owner, or as root",
        io::ErrorKind::IsADirectory => "give a file in it",
        _ => "give a file that can be read",
    }
}

impl Config {
    /// Reads the text of a configuration file. `file_name` is only shown with
    /// the mistakes.
    ///
    /// Cost: linear in the text, and `n log n` in the number of prefixes.
    ///
    /// # Errors
    /// Returns every mistake of the file.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Problems> {
        let mut diagnostics = Diagnostics::new(Source::new(file_name, text));
        let (tree, errors) = DeTable::parse_recoverable(text);
        let file = read(&tree, &mut diagnostics);
        check_options(&file, &mut diagnostics);
        syntax(errors, &tree, &mut diagnostics);
        if diagnostics.is_empty()
            && let Some(config) = file.finish()
        {
            return Ok(config);
        }
        // With many peers, looking for every conflict costs as much as all the rest.
        check_addresses(&file, &mut diagnostics);
        diagnostics.finish()?;
        unreachable!("what keeps a file from being a configuration has been reported")
    }

    /// Reads a configuration file, or what a pipe gives.
    ///
    /// # Errors
    /// Fails if the file cannot be read or has mistakes.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Ok(Self::parse(&path.display().to_string(), &read_file(path)?)?)
    }
}

/// Reads the text of a configuration file, or what a pipe gives.
///
/// # Errors
/// Fails if the file cannot be read, is too long, or is not UTF-8.
pub fn read_file(path: &Path) -> Result<String, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(LoadError::TooLong { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        not_utf8(&path.display().to_string(), error.as_bytes(), at).into()
    })
}

/// Reads the text of a configuration file that is neither a pipe nor a device, which could block or
/// never end.
///
/// # Errors
/// Fails as [`read_file`] does, and if it is no regular file.
pub fn read_regular_file(path: &Path) -> Result<String, LoadError> {
    let metadata = path.metadata().map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    if !metadata.is_file() {
        return Err(LoadError::NotRegular { path: path.to_owned() });
    }
    read_file(path)
}

/// Reports the first byte that is not UTF-8.
fn not_utf8(name: &str, bytes: &[u8], at: usize) -> Problems {
    // The text before `at` is not replaced, so the place is right.
    let mut diagnostics = Diagnostics::new(Source::new(name, &String::from_utf8_lossy(bytes)));
    diagnostics.report(
        at..at + 1,
        format!("a configuration is text in UTF-8, found the byte 0x{:02x}", bytes[at]),
        "no UTF-8",
        "save the file as UTF-8",
    );
    match diagnostics.finish() {
        Err(problems) => problems,
        Ok(()) => unreachable!("one was reported"),
    }
}
