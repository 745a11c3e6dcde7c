//! The guest's initramfs: the programs and modules that mount this machine's files as the guest's
//! root, and the job's script.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::job::{Job, quoted};
use super::kernel::{Kernel, clear};
use super::modules::Modules;
use crate::run;

const INIT: &str = include_str!("init.sh");
const START: &str = include_str!("start.sh");

/// The modules that mount this machine's files. The guest loads its other modules from there.
const MODULES: &[&str] = &["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"];

/// Writes the archive into `directory` and returns its path.
pub(crate) fn build(directory: &Path, kernel: &Kernel, job: &Job) -> Result<PathBuf, String> {
    let root = directory.join("initramfs");
    clear(&root)?;
    let modules = kernel.modules.join(&kernel.release);
    let read = |name: &str| {
        let file = modules.join(name);
        fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))
    };
    let (dependencies, built_in) = (read("modules.dep")?, read("modules.builtin")?);
    let wanted = Modules::new(&dependencies, &built_in).in_order(MODULES)?;
    let wanted: Vec<PathBuf> = wanted.iter().map(|file| modules.join(file)).collect();
    write(&root, kernel, job, &wanted)
        .map_err(|error| format!("cannot write the guest's initramfs to {}: {error}", root.display()))?;

    let archive = directory.join("initramfs.cpio");
    let pack = format!(
        "set -o pipefail; find . | {} cpio -o -H newc >{} 2>/dev/null",
        quoted(&kernel.busybox.to_string_lossy()),
        quoted(&archive.to_string_lossy())
    );
    run::check(Command::new("bash").args(["-c", &pack]).current_dir(&root))?;
    Ok(archive)
}

/// How the files of compressed modules end. Before the guest has a root, nothing there can read
/// them.
const COMPRESSED: &str = ".xz";

/// Copies a module, uncompressed.
fn copy_module(from: &Path, to: &Path) -> io::Result<()> {
    if !from.to_string_lossy().ends_with(COMPRESSED) {
        return fs::copy(from, to).map(drop);
    }
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(from).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    fs::write(to, output.stdout)
}

fn write(root: &Path, kernel: &Kernel, job: &Job, modules: &[PathBuf]) -> io::Result<()> {
    let [for_modules, for_job] = ["modules", "job"].map(|name| root.join(name));
    for directory in [&for_modules, &for_job] {
        fs::create_dir_all(directory)?;
    }
    for (number, module) in modules.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(COMPRESSED).unwrap_or(&name);
        copy_module(module, &for_modules.join(format!("{number:02}-{name}")))?;
    }
    fs::copy(&kernel.busybox, for_job.join("busybox"))?;
    fs::write(for_job.join("command.sh"), job.script())?;
    let modules = quoted(&kernel.modules.to_string_lossy());
    fs::write(for_job.join("start.sh"), format!("modules={modules}\n{START}"))?;
    let init = root.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
}
