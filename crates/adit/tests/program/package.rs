//! The Debian package, as an operator meets it: installed, run, upgraded under load, removed,
//! purged. On a machine of the test's own, whose `/usr`, `/etc` and `/var` are layers over those of
//! the real one; so it is the real dpkg with the real list of packages, and nothing of it stays.

use adit_testbed::needs::ebpf;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::booted::Booted;
use crate::support::load::Load;
use crate::support::machine::{Machine, PATIENCE};
use crate::support::package::{ADIT, LAYERS, dpkg, package};
use crate::support::programs::{pinned, pins};
use crate::support::sites::{Sites, view};
use adit_lab::host::Host;
use adit_linux::netns::NetNs;
use adit_linux::process::end;
use nix::sys::signal::Signal;

/// What Debian's own tools write down when packages come and go.
const BOOKS: [&str; 5] =
    ["var/lib/dpkg", "var/log", "var/cache/man", "var/cache/ldconfig", "etc/ld.so.cache"];
/// What an operator finds beside the program.
const FILES: [&str; 13] = [
    "/usr/lib/NetworkManager/conf.d/00-adit.conf",
    "/usr/lib/systemd/network/00-adit.link",
    "/usr/lib/systemd/network/00-adit.network",
    "/usr/lib/systemd/system/adit@.service",
    "/usr/share/adit/adit.schema.json",
    "/usr/share/bash-completion/completions/adit",
    "/usr/share/doc/adit/README.md",
    "/usr/share/doc/adit/copyright",
    "/usr/share/doc/adit/examples/a.toml",
    "/usr/share/doc/adit/examples/b.toml",
    "/usr/share/fish/vendor_completions.d/adit.fish",
    "/usr/share/man/man8/adit.8.gz",
    "/usr/share/zsh/vendor-completions/_adit",
];

fn version(machine: &Machine) -> String {
    let query = ["-W", "-f", "${db:Status-Status} ${Version}", "adit"];
    machine.run(&NetNs::current().unwrap(), Command::new("dpkg-query").args(query)).ok().stdout
}

/// `adit up`, from where the package has put it; the daemon's number.
#[track_caller]
fn up(machine: &Machine, gateway: &Host, file: &str) -> i32 {
    let said = machine.run(gateway.ns(), Command::new(ADIT).args(["up", "-j", file])).ok();
    let pid = i32::try_from(said.json()["pid"].as_i64().unwrap()).unwrap();
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(program, Path::new(ADIT), "the installed program runs");
    pid
}

/// Everything that differs between this machine and the real one: files that are there, and what is
/// gone.
fn traces(machine: &Machine, layer: &Path) -> BTreeSet<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![layer.to_owned()]);
    machine.with_files(|| {
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let path = entry.path().strip_prefix(layer).unwrap().to_owned();
                let is_directory = entry.file_type().unwrap().is_dir();
                if is_directory {
                    left.push(entry.path());
                }
                found.push((path, is_directory));
            }
        }
    });
    // A directory of the real machine, which this thread sees, lies in the layer as soon as
    // something in it changes.
    found.retain(|(path, is_directory)| !is_directory || !Path::new("/").join(path).is_dir());
    let found = found.into_iter().map(|(path, _)| path);
    found.filter(|path| !BOOKS.iter().any(|book| path.starts_with(book))).collect()
}

#[test(root, ebpf, packages)]
fn installed_upgraded_removed() {
    let (first, later) = (package("ADIT_PACKAGE"), package("ADIT_PACKAGE_LATER"));
    let sites = Sites::new();
    let (machine, network) = (&sites.machine, &sites.network);
    let gateways = [&network.gateway_a, &network.gateway_b];
    let before = gateways.map(view);
    let layer = machine.layer(&LAYERS);
    machine.with_files(|| {
        // What other versions have left on the real machine is not this test's.
        for place in ["/var/lib/adit", "/etc/adit"] {
            let _ = fs::remove_dir_all(place);
        }
    });
    let clean = traces(machine, &layer);

    // Installed: everything is there, as it was packed, and the examples work as they are.
    dpkg(machine, &["--install", first.to_str().unwrap()]);
    assert!(version(machine).starts_with("installed "), "{}", version(machine));
    assert_eq!(dpkg(machine, &["--verify", "adit"]).stdout, "");
    machine.with_files(|| {
        let missing: Vec<_> =
            FILES.iter().filter(|file| !fs::metadata(file).is_ok_and(|file| file.len() > 0)).collect();
        assert_eq!(missing, Vec::<&&str>::new());
        for name in ["a.toml", "b.toml"] {
            fs::copy(Path::new("/usr/share/doc/adit/examples").join(name), Path::new("/etc/adit").join(name))
                .unwrap();
        }
    });
    let files = ["/etc/adit/a.toml", "/etc/adit/b.toml"];
    for file in files {
        machine.run(gateways[0].ns(), Command::new(ADIT).args(["check", file])).ok();
    }
    let daemons = [up(machine, gateways[0], files[0]), up(machine, gateways[1], files[1])];
    sites.assert_joined();

    // Upgraded, and then started anew as postinst has systemd do it: nothing is lost.
    let load = Load::start(network, None);
    let programs = ["a", "b"].map(|name| pinned(machine, name));
    let old = version(machine);
    dpkg(machine, &["--install", later.to_str().unwrap()]);
    assert_ne!(version(machine), old);
    for ((daemon, gateway), file) in daemons.into_iter().zip(gateways).zip(files) {
        assert!(fs::read_link(format!("/proc/{daemon}/exe")).is_ok(), "an upgrade ends no daemon");
        end(daemon, PATIENCE).unwrap();
        up(machine, gateway, file);
    }
    for (name, programs) in ["a", "b"].iter().zip(&programs) {
        assert!(
            pinned(machine, name).iter().all(|(place, id)| programs.get(place) != Some(id)),
            "{programs:?}"
        );
    }
    load.finish("an upgrade of the package, and a new start of both daemons").assert_lossless();

    // Removed: both overlays are down, the operator's own files stay.
    dpkg(machine, &["--remove", "adit"]);
    assert_eq!(gateways.map(view), before);
    for name in ["a", "b"] {
        assert_eq!(pins(machine, name), [] as [PathBuf; 0]);
    }
    let mut left = traces(machine, &layer);
    left.retain(|path| !clean.contains(path) && path != Path::new("etc/adit"));
    assert_eq!(left, ["etc/adit/a.toml", "etc/adit/b.toml"].map(PathBuf::from).into(), "and nothing else");
    machine.with_files(|| {
        assert!(!Path::new("/run/adit").exists() && !Path::new("/sys/fs/bpf/adit").exists());
        // State that nobody runs: purging is for that.
        fs::create_dir_all("/var/lib/adit/forgotten").unwrap();
        for file in files {
            fs::remove_file(file).unwrap();
        }
    });

    // Purged: as if it had never been.
    dpkg(machine, &["--purge", "adit"]);
    assert_eq!(traces(machine, &layer), clean);
}

