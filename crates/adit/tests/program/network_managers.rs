//! Beside udev and systemd-networkd, with a configuration that takes every Ethernet interface: the
//! files that the package installs keep it away from both ends of the tunnel's veth pair.

use adit_testbed::needs::ebpf;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::ADIT;
use crate::support::booted::Booted;
use crate::support::machine::{PATIENCE, Running};
use crate::support::sites::Sites;
use crate::support::wait_until;
use adit_lab::host::Host;
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// What the package installs for systemd.
const SHIPPED: [&str; 2] = ["00-adit.network", "00-adit.link"];
/// Both ends of the pair.
const ENDS: [&str; 2] = ["ipipA", "ipipA-h"];
/// Files of an operator for every interface, which are in the way of nothing but ours, and one that
/// keeps the test's own network.
const OPERATORS: [(&str, &str); 3] = [
    ("05-own.network", "[Match]\nName=dummyA underlayA\n[Link]\nUnmanaged=yes\n"),
    ("10-every.network", "[Match]\nType=ether\n[Network]\nDHCP=yes\n"),
    ("10-every.link", "[Match]\nType=ether\n[Link]\nMACAddressPolicy=random\nMTUBytes=1300\n"),
];

/// Gateway A, booted, with Adit, the files of the package and those of the operator.
struct Gateway<'a> {
    sites: &'a Sites,
    booted: Booted,
}

impl<'a> Gateway<'a> {
    fn boot(sites: &'a Sites) -> Self {
        let folder = TempDir::new().unwrap();
        let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/network");
        let mut files: Vec<PathBuf> = vec![ADIT.into(), sites.file("a.toml").into()];
        files.extend(SHIPPED.map(|name| packaging.join(name)));
        for (name, text) in OPERATORS {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            files.push(file);
        }
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let gateway =
            Self { sites, booted: Booted::boot_with_udev(&sites.machine, &sites.network.gateway_a, &files) };
        for (name, _) in OPERATORS {
            gateway
                .run(&format!("mkdir -p /etc/systemd/network && cp /usr/local/{name} /etc/systemd/network"));
        }
        for name in SHIPPED {
            gateway.run(&format!("cp /usr/local/{name} /usr/lib/systemd/network"));
        }
        gateway.run("systemctl restart systemd-udevd systemd-networkd");
        gateway
    }

    fn host(&self) -> &'a Host {
        &self.sites.network.gateway_a
    }

    /// Runs a line of the shell, and returns what it prints.
    #[track_caller]
    fn run(&self, line: &str) -> String {
        self.booted.run(&["sh", "-c", line]).with(0).stdout
    }

    /// Everything of an end of the pair that a manager of networks may change.
    #[track_caller]
    fn end(&self, name: &str) -> String {
        let lines = ["ip -details link show", "ip address show", "ip route show table all"];
        let shown = lines.map(|line| self.run(&format!("{line} dev {name}")));
        let sysctls = format!("sysctl -a --pattern '^net[.]ipv[46][.]conf[.]{name}[.]' 2>&1");
        format!("{}{}", shown.concat(), self.run(&sysctls))
    }

    /// What systemd-networkd has decided about an interface, once it has.
    #[track_caller]
    fn state(&self, name: &str) -> String {
        let file = format!("/run/systemd/netif/links/{}", self.host().index(name).unwrap());
        let mut state = String::new();
        wait_until(PATIENCE, &format!("networkd knows {name}"), || {
            let text = self.booted.run(&["cat", &file]).stdout;
            state = text.lines().find_map(|line| line.strip_prefix("ADMIN_STATE=")).unwrap_or("").to_owned();
            !["", "pending", "initialized"].contains(&state.as_str())
        });
        state
    }

    /// A listener for DHCP and IPv6 on an interface.
    fn listen(&self, name: &str) -> Running {
        let mut command = std::process::Command::new("tcpdump");
        command.args(["-i", name, "-n", "-l", "udp port 67 or udp port 68 or ip6"]);
        let mut listener = self.sites.machine.start_command(self.host().ns(), command);
        listener.wait_for("listening on");
        listener
    }

    /// Waits until udev and networkd change an Ethernet interface that nothing protects, and so
    /// have seen what was made before it.
    #[track_caller]
    fn see_a_stranger_taken(&self, name: &str) {
        self.run(&format!("ip link add {name} type veth peer name {name}-p && ip link set {name} up"));
        let mut listener = self.listen(name);
        while !listener.wait_for("").contains("BOOTP/DHCP, Request") {}
        assert_eq!(self.state(name), "configuring");
        assert!(self.run(&format!("ip link show dev {name}")).contains("mtu 1300"));
    }
}

/// What a listener has seen.
fn seen(listener: Running) -> String {
    listener.signal(Signal::SIGINT);
    let (_, said) = listener.wait();
    said.lines().filter(|line| line.contains(" IP")).collect::<Vec<_>>().join("\n")
}

#[test(root, ebpf, tcpdump, nspawn, udev)]
fn files_for_every_interface_spare_the_tunnels() {
    let sites = Sites::new();
    let _b = sites.run_b();
    let gateway = Gateway::boot(&sites);

    // Made beside them: left alone, before and after a new start of each.
    gateway.run("/usr/local/adit up /usr/local/a.toml");
    let before = ENDS.map(|end| gateway.end(end));
    let listeners = ENDS.map(|end| gateway.listen(end));
    gateway.see_a_stranger_taken("other");
    assert_eq!(ENDS.map(|end| gateway.state(end)), ["unmanaged"; 2]);
    gateway.run("systemctl restart systemd-udevd systemd-networkd");
    for end in ENDS {
        gateway.run(&format!("udevadm trigger --action=add --settle /sys/class/net/{end}"));
    }
    gateway.see_a_stranger_taken("another");
    assert_eq!(ENDS.map(|end| gateway.state(end)), ["unmanaged"; 2]);
    assert_eq!(listeners.map(seen), ["", ""]);
    assert_eq!(ENDS.map(|end| gateway.end(end)), before);
    sites.assert_joined();

    // Without the package's files they are taken, or this test would see nothing.
    gateway.run("/usr/local/adit down a");
    for name in SHIPPED {
        gateway.run(&format!("rm /usr/lib/systemd/network/{name}"));
    }
    gateway.run("systemctl restart systemd-udevd systemd-networkd");
    gateway.run("/usr/local/adit up /usr/local/a.toml");
    let state = ENDS.map(|end| gateway.state(end));
    assert!(state.iter().all(|state| state != "unmanaged"), "{state:?}");
    // The daemon repairs what they change before anybody can look.
    gateway.run("read pid started < /run/adit/a.lock; kill -STOP $pid");
    gateway.run("systemctl restart systemd-udevd systemd-networkd");
    for end in ENDS {
        gateway.run(&format!("udevadm trigger --action=add --settle /sys/class/net/{end}"));
    }
    for end in ENDS {
        wait_until(PATIENCE, &format!("udev or networkd change {end}"), || {
            let shown = gateway.end(end);
            shown.contains("mtu 1300") || shown.contains("inet6 fe80:")
        });
    }
    gateway.booted.power_off();
}
