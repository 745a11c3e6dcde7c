//! `cargo xtask conformance`: what Adit and Linux's own ipip do with the same packets, in the
//! guest, since few machines have a kernel with ipip. Writes `docs/reference/conformance.md`, or
//! compares it; keeps the packets.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::guest::Home;
use super::job::Job;
use super::kernel::clear;
use crate::run;

/// How long it may take.
const TIMEOUT: Duration = Duration::from_secs(900);
/// The document, in the guest's directory for what it gives out and, below `docs`, in the source.
const DOCUMENT: &str = "conformance.md";

/// Builds what observes; the job that observes.
pub(super) fn job(home: &Home, arguments: &[String]) -> Result<Job, String> {
    run::cargo(&["build", "--release", "--locked", "--package", "adit-conformance"], &[])?;
    let program = home.target().join("release/adit-conformance");
    let mut command: Vec<String> =
        [&program.to_string_lossy(), "--out", "/out"].into_iter().map(str::to_owned).collect();
    command.extend(arguments.iter().cloned());
    let pinned = vec![program];
    Ok(Job { command, environment: Vec::new(), directory: run::root(), pinned, timeout: TIMEOUT })
}

/// Keeps the packets, and puts the document into its place or compares it with what is there.
///
/// # Errors
/// Something was observed that the rules do not ask for, or the document says otherwise.
pub(super) fn tell(home: &Home, code: u8, is_check: bool) -> Result<(), String> {
    let packets = home.target().join("conformance");
    clear(&packets)?;
    fs::create_dir_all(&packets).map_err(|error| format!("cannot make {}: {error}", packets.display()))?;
    let found = fs::read_dir(home.out()).into_iter().flatten().flatten().map(|file| file.path());
    for file in found.filter(|file| file.extension().is_some_and(|extension| extension == "pcapng")) {
        copy(&file, &packets.join(file.file_name().unwrap_or_default()))?;
    }
    println!("the packets of every row and system: {}", packets.display());
    let (new, kept) = (home.out().join(DOCUMENT), run::root().join("docs/reference").join(DOCUMENT));
    if !new.is_file() {
        return match code {
            0 => Ok(()),
            code => Err(format!("nothing was written: the guest's program ended with {code}")),
        };
    }
    let differs = fs::read(&new).ok() != fs::read(&kept).ok();
    if is_check && differs {
        let _ = std::process::Command::new("diff").arg("-u").arg(&kept).arg(&new).status();
        return Err(format!(
            "{} says otherwise than what was observed; if that is right: cargo xtask conformance",
            kept.display()
        ));
    }
    if !is_check {
        copy(&new, &kept)?;
        println!("{}: {}", kept.display(), if differs { "changed" } else { "as before" });
    }
    match code {
        0 => Ok(()),
        _ => Err("not all that was observed is what the rules ask for; the rows are named above".to_owned()),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let told = |error| format!("cannot copy {} to {}: {error}", from.display(), to.display());
    fs::copy(from, to).map(drop).map_err(told)
}
