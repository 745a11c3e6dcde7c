//! A system that has booted: systemd is the first process of a container, whose files are a layer
//! over those of the real machine, and whose network is a host's of the lab.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use adit_lab::host::Host;
use adit_linux::netns::NetNs;
use adit_linux::process::end;
use nix::mount::{MsFlags, mount};

use super::Said;
use super::machine::{Machine, Running};
use super::manager::Manager;

/// Its root, on the machine that it is a container of.
const ROOT: &str = "/run/container/root";
/// Where the trees of control groups are mounted that systemd has a part of: since version 2, and
/// before.
const GROUPS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];

/// See the module.
pub(crate) struct Booted {
    machine: Machine,
    network: NetNs,
    /// Its first process, by its number outside, as soon as there is one.
    first: Option<i32>,
    container: Option<Running>,
    groups: Vec<PathBuf>,
}

impl Booted {
    /// Boots until systemd has started what it needs itself. The `files` are in its `/usr/local`.
    #[track_caller]
    pub(crate) fn boot(machine: &Machine, host: &Host, files: &[&Path]) -> Self {
        machine.name(host.ns(), "container");
        let network = ["--network-namespace-path=/run/netns/container"];
        Self::start(machine, host, files, &NetNs::current().unwrap(), &network, &[])
    }

    /// The same, with udev. That runs only where `/sys` is writable, and finds interfaces there: so
    /// systemd-nspawn itself is in their network already. It does not look for other devices, which
    /// are the real machine's.
    #[track_caller]
    pub(crate) fn boot_with_udev(machine: &Machine, host: &Host, files: &[&Path]) -> Self {
        let writable = [("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "1")];
        Self::start(machine, host, files, host.ns(), &[], &writable)
    }

    #[track_caller]
    fn start(
        machine: &Machine,
        host: &Host,
        files: &[&Path],
        ns: &NetNs,
        options: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        machine.with_files(|| root(files));
        let groups = own_groups();
        let (enter, manager) = (enter(&groups), Manager::new());
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{enter}exec systemd-nspawn \"$@\""), "sh", "--quiet", "--boot"]);
        command.args(["--directory", ROOT, "--capability=all"]).args(options);
        command.args([
            "--bind=/dev/net/tun",
            "--bind=/sys/fs/bpf",
            "--system-call-filter=bpf perf_event_open",
        ]);
        // There may be no other systemd to tell of it, and no terminal.
        command.args(["--register=no", "--keep-unit", "--console=pipe", "--notify-ready=yes"]);
        // None of what else is installed on the real machine.
        command.arg("systemd.unit=basic.target");
        // It would replay the events of all devices, which are the real machine's.
        command.arg("systemd.mask=systemd-udev-trigger.service");
        command.env("NOTIFY_SOCKET", manager.address()).envs(environment.iter().copied());
        // It boots the same way as the machine's groups are mounted.
        command
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", if Path::new(GROUPS[2]).is_dir() { "0" } else { "1" });
        let container = Some(machine.start_command(ns, command));
        let mut booted =
            Self { machine: machine.clone(), network: host.ns().clone(), first: None, container, groups };
        let mut said = String::new();
        while !said.lines().any(|line| line == "READY=1") {
            said = manager.hears();
            let pid = said.lines().find_map(|line| line.strip_prefix("X_NSPAWN_LEADER_PID="));
            booted.first = pid.map(|pid| pid.parse().unwrap()).or(booted.first);
        }
        booted
    }

    /// Runs a command in it, to its end.
    pub(crate) fn run(&self, command: &[&str]) -> Said {
        let first = self.first.expect("it has booted").to_string();
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &first, "--all", "--"]).args(command);
        self.machine.run(&self.network, &mut enter)
    }

    /// Powers it off.
    #[track_caller]
    pub(crate) fn power_off(mut self) {
        self.run(&["systemctl", "poweroff"]);
        let (status, said) = self.container.take().expect("it runs").wait();
        assert!(status.success(), "{status}: {said}");
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            // With the first process all others of the container have ended, and left its groups.
            // It outlives systemd-nspawn.
            let _ = self.first.map(|first| end(first, Duration::ZERO));
            drop(container);
        }
        for group in &self.groups {
            remove(group);
        }
    }
}

/// Makes its root.
fn root(files: &[&Path]) {
    let base = Path::new("/run/container");
    fs::create_dir(base).unwrap();
    // Layers may not be on a layer, which the root of a container is.
    mount(Some("tmpfs"), base, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).unwrap();
    for name in ["upper", "work", "root"] {
        fs::create_dir(base.join(name)).unwrap();
    }
    let options = "lowerdir=/,upperdir=/run/container/upper,workdir=/run/container/work";
    mount(Some("overlay"), ROOT, Some("overlay"), MsFlags::empty(), Some(options)).unwrap();
    // A machine of its own, not the real one once more.
    fs::write(Path::new(ROOT).join("etc/machine-id"), "").unwrap();
    for place in ["etc/adit", "var/lib/adit"] {
        let _ = fs::remove_dir_all(Path::new(ROOT).join(place));
    }
    for file in files {
        fs::copy(file, Path::new(ROOT).join("usr/local").join(file.file_name().unwrap())).unwrap();
    }
}

/// A control group in each tree, so that nothing of the container's is left in anybody else's.
fn own_groups() -> Vec<PathBuf> {
    let trees = GROUPS.iter().map(Path::new).filter(|tree| tree.join("cgroup.procs").is_file());
    let groups: Vec<PathBuf> =
        trees.map(|tree| tree.join(format!("adit-test-{}", std::process::id()))).collect();
    for group in &groups {
        fs::create_dir(group).unwrap();
    }
    groups
}

/// Commands for a shell to go there.
fn enter(groups: &[PathBuf]) -> String {
    groups.iter().map(|group| format!("echo $$ >{}/cgroup.procs; ", group.display())).collect()
}

/// Removes a control group and those in it, which must be empty of processes.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
