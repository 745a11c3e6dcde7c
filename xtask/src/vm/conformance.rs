//! The job of `cargo xtask conformance`: it observes what Adit and Linux's own ipip driver do with
//! the same packets. It runs in the guest, because few machines have a kernel with that driver.
//!
//! It writes `docs/reference/conformance.md` or compares it with the new observations, and keeps
//! the packets in `target/conformance`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::guest::Guest;
use super::job::Job;
use super::kernel::clear;
use crate::run;

/// How long the guest may live.
const TIMEOUT: Duration = Duration::from_secs(900);
/// The document's name, both in the guest's `/out` and in `docs/reference`.
const DOCUMENT: &str = "conformance.md";

/// Builds `adit-conformance`, and returns the job that runs it.
pub(super) fn job(guest: &Guest, arguments: &[String]) -> Result<Job, String> {
    run::cargo(&["build", "--release", "--locked", "--package", "adit-conformance"], &[])?;
    let program = guest.target().join("release/adit-conformance");
    let mut command: Vec<String> =
        [&program.to_string_lossy(), "--out", "/out"].into_iter().map(str::to_owned).collect();
    command.extend(arguments.iter().cloned());
    let pinned = vec![program];
    Ok(Job { command, environment: Vec::new(), directory: run::root(), pinned, timeout: TIMEOUT })
}

/// Keeps the packets, and replaces the committed document or compares it with the new one. `code`
/// is the exit code of `adit-conformance`.
///
/// # Errors
/// Fails if an observation breaks a rule, if the documents differ and `is_check` is set, or if a
/// file cannot be written.
pub(super) fn collect(guest: &Guest, code: u8, is_check: bool) -> Result<(), String> {
    let packets = guest.target().join("conformance");
    clear(&packets)?;
    fs::create_dir_all(&packets).map_err(|error| format!("cannot make {}: {error}", packets.display()))?;
    let files = fs::read_dir(guest.out()).into_iter().flatten().flatten().map(|file| file.path());
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "pcapng")) {
        copy(&file, &packets.join(file.file_name().unwrap_or_default()))?;
    }
    println!("packets of every row and system: {}", packets.display());
    let (new, kept) = (guest.out().join(DOCUMENT), run::root().join("docs/reference").join(DOCUMENT));
    if !new.is_file() {
        return match code {
            0 => Ok(()),
            code => Err(format!("adit-conformance wrote no document and exited with code {code}")),
        };
    }
    let differs = fs::read(&new).ok() != fs::read(&kept).ok();
    if is_check && differs {
        let _ = std::process::Command::new("diff").arg("-u").arg(&kept).arg(&new).status();
        return Err(format!(
            "{} differs from what was observed: if the change is intended, run `cargo xtask conformance`",
            kept.display()
        ));
    }
    if !is_check {
        copy(&new, &kept)?;
        println!("{}: {}", kept.display(), if differs { "changed" } else { "unchanged" });
    }
    match code {
        0 => Ok(()),
        _ => Err("some observations break a rule; the rows are listed above".to_owned()),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error| format!("cannot copy {} to {}: {error}", from.display(), to.display());
    fs::copy(from, to).map(drop).map_err(failed)
}
