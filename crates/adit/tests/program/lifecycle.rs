//! An overlay's life: the program run on both gateways of the article's network, and ended in
//! every way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use crate::support::machine::{PROGRAM, Running};
use crate::support::sites::{Sites, assert_reaches, example};
use crate::support::{keys, wait_until};
use adit_lab::capture::{Frame, Tap};
use adit_lab::checks::reaches;
use adit_lab::host::Host;
use adit_lab::two_sites::{INSIDE_A, INSIDE_B, ROUTER, UNDERLAY_A};
use adit_linux::netlink::{ROUTE_PROTOCOL, STATIC_PROTOCOL};
use ipnet::Ipv4Net;
use nix::sys::signal::Signal;

/// What has to do with B's network among these frames, inside a tunnel or not.
fn towards_b(frames: &[Frame]) -> Vec<&[u8]> {
    let network: Ipv4Net = "192.168.199.0/24".parse().unwrap();
    let private = |datagram: &&[u8]| {
        let destination: [u8; 4] = datagram[16..20].try_into().unwrap();
        let is_of_a = datagram[12..16] == UNDERLAY_A.octets();
        // B may be probing the path.
        (datagram[9] == 4 && is_of_a) || network.contains(&std::net::Ipv4Addr::from(destination))
    };
    frames.iter().filter_map(Frame::ipv4).filter(private).collect()
}

/// What this kernel says, as one with TCX would.
fn on_any_kernel(said: &str) -> String {
    said.replace("attached by clsact", "attached by TCX")
}

/// What the underlay sees while gateway A and the host behind it try, in vain, to reach B.
fn leaks(sites: &Sites) -> usize {
    let tap = Tap::start(&sites.network.router, "toA").unwrap();
    for from in [&sites.network.gateway_a, &sites.network.host_a] {
        assert!(!reaches(from, INSIDE_B).unwrap(), "{}", from.name());
    }
    towards_b(&tap.finish()).len()
}

#[test(root)]
fn two_files_make_the_articles_network() {
    let sites = Sites::new();
    let (before_a, network) = (sites.view_a(), &sites.network);
    let mut a = sites.machine.start(network.gateway_a.ns(), &["run", &example("a.toml")]);
    insta::assert_snapshot!(
        on_any_kernel(&a.wait_for("ready")),
        @"ready: site a on ipipA (ebpf: auto: this kernel takes the programs, attached by TCX), mtu 1480"
    );
    let b = sites.run_b();
    // Both are ready as of now, and nothing was sent yet.
    assert_reaches(&network.gateway_b, INSIDE_A);
    sites.assert_joined();

    let link = network.gateway_a.netlink().unwrap().link("ipipA").unwrap().unwrap();
    assert_eq!((link.mtu, link.alias.as_deref(), link.up), (1480, Some("adit:a"), true));
    let routes = sites.routes_of_a();
    assert_eq!(routes.len(), 1, "{routes:?}");
    assert_eq!(
        (routes[0].device, routes[0].protocol, routes[0].preferred_source),
        (Some(link.index), ROUTE_PROTOCOL, Some(INSIDE_A.into()))
    );

    a.end(Signal::SIGINT);
    b.end(Signal::SIGINT);
    assert_eq!(sites.view_a(), before_a);
    assert_eq!(sites.machine.files(), [] as [std::path::PathBuf; 0], "nothing stays");
}

#[test(root)]
fn terminated_it_leaves_a_closed_door() {
    let sites = Sites::with_dataplane("userspace");
    let gateway = &sites.network.gateway_a;
    // Another way out, as every gateway has one.
    gateway.route(Ipv4Net::default(), Some(ROUTER), Some("underlayA")).unwrap();
    assert_ne!(leaks(&sites), 0, "without Adit it leaves in the open: the next count means something");

    let (a, b) = (sites.run_a(&[]), sites.run_b());
    sites.assert_joined();
    let up = sites.view_a();
    a.end(Signal::SIGTERM);
    assert_eq!(sites.view_a(), up, "device and routes stay");
    assert_eq!(leaks(&sites), 0);

    let a = sites.run_a(&[]);
    assert_eq!(sites.view_a(), up, "the same device, taken over");
    sites.assert_joined();
    a.end(Signal::SIGINT);
    assert_eq!(sites.routes_of_a(), []);
    drop(b);
}

