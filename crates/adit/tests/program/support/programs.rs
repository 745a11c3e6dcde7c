//! The programs that an overlay has in the kernel, as the kernel and its BPF file system show them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_linux::netns::NetNs;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};

use super::machine::Machine;

/// The programs that are pinned for an overlay, and so attached: their ids, by the pin's name. By
/// its link where the kernel has such links, elsewhere by itself.
pub(crate) fn pinned(machine: &Machine, overlay: &str) -> BTreeMap<String, u32> {
    machine.with_files(|| {
        let pins = files_below(&Path::new("/sys/fs/bpf/adit").join(overlay));
        let programs = pins.into_iter().filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            let is_program = name.starts_with("encap-") || name.starts_with("decap-");
            is_program.then(|| (name, id_of(&path)))
        });
        programs.collect()
    })
}

fn id_of(path: &Path) -> u32 {
    match PinnedLink::from_pin(path).map(FdLink::from).and_then(|link| link.info()) {
        Ok(link) => link.program_id(),
        Err(_) => ProgramInfo::from_pin(path).unwrap().id(),
    }
}

/// Everything that is pinned for an overlay.
pub(crate) fn pins(machine: &Machine, overlay: &str) -> Vec<PathBuf> {
    machine.with_files(|| files_below(&Path::new("/sys/fs/bpf/adit").join(overlay)))
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                left.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}

/// What is attached to an interface, by whomever: the ids of programs behind TCX links, and the
/// lines that tc(8) has for filters.
pub(crate) fn attached(machine: &Machine, ns: &NetNs, device: &str) -> (Vec<u32>, String) {
    let links = machine.within(ns, || {
        let both = [TcAttachType::Ingress, TcAttachType::Egress];
        // A kernel without TCX has none.
        let found =
            both.map(|kind| SchedClassifier::query_tcx(device, kind).map_or(Vec::new(), |(_, found)| found));
        found.iter().flatten().map(ProgramInfo::id).collect()
    });
    let filters = ["ingress", "egress"].map(|hook| {
        let said = machine.run(ns, Command::new("tc").args(["filter", "show", "dev", device, hook]));
        said.stdout
    });
    (links, filters.concat())
}
