//! An operator's first hour, by nothing but what the program says: the package is installed, two
//! files are written with mistakes in them, the mistakes are mended as the messages bid, what then
//! does not work is found by the counted drops, the network is broken by hand and heals. `cargo
//! xtask deb --test` runs it; `-- --nocapture` shows the whole conversation.

use adit_testbed::needs::ebpf;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::machine::PATIENCE;
use crate::support::package::{ADIT, LAYERS, dpkg, package};
use crate::support::sites::{Sites, reaches, view};
use crate::support::{Said, wait_until};
use adit_lab::host::Host;
use adit_lab::two_sites::HOST_B;
use adit_linux::netlink::ROUTE_PROTOCOL;
use adit_linux::netns::NetNs;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

/// Typed late in the evening, from the documentation.
const FILE_A: &str = r#"[site]
name     = "a"
underlay = "10.1.1.1/24"
networks = ["172.16.17.1/24"]
devise   = "ipipA"

[[peer]]
name     = "b"
underlay = "10.1.1.2"
networks = ["192.168.199.0/24"]
"#;
/// Two of its mistakes no program can see: whose address it is, and what lies behind B itself.
const FILE_B: &str = r#"[site]
name     = "b"
underlay = "10.1.1.2"
networks = ["192.168.189.0/24"]

[[peer]]
name     = "a"
underlay = "10.1.1.11"
networks = ["172.16.17.0/24", "192.168.189.0/24"]
"#;

/// How soon what was broken works again.
const A_SECOND: Duration = Duration::from_secs(1);

/// Whoever sits at the keyboard.
struct Operator {
    sites: Sites,
}

impl Operator {
    /// Types a command on a gateway, or on no host in particular.
    #[expect(clippy::print_stderr, reason = "the conversation is what the test is for")]
    fn types(&self, host: Option<&Host>, command: &[&str]) -> Said {
        let ns = host.map_or_else(|| NetNs::current().unwrap(), |host| host.ns().clone());
        let said = self.sites.machine.run(&ns, Command::new(command[0]).args(&command[1..]));
        let prompt = host.map_or("", Host::name);
        let typed = command.join(" ").replace("/usr/bin/", "");
        eprintln!("{prompt}# {typed}\n{}{}", said.stdout, said.stderr);
        said
    }

    fn adit(&self, host: &Host, arguments: &[&str]) -> Said {
        self.types(Some(host), &[&[ADIT], arguments].concat())
    }

    fn status(&self, host: &Host, name: &str) -> Value {
        let mut command = Command::new(ADIT);
        self.sites.machine.run(host.ns(), command.args(["status", name, "-j"])).ok().json()["overlays"][0]
            .clone()
    }

    /// How often so many things of each kind were repaired.
    fn repairs(&self) -> u64 {
        let status = self.status(&self.sites.network.gateway_a, "a");
        status["repairs"].as_object().unwrap().values().filter_map(Value::as_u64).sum()
    }

    /// What a gateway has dropped for this reason.
    fn drops(&self, host: &Host, name: &str, reason: &str) -> u64 {
        self.status(host, name)["drops"][reason]["count"].as_u64().unwrap_or(0)
    }

    fn reaches_b(&self) -> bool {
        reaches(&self.sites.network.host_a, HOST_B)
    }

    fn write(&self, file: &str, text: &str) {
        self.sites.machine.with_files(|| fs::write(file, text).unwrap());
    }

    fn change(&self, file: &str, from: &str, to: &str) {
        let text = self.sites.machine.with_files(|| fs::read_to_string(file).unwrap());
        assert!(text.contains(from), "{text}");
        self.write(file, &text.replace(from, to));
    }

    /// Does what `adit check` bids, mistake by mistake, until it finds none; how many it found.
    #[track_caller]
    fn mends(&self, file: &str) -> usize {
        let said = self.types(None, &[ADIT, "check", file]);
        if said.code == Some(0) {
            return 0;
        }
        let said = said.with(1);
        let mut text = self.sites.machine.with_files(|| fs::read_to_string(file).unwrap());
        let mut mended = 0;
        let lines: Vec<&str> = said.stderr.lines().collect();
        // From the last on, so that the places of the others stay true.
        for pair in lines.windows(2).rev() {
            let (Some(mistake), Some(help)) =
                (pair[0].strip_prefix(file), pair[1].trim().strip_prefix("help: "))
            else {
                continue;
            };
            let mut place =
                mistake.trim_start_matches(':').split(':').map(|part| part.trim().parse::<usize>());
            let (line, column) = (place.next().unwrap().unwrap(), place.next().unwrap().unwrap());
            text = follow(&text, (line - 1, column - 1), help);
            mended += 1;
        }
        assert!(mended > 0, "no message says what to do: {said:#?}");
        self.write(file, &text);
        mended + self.mends(file)
    }

    /// Breaks as many objects of gateway A, and waits until it is whole.
    #[track_caller]
    fn breaks(&self, objects: u64, command: &[&str]) {
        let before = self.repairs();
        self.types(Some(&self.sites.network.gateway_a), command).with(0);
        let start = Instant::now();
        while self.repairs() == before || !self.reaches_b() {
            assert!(start.elapsed() < A_SECOND, "{command:?} is not mended after {:?}", start.elapsed());
        }
        assert_eq!(self.repairs(), before + objects, "{command:?}");
    }
}