#[test(root)]
fn killed_it_leaves_a_closed_door_and_can_start_again() {
    let sites = Sites::with_dataplane("userspace");
    sites.network.gateway_a.route(Ipv4Net::default(), Some(ROUTER), Some("underlayA")).unwrap();
    let before = sites.view_a();
    let (a, _b) = (sites.run_a(&[]), sites.run_b());
    sites.assert_joined();
    let up = sites.view_a();
    a.kill();
    assert_eq!(sites.view_a(), up);
    assert_eq!(leaks(&sites), 0);
    let drops = sites.machine.adit(sites.network.gateway_a.ns(), &["drops", "a"]).with(1);
    insta::assert_snapshot!(
        drops.stderr,
        @"adit: overlay `a` is not running (nothing answers on /run/adit/a.sock); `adit up FILE` starts it"
    );

    let a = sites.run_a(&[]);
    assert_eq!(sites.view_a(), up);
    sites.assert_joined();
    a.end(Signal::SIGINT);
    assert_eq!(sites.view_a(), before);
}

#[test(root)]
fn what_stays_can_be_chosen() {
    let sites = Sites::new();
    let before = sites.view_a();
    let a = sites.run_a(&["--on-exit", "remove"]);
    let up = sites.view_a();
    a.end(Signal::SIGTERM);
    assert_eq!(sites.view_a(), before);
    assert_eq!(sites.machine.files(), [] as [std::path::PathBuf; 0]);

    sites.run_a(&["--on-exit", "keep"]).end(Signal::SIGINT);
    let names = |view: crate::support::sites::View| view.0.len();
    assert_eq!(names(sites.view_a()), names(up));
    assert_eq!(sites.routes_of_a().len(), 1);
}