/// The daemon of overlay `a`, once systemd calls it running and it is another than `last`.
#[track_caller]
fn daemon(booted: &Booted, last: Option<&str>) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown =
            booted.run(&["systemctl", "show", "adit@a", "-p", "MainPID,SubState,StatusText"]).ok().stdout;
        let of = |name: &str| {
            shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
        };
        let (pid, state) = (of("MainPID"), of("SubState"));
        if state == "running" && Some(pid) != last {
            assert_eq!(of("StatusText"), "site a on ipipA: ebpf, 1 peer");
            return pid.to_owned();
        }
        assert!(Instant::now() < deadline, "{shown}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test(root, ebpf, nspawn, packages)]
fn a_service_under_a_real_systemd() {
    let packages = [package("ADIT_PACKAGE"), package("ADIT_PACKAGE_LATER")];
    let sites = Sites::new();
    let network = &sites.network;
    let b = sites.run_b();
    let booted = Booted::boot(&sites.machine, &network.gateway_a, &packages.each_ref().map(PathBuf::as_path));
    let install = |package: &Path| {
        let file = Path::new("/usr/local").join(package.file_name().unwrap());
        booted.run(&["dpkg", "--install", file.to_str().unwrap()]).with(0);
    };
    let before = view(&network.gateway_a);

    // Without its file it is refused at once, and not tried again and again; with it, it runs, with
    // the unit's rights.
    install(&packages[0]);
    let refused = booted.run(&["systemctl", "start", "adit@a"]).with(1);
    assert!(refused.stderr.contains("Assertion failed"), "{refused:?}");
    booted.run(&["systemctl", "is-active", "--quiet", "adit@a"]).with(3);
    booted.run(&["cp", "/usr/share/doc/adit/examples/a.toml", "/etc/adit/"]).ok();
    booted.run(&["systemctl", "enable", "--now", "adit@a"]).with(0);
    let first = daemon(&booted, None);
    sites.assert_joined();
    let rights =
        booted.run(&["grep", "-E", "^(CapEff|NoNewPrivs|Seccomp):", &format!("/proc/{first}/status")]).ok();
    assert_eq!(rights.stdout, "CapEff:\t000000c000003000\nNoNewPrivs:\t1\nSeccomp:\t2\n");

    // An upgrade starts the new program, a death is followed by a new start, and nothing is lost.
    let load = Load::start(network, None);
    install(&packages[1]);
    let second = daemon(&booted, Some(&first));
    booted.run(&["systemctl", "kill", "--signal=KILL", "adit@a"]).ok();
    let third = daemon(&booted, Some(&second));
    load.finish("systemd: an upgrade of the package, a death").assert_lossless();

    // A network of IPv6 needs one more family of sockets, and settings of the tunnel interface.
    let add = "sed -i 's|\"192.168.199.0/24\"|&, \"2001:db8:199::/64\"|' /etc/adit/a.toml";
    booted.run(&["sh", "-c", add]).with(0);
    booted.run(&["systemctl", "restart", "adit@a"]).with(0);
    daemon(&booted, Some(&third));
    booted.run(&["ip", "-6", "route", "show", "2001:db8:199::/64", "dev", "ipipA"]).with(0);
    sites.assert_joined();

    // Stopped, the kernel goes on.
    booted.run(&["systemctl", "stop", "adit@a"]).ok();
    booted.run(&["systemctl", "is-active", "--quiet", "adit@a"]).with(3);
    sites.assert_joined();
    booted.run(&["systemctl", "start", "adit@a"]).ok();
    daemon(&booted, None);

    // B's pins are in the same place, and would keep it.
    b.end(Signal::SIGINT);
    booted.run(&["dpkg", "--purge", "adit"]).with(0);
    assert_eq!(view(&network.gateway_a), before);
    assert_eq!(pins(&sites.machine, "a"), [] as [PathBuf; 0]);
    let wants = "/etc/systemd/system/multi-user.target.wants/adit@a.service";
    let ls =
        ["ls", "--directory", "/run/adit", "/var/lib/adit", "/sys/fs/bpf/adit", wants, "/etc/adit/a.toml"];
    assert_eq!(booted.run(&ls).stdout, "/etc/adit/a.toml\n", "the operator's file stays, and nothing else");
    booted.power_off();
}