/// A file after what a message bids to do at a place.
#[track_caller]
fn follow(text: &str, (line, column): (usize, usize), help: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let rest = lines[line][column..].to_owned();
    let quoted = |of: &str, mark: char| of.split(mark).nth(1).map(str::to_owned);
    // What stands there: a string, or a key.
    let found = match quoted(&rest, '"').filter(|_| rest.starts_with('"')) {
        Some(string) => format!("\"{string}\""),
        None => rest.split([' ', '=']).next().unwrap().to_owned(),
    };
    let tail = &rest[found.len()..];
    let mended = if help.starts_with("remove it") {
        let (before, _) = lines[line].split_at(column);
        format!("{}{tail}", before.trim_end().trim_end_matches(','))
    } else {
        let whole = quoted(help, '`');
        let value = quoted(help, '"').map(|value| format!("\"{value}\""));
        match (whole, value) {
            // A whole line, or a key.
            (Some(whole), _) if whole.contains('=') => whole,
            (Some(key), _) => format!("{}{key}{tail}", &lines[line][..column]),
            (None, Some(value)) => format!("{}{value}{tail}", &lines[line][..column]),
            (None, None) => panic!("what does this bid to do? {help}"),
        }
    };
    lines[line] = mended;
    lines.join("\n") + "\n"
}

#[test(root, ebpf, packages)]
fn from_the_package_to_a_network_that_heals() {
    let package = package("ADIT_PACKAGE");
    let operator = Operator { sites: Sites::new() };
    let (machine, network) = (&operator.sites.machine, &operator.sites.network);
    let (a, b) = (&network.gateway_a, &network.gateway_b);
    let before = [view(a), view(b)];
    machine.layer(&LAYERS);
    dpkg(machine, &["--install", package.to_str().unwrap()]);

    // Two files, and what `adit check` says of them is enough to mend them.
    let (file_a, file_b) = ("/etc/adit/a.toml", "/etc/adit/b.toml");
    operator.write(file_a, FILE_A);
    operator.write(file_b, FILE_B);
    assert_eq!(operator.mends(file_a), 3);
    assert_eq!(operator.mends(file_b), 1);

    // What would happen; and it happens.
    let planned = operator.adit(a, &["plan", file_a]).with(2);
    let route = "+ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1";
    assert!(planned.stdout.contains(route), "{planned:?}");
    operator.adit(a, &["up", file_a]).ok();
    operator.adit(b, &["up", file_b]).ok();
    operator.adit(a, &["plan", file_a]).ok();

    // Nobody answers. B says by name what it does not take, and what that means.
    assert!(!operator.reaches_b());
    let said = operator.adit(b, &["drops", "b"]).ok();
    assert!(said.stdout.contains("outer-source-unknown"), "{said:?}");
    operator.change(file_b, "10.1.1.11", "10.1.1.1");
    operator.adit(b, &["apply", file_b, "--confirm", "60"]).ok();
    assert!(!operator.reaches_b());
    assert!(operator.drops(b, "b", "inner-destination-not-ours") > 0);
    operator.adit(b, &["drops", "b"]).ok();
    operator.change(file_b, "192.168.189.0/24", "192.168.199.0/24");
    operator.adit(b, &["apply", file_b, "--confirm", "60"]).ok();
    operator.sites.assert_joined();
    operator.adit(b, &["confirm", "b"]).ok();

    // A file that is broken changes nothing.
    operator.change(file_a, "10.1.1.2", "10.1.1.256");
    operator.adit(a, &["apply", file_a]).with(1);
    operator.sites.assert_joined();
    operator.change(file_a, "10.1.1.256", "10.1.1.2");

    // Broken by hand, each in its way; and nobody else has to do anything.
    operator.breaks(1, &["ip", "route", "delete", "192.168.199.0/24"]);
    operator.breaks(1, &["ip", "link", "set", "ipipA", "mtu", "1400"]);
    let proto = ROUTE_PROTOCOL.to_string();
    // The tunnel's route and the guard behind it.
    operator.breaks(2, &["ip", "route", "flush", "proto", &proto]);
    let said = operator.adit(a, &["status", "a"]).ok();
    assert!(said.stdout.contains("repaired"), "{said:?}");

    // The daemon dies, the network does not.
    let daemon = || machine.holder("a").expect("it runs");
    let killed = daemon();
    kill(killed, Signal::SIGKILL).unwrap();
    operator.sites.assert_joined();
    let asks = || machine.run(a.ns(), Command::new(ADIT).args(["status", "a"]));
    let is_there = || machine.holder("a").is_some_and(|pid| pid != killed) && asks().code == Some(0);
    wait_until(PATIENCE, "it is started again", is_there);
    operator.sites.assert_joined();

    // And away again.
    dpkg(machine, &["--purge", "adit"]);
    assert_eq!([view(a), view(b)], before);
    assert!(!machine.with_files(|| Path::new("/sys/fs/bpf/adit").exists()));
    assert!(!operator.reaches_b());
}