#[test(root)]
fn down_cleans_up_after_a_kill() {
    let sites = Sites::new();
    let file = example("a.toml");
    let (here, elsewhere) = (sites.network.gateway_a.ns(), sites.network.gateway_b.ns());
    sites.machine.name(here, "netA");
    let before = sites.view_a();
    // From where it is taken down, and how.
    let ways = [
        (here, vec!["down", "a"]),
        (here, vec!["down", &file]),
        (elsewhere, vec!["down", "a", "--netns", "netA"]),
        (elsewhere, vec!["--netns", "netA", "down", &file]),
        // The daemon noted where it was.
        (elsewhere, vec!["down", "a"]),
        (elsewhere, vec!["down", &file]),
    ];
    for (number, (from, way)) in ways.iter().enumerate() {
        let start = match number % 2 {
            0 => vec!["run", &file],
            _ => vec!["run", &file, "--netns", "netA"],
        };
        let mut running = sites.machine.start(if number % 2 == 0 { here } else { elsewhere }, &start);
        running.wait_for("ready");
        running.kill();
        assert_ne!(sites.view_a(), before, "{way:?} has something to do");
        let said = sites.machine.adit(from, way).ok();
        assert_eq!(said.stdout, "overlay `a` is down\n", "{way:?}");
        assert_eq!(sites.view_a(), before, "{way:?}");
        assert_eq!(sites.machine.files(), [] as [std::path::PathBuf; 0], "{way:?}");
    }
    let said = sites.machine.adit(here, &["down", &file]).ok();
    insta::assert_snapshot!(said.stdout, @"overlay `a` was not up: nothing to remove");
    let said = sites.machine.adit(here, &["down", &file, "--json"]).ok();
    insta::assert_snapshot!(said.stdout, @r#"{"ended":null,"name":"a","ok":true,"removed":[],"schema":1}"#);
}

#[test(root)]
fn down_of_a_name_that_no_overlay_has_is_an_error() {
    let sites = Sites::with_dataplane("userspace");
    let gateway = sites.network.gateway_a.ns();
    let said = |name: &str| sites.machine.adit(gateway, &["down", name]).with(1).stderr;
    assert_eq!(said("b"), "adit: there is no overlay `b` on this machine (there is none)\n");
    let a = sites.run_a(&[]);
    assert_eq!(said("b"), "adit: there is no overlay `b` on this machine (overlays: a)\n");
    let of_device = "adit: `ipipA` is the tunnel interface of overlay `a`; give the name `a`\n";
    assert_eq!(said("ipipA"), of_device);
    let files = sites.machine.files();
    assert!(files.iter().all(|file| !file.to_string_lossy().contains("/b.")), "{files:?}");
    a.end(Signal::SIGINT);
}

#[test(root)]
fn down_ends_a_daemon() {
    let sites = Sites::new();
    let (gateway, before) = (sites.network.gateway_a.ns(), sites.view_a());
    for options in [&[][..], &["--on-exit", "keep"], &["--on-exit", "remove"]] {
        let a = sites.run_a(options);
        let pid = a.pid();
        let said = sites.machine.adit(gateway, &["down", "a", "-j"]).ok().json();
        assert_eq!((&said["ended"], &said["ok"]), (&pid.into(), &true.into()), "{options:?}: {said}");
        let (status, said) = a.wait();
        assert!(status.success(), "{status}: {said}");
        assert_eq!(sites.view_a(), before, "{options:?}");
        assert_eq!(sites.machine.files(), [] as [std::path::PathBuf; 0], "{options:?}");
    }
}

/// Here nothing names the daemon's namespace: only the daemon itself leads there.
#[test(root)]
fn down_reaches_a_daemon_in_a_namespace_without_a_name() {
    let sites = Sites::new();
    let before = sites.view_a();
    let a = sites.run_a(&[]);
    let said = sites.machine.adit(sites.network.gateway_b.ns(), &["down", "a"]).ok();
    assert_eq!(said.stdout, "overlay `a` is down\n");
    let (status, said) = a.wait();
    assert!(status.success(), "{status}: {said}");
    assert_eq!(sites.view_a(), before);
}

#[test(root)]
fn of_one_name_there_is_one() {
    let sites = Sites::new();
    let (a, _b) = (sites.run_a(&[]), sites.run_b());
    sites.assert_joined();
    let up = (sites.view_a(), sites.machine.files());
    // From anywhere: the name is the machine's.
    let elsewhere = ", in another network namespace";
    for (from, place) in [(&sites.network.gateway_a, ""), (&sites.network.gateway_b, elsewhere)] {
        let expected = format!(
            "adit: overlay `a` is already running (process {}{place}); `adit apply` changes it, `adit down a` ends it\n",
            a.pid()
        );
        let said = sites.machine.adit(from.ns(), &["run", &example("a.toml")]).with(1);
        assert_eq!(said.stderr, expected);
        let said = sites.machine.adit(from.ns(), &["up", &example("a.toml")]).with(1);
        assert_eq!(said.stderr, expected);
    }
    let after: Vec<_> = sites.machine.files().into_iter().filter(|file| !file.ends_with("a.log")).collect();
    assert_eq!((sites.view_a(), after), up);
    sites.assert_joined();
    sites.machine.adit(sites.network.gateway_a.ns(), &["status", "a"]).ok();
    a.end(Signal::SIGINT);
}

#[test(root)]
fn up_status_down() {
    let sites = Sites::new();
    let (machine, gateway_a, gateway_b) =
        (&sites.machine, sites.network.gateway_a.ns(), sites.network.gateway_b.ns());
    let before = sites.view_a();
    let none = machine.adit(gateway_a, &["status"]).with(1);
    insta::assert_snapshot!(none.stderr, @"adit: no overlay is running; `adit up FILE` starts one");

    let up = machine.adit(gateway_a, &["up", &example("a.toml"), "-j"]).ok().json();
    assert_eq!((&up["schema"], &up["ok"], &up["name"]), (&1.into(), &true.into(), &"a".into()), "{up}");
    let pid = up["pid"].as_u64().unwrap();
    let up = machine.adit(gateway_b, &["up", &example("b.toml")]).ok();
    assert!(up.stdout.starts_with("overlay `b` is up (process "), "{up:?}");

    let fresh = machine.adit(gateway_a, &["status", "a"]).ok();
    insta::assert_snapshot!(on_any_kernel(&fresh.stdout), @r"
    site a  underlay 10.1.1.1  device ipipA  mtu 1480
      data plane ebpf (auto: this kernel takes the programs, attached by TCX); plaintext: nothing is encrypted
      peer b  idle  10.1.1.2  192.168.199.0/24  path mtu 1500  tx 0 packets 0 B  rx 0 packets 0 B  never heard
    ");
    sites.assert_joined();
    let used = machine.adit(gateway_a, &["status", "a"]).ok();
    let heard = used.stdout.find("heard ").unwrap();
    insta::assert_snapshot!(on_any_kernel(&used.stdout[..heard]), @r"
    site a  underlay 10.1.1.1  device ipipA  mtu 1480
      data plane ebpf (auto: this kernel takes the programs, attached by TCX); plaintext: nothing is encrypted
      peer b  up  10.1.1.2  192.168.199.0/24  path mtu 1500  1 hop  tx 2 packets 168 B  rx 2 packets 168 B
    ");
    let both = machine.adit(gateway_a, &["status"]).ok();
    assert!(both.stdout.contains("site a  ") && both.stdout.contains("site b  "), "{both:?}");

    let mode = machine.with_files(|| fs::metadata("/run/adit/a.sock").unwrap().permissions().mode());
    assert_eq!(mode & 0o777, 0o600);

    // A file says the same as a name.
    assert_eq!(machine.adit(gateway_b, &["down", &example("b.toml")]).ok().stdout, "overlay `b` is down\n");
    assert_eq!(machine.adit(gateway_a, &["down", "a"]).ok().stdout, "overlay `a` is down\n");
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap_or(true) || is_zombie(pid), "the daemon has ended");
    assert_eq!(sites.view_a(), before);
    assert_eq!(machine.files(), [] as [std::path::PathBuf; 0]);
}

/// Where nobody collects orphans, an ended process stays in the table.
fn is_zombie(pid: u64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test(root)]
fn status_in_json_is_as_the_contract_has_it() {
    let sites = Sites::new();
    let (_a, _b) = (sites.run_a(&[]), sites.run_b());
    let gateway_a = sites.network.gateway_a.ns();
    let listing = |arguments: &[&str]| sites.machine.adit(gateway_a, arguments).ok().json();
    let status = |arguments: &[&str]| listing(arguments)["overlays"][0].clone();
    let all = listing(&["status", "-j"]);
    assert_eq!(keys(&all), ["overlays", "schema", "unreadable"]);
    assert_eq!((&all["schema"], &all["unreadable"]), (&2.into(), &serde_json::json!([])));
    assert_eq!(keys(&listing(&["status", "a", "-j"])), keys(&all), "one shape, with a name or without");
    let fresh = status(&["status", "a", "-j"]);
    assert_eq!(fresh["peers"][0]["last_rx_seconds"], serde_json::Value::Null);
    assert_eq!(fresh["peers"][0]["state"], "idle");
    sites.assert_joined();
    // Nobody behind A lives there: A's tunnel takes it, and B's refuses it.
    let used = status(&["--json", "status", "a"]);
    assert_eq!(
        keys(&used),
        [
            "daemon", "drops", "ecn", "file", "icmp", "peers", "pending", "probes", "repairs", "schema",
            "site", "warnings"
        ]
    );
    assert_eq!((&used["schema"], &used["daemon"]), (&2.into(), &"running".into()));
    let beside = [
        "carried_by",
        "limits",
        "passed_by",
        "relay",
        "underlay_interface",
        "underlay_missing",
        "underlay_state",
    ];
    let contract: Vec<_> = keys(&used["site"]).into_iter().filter(|key| !beside.contains(key)).collect();
    assert_eq!(contract, ["dataplane", "dataplane_reason", "device", "mtu", "name", "underlay", "underlays"]);
    for (key, value) in [("name", "a"), ("underlay", "10.1.1.1"), ("device", "ipipA"), ("dataplane", "ebpf")]
    {
        assert_eq!(used["site"][key], value);
    }
    assert!(used["site"]["dataplane_reason"].is_string());
    assert_eq!(used["site"]["mtu"], 1480);
    assert_eq!(used["peers"].as_array().unwrap().len(), 1);
    let peer = &used["peers"][0];
    assert_eq!(
        keys(peer),
        [
            "last_rx_seconds",
            "name",
            "networks",
            "path_mtu",
            "rx",
            "soft_state",
            "state",
            "tx",
            "underlay",
            "underlay_source",
            "underlays",
            "xfrm_policy"
        ]
    );
    assert_eq!(
        (&peer["name"], &peer["underlay"], &peer["state"]),
        (&"b".into(), &"10.1.1.2".into(), &"up".into())
    );
    assert_eq!(peer["networks"], serde_json::json!(["192.168.199.0/24"]));
    assert_eq!(peer["underlays"], serde_json::json!(["10.1.1.2"]));
    assert_eq!(used["site"]["underlays"], serde_json::json!(["10.1.1.1"]));
    assert_eq!(peer["path_mtu"], 1500);
    for direction in ["tx", "rx"] {
        assert_eq!(peer[direction], serde_json::json!({ "packets": 2, "bytes": 168 }), "{direction}");
    }
    assert!(peer["last_rx_seconds"].as_f64().is_some_and(|seconds| (0.0..60.0).contains(&seconds)), "{peer}");
    assert_eq!(used["drops"], serde_json::json!({}));
    let soft = &peer["soft_state"];
    assert_eq!(
        (&soft["path_mtu_from"], &soft["unreachable"]),
        (&"underlay".into(), &serde_json::Value::Null)
    );
    // The router between the gateways.
    assert_eq!((&soft["ttl_seen"], &soft["hops"], &soft["ttl_needed"]), (&63.into(), &1.into(), &2.into()));

    // A source that is not behind A, through A's device: dropped there, and counted.
    let stranger: Ipv4Net = "198.51.100.1/32".parse().unwrap();
    let gateway = &sites.network.gateway_a;
    gateway.address("lo", stranger).unwrap();
    let mut route = sites.routes_of_a().remove(0);
    route.preferred_source = Some(stranger.addr().into());
    gateway.netlink().unwrap().replace_route(&route).unwrap();
    assert!(!reaches(gateway, INSIDE_B).unwrap());
    // While the route is repaired, the status is the one from before.
    let drops = || status(&["status", "a", "-j"])["drops"].clone();
    wait_until(Duration::from_secs(10), "the drop is counted", || drops() != serde_json::json!({}));
    let drops = drops();
    let dropped: Vec<_> = drops.as_object().unwrap().values().collect();
    assert_eq!((dropped.len(), &dropped[0]["count"]), (1, &1.into()), "{drops}");
    let last = &dropped[0]["last"];
    assert_eq!((&last["source"], &last["peer"]), (&"198.51.100.1".into(), &"b".into()), "{drops}");
    assert!(last["seconds"].as_f64().is_some_and(|seconds| seconds < 60.0), "{drops}");
}

/// Puts something in the way of `a.toml` (or something wrong into it), and expects `run` and `up`
/// to say so in the same words, and to change nothing. Returns the words.
fn refusal(hinder: impl FnOnce(&Host), change: impl FnOnce(String) -> String) -> String {
    let sites = Sites::new();
    let gateway = &sites.network.gateway_a;
    hinder(gateway);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("changed.toml");
    fs::write(&file, change(fs::read_to_string(example("a.toml")).unwrap())).unwrap();
    let file = file.to_str().unwrap();

    let before = sites.view_a();
    let run = sites.machine.adit(gateway.ns(), &["run", file]).with(1);
    assert_eq!(sites.view_a(), before, "{run:?}");
    assert_eq!(sites.machine.files(), [] as [std::path::PathBuf; 0], "{run:?}");
    let up = sites.machine.adit(gateway.ns(), &["up", file]).with(1);
    assert_eq!(up.stderr, run.stderr, "in the background it fails in the same words");
    assert_eq!(sites.view_a(), before, "{up:?}");
    assert_eq!(sites.machine.files(), [] as [std::path::PathBuf; 0], "{up:?}");
    let json = sites.machine.adit(gateway.ns(), &["up", file, "-j"]).with(1).json();
    assert_eq!(
        json,
        serde_json::json!({ "schema": 1, "ok": false, "error": run.stderr.trim_start_matches("adit: ").trim_end() })
    );
    // What is not ours stays, whatever is taken down.
    sites.machine.adit(gateway.ns(), &["down", &example("a.toml")]).ok();
    assert_eq!(sites.view_a(), before);
    run.stderr
}

#[test(root)]
fn a_foreign_device_is_left_alone() {
    let veth = |gateway: &Host| {
        gateway.netlink().unwrap().add_veth("ipipA", "other", gateway.ns()).unwrap();
    };
    insta::assert_snapshot!(refusal(veth, |file| file));
    let of_another_site = |gateway: &Host| {
        let mut netlink = gateway.netlink().unwrap();
        let index = netlink.add_veth("ipipA", "other", gateway.ns()).unwrap();
        netlink.set_alias(index, "adit:another").unwrap();
    };
    insta::assert_snapshot!(refusal(of_another_site, |file| file));
}

#[test(root)]
fn a_foreign_route_is_left_alone() {
    let route = |gateway: &Host| {
        let route = adit_linux::netlink::Route {
            destination: "192.168.199.0/24".parse().unwrap(),
            device: Some(gateway.index("underlayA").unwrap()),
            gateway: Some(ROUTER.into()),
            // An administrator's.
            protocol: STATIC_PROTOCOL,
            ..Default::default()
        };
        gateway.netlink().unwrap().add_route(&route).unwrap();
    };
    insta::assert_snapshot!(refusal(route, |file| file));
}

#[test(root)]
fn the_underlay_address_must_be_there() {
    insta::assert_snapshot!(refusal(|_| {}, |file| file.replace("\"10.1.1.1\"", "\"10.1.1.9\"")));
}

#[test(root)]
fn a_start_that_fails_forgets_nothing_that_was_kept() {
    let sites = Sites::new();
    let gateway = &sites.network.gateway_a;
    sites.machine.name(gateway.ns(), "netA");
    let before = sites.view_a();
    sites.run_a(&[]).end(Signal::SIGTERM);
    let kept = sites.view_a();
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = fs::read_to_string(example("a.toml")).unwrap();
    fs::write(file.path(), text.replace("\"10.1.1.1\"", "\"10.1.1.9\"")).unwrap();
    sites.machine.adit(gateway.ns(), &["run", file.path().to_str().unwrap()]).with(1);
    assert_eq!(sites.view_a(), kept, "the door is still closed");
    // One that gets as far as the device, but may not open what it sends with.
    let mut without_raw = Command::new("setpriv");
    without_raw.args(["--bounding-set=-net_raw", "--inh-caps=-net_raw", PROGRAM, "run", &example("a.toml")]);
    let said = sites.machine.run(gateway.ns(), &mut without_raw).with(1);
    assert!(said.stderr.contains("CAP_NET_RAW"), "{said:#?}");
    assert_eq!(sites.view_a(), kept, "it was not made by this start");
    // Where it stands is noted still, so that it is found from anywhere.
    sites.machine.adit(sites.network.gateway_b.ns(), &["down", "a"]).ok();
    assert_eq!(sites.view_a(), before);
}

#[test(root)]
fn the_right_that_is_missing_is_named_before_anything_else() {
    let sites = Sites::with_dataplane("userspace");
    let file = example("a.toml");
    for command in ["run", "up", "down"] {
        let mut without_rights = Command::new("setpriv");
        without_rights.args(["--bounding-set=-all", "--inh-caps=-all", PROGRAM, command, &file]);
        let said = sites.machine.run(sites.network.gateway_a.ns(), &mut without_rights).with(1);
        let expected =
            format!("adit: `adit {command}` changes the network of this machine and needs CAP_NET_ADMIN");
        assert!(said.stderr.starts_with(&expected), "{said:?}");
    }
    assert_eq!(sites.machine.files(), [] as [std::path::PathBuf; 0]);
}

/// Whoever can open the lock can hold it.
#[test(root)]
fn only_root_can_open_the_files() {
    let sites = Sites::with_dataplane("userspace");
    let gateway = sites.network.gateway_a.ns();
    sites.machine.adit(gateway, &["up", &sites.file("a.toml")]).ok();
    let modes = sites.machine.with_files(|| {
        let files = ["/run/adit/a.lock", "/run/adit/a.log", "/run/adit/a.sock", "/var/lib/adit/a/run.json"];
        files.map(|file| fs::metadata(file).unwrap().permissions().mode() & 0o777)
    });
    assert_eq!(modes, [0o600; 4]);
    sites.machine.adit(gateway, &["down", "a"]).ok();
}

#[test(root)]
fn a_namespace_that_is_not_there_is_named() {
    let sites = Sites::new();
    for command in ["run", "up", "down"] {
        let arguments = [command, &example("a.toml"), "--netns", "nowhere"];
        let said = sites.machine.adit(sites.network.gateway_a.ns(), &arguments).with(1);
        assert_eq!(
            said.stderr,
            "adit: cannot open the network namespace `nowhere`: No such file or directory (os error 2); \
             `ip netns list` shows the existing ones\n"
        );
    }
    assert_eq!(sites.machine.files(), [] as [std::path::PathBuf; 0]);
}

#[test(root)]
fn a_signal_during_the_start_is_not_lost() {
    let sites = Sites::new();
    let before = sites.view_a();
    let mut a: Running = sites.machine.start(sites.network.gateway_a.ns(), &["run", &example("a.toml")]);
    // Not ready yet, and perhaps not even loaded; or ready just now. Either way it ends, and leaves
    // nothing.
    sites.machine.with_files(|| {
        while !fs::exists("/var/lib/adit/a/run.json").unwrap() {
            std::thread::yield_now();
        }
    });
    a.signal(Signal::SIGINT);
    a.wait_for("ready");
    let (status, said) = a.wait();
    assert!(status.success(), "{status}: {said}");
    assert_eq!(sites.view_a(), before);
    assert_eq!(sites.machine.files(), [] as [std::path::PathBuf; 0]);
}
