//! An overlay as a service: planned, applied, taken back, and repaired when somebody else breaks
//! it.

use crate::support::testbed::{Side, Testbed};
use adit_testbed::needs::ebpf;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::load::Load;
use crate::support::programs::pins;
use crate::support::sites::{Sites, assert_reaches};
use crate::support::wait_until;
use adit_config::DataplaneChoice;
use adit_lab::two_sites::{HOST_B, INSIDE_B};
use adit_linux::netlink::{ROUTE_PROTOCOL, Route, RouteKind, STATIC_PROTOCOL};
use adit_testbed::test_planes::plane_name;
use ipnet::IpNet;
use nix::sys::signal::Signal;

/// What the issue allows a repair.
const A_SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// A peer that nobody is.
const FAR: &str = "\n[[peer]]\nname = \"far\"\nunderlay = \"10.1.1.77\"\nnetworks = [\"10.77.0.0/16\"]\n";

/// A thousand of the kind.
fn thousand() -> String {
    let peer = |n: u32| {
        let (underlay, network) =
            (Ipv4Addr::from_bits(0x0a4e_0000 + n), Ipv4Addr::from_bits(0x0a4d_0000 + n * 16));
        format!("\n[[peer]]\nname = \"p{n}\"\nunderlay = \"{underlay}\"\nnetworks = [\"{network}/28\"]\n")
    };
    (0..1000).map(peer).collect()
}

/// The article's network as the article has it, and then nothing more to do.
#[test(root, ebpf)]
fn a_plan_is_what_an_apply_does() {
    let sites = Sites::new();
    let gateway = &sites.network.gateway_a;
    let file = crate::support::sites::example("a.toml");
    let adit = |arguments: &[&str]| sites.machine.adit(gateway.ns(), arguments);
    let planned = adit(&["plan", &file]);
    assert_eq!(planned.code, Some(2), "{planned:?}");
    insta::assert_snapshot!(planned.stdout, @r"
    + site a underlay 10.1.1.1 networks 172.16.17.0/24
    + peer b underlay 10.1.1.2 networks 192.168.199.0/24
    + device ipipA mtu 1480
    + route unreachable 192.168.199.0/24 metric 4278987208
    + route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1
    overlay `a`: 5 changes
    ");
    let commands = adit(&["plan", &file, "--commands"]);
    insta::assert_snapshot!(commands.stdout, @r"
    ip link add name ipipA type ipip local 10.1.1.1 remote 10.1.1.2
    ip link set ipipA up
    ip route add unreachable 192.168.199.0/24 metric 4278987208
    ip route add 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1
    ");
    assert!(adit(&["apply", &file]).ok().stdout.contains("is up"));
    let planned = adit(&["plan", &file]).ok();
    assert_eq!(planned.stdout, "overlay `a`: nothing to change\n");
    assert_eq!(adit(&["apply", &file]).ok().stdout, "overlay `a`: nothing to change\n");
    adit(&["down", "a"]).ok();
    assert_eq!(sites.machine.files(), [] as [PathBuf; 0]);
}

#[test(alone, root, ebpf)]
fn a_change_beside_a_peer_loses_nothing_of_it() {
    change_beside_a_peer(DataplaneChoice::Ebpf);
}

/// What it costs is for reading: userspace has nobody who goes on meanwhile.
#[test(alone, root)]
fn a_change_beside_a_peer_of_userspace_passes() {
    change_beside_a_peer(DataplaneChoice::Userspace);
}

fn change_beside_a_peer(plane: DataplaneChoice) {
    let bed = Testbed::running(plane);
    let more = bed.write_changed("more.toml", |text| text + &thousand());
    let less = bed.write_changed("less.toml", |text| text);
    let sent = || bed.status()["peers"][0]["tx"]["packets"].as_u64().unwrap();
    // Bits a second that a process built for debugging keeps up with.
    let load = Load::start(&bed.sites.network, (plane == DataplaneChoice::Userspace).then_some(50_000_000));
    for round in 0..5 {
        let before = sent();
        let applied = bed.adit(&["apply", if round % 2 == 0 { &more } else { &less }]).ok();
        assert!(applied.stdout.contains("peer p999 underlay 10.78.3.231"), "{applied:?}");
        assert!(sent() >= before, "what was counted is not forgotten");
    }
    let what = format!("{}: a thousand unrelated peers come and go, five times", plane_name(plane));
    let outcome = load.finish(&what);
    if plane == DataplaneChoice::Ebpf {
        outcome.assert_lossless();
    }
    let routes = bed.gateway().netlink().unwrap().routes().unwrap();
    let ours = |kind| {
        let is_meant = |route: &&Route| route.protocol == ROUTE_PROTOCOL && route.kind == kind;
        routes.iter().filter(is_meant).count()
    };
    assert_eq!((ours(RouteKind::Unicast), ours(RouteKind::Unreachable)), (1001, 1001));
}

#[test(alone, root, ebpf)]
fn what_is_broken_or_impossible_changes_nothing() {
    let bed = Testbed::running(DataplaneChoice::Ebpf);
    let before = (bed.sites.view_a(), bed.status()["site"].clone());
    let broken =
        bed.write_changed("broken.toml", |text| text.replace("192.168.199.0/24", "192.168.199.1/24"));
    let foreign = bed.write_changed("foreign.toml", |text| text + FAR);
    let moved = bed.write_changed("moved.toml", |text| text.replace("\"ipipA\"", "\"ipipZ\""));
    let away = bed.write_changed("away.toml", |text| text.replace("\"10.1.1.1\"", "\"10.1.1.9\""));
    // Somebody else has a route to the new peer's network.
    let theirs = Route {
        destination: "10.77.0.0/16".parse().unwrap(),
        device: Some(bed.gateway().index("dummyA").unwrap()),
        protocol: STATIC_PROTOCOL,
        ..Route::default()
    };
    bed.gateway().netlink().unwrap().add_route(&theirs).unwrap();
    let with_theirs = bed.sites.view_a();
    for (file, said) in [
        (&broken, "host bits set"),
        (&foreign, "a route to 10.77.0.0/16 exists and is not Adit's"),
        (&moved, "cannot change in place"),
        (&away, "no address of this machine"),
    ] {
        for command in ["plan", "apply"] {
            let refused = bed.adit(&[command, file]);
            assert_eq!(refused.code, Some(1), "{refused:?}");
            assert!(refused.stderr.contains(said), "{said}: {refused:?}");
        }
        assert_reaches(&bed.sites.network.host_a, HOST_B);
    }
    assert_eq!((bed.sites.view_a(), bed.status()["site"].clone()), (with_theirs, before.1));

    // The same by a signal: the file is read again, and refused.
    fs::copy(&broken, bed.file("a.toml")).unwrap();
    bed.daemon(Side::A).signal(Signal::SIGHUP);
    bed.sites.assert_joined();
    assert_eq!(bed.status()["peers"][0]["networks"][0], "192.168.199.0/24");
}

#[test(alone, root, ebpf)]
fn a_hangup_reads_the_file_again() {
    let bed = Testbed::running(DataplaneChoice::Ebpf);
    let more = bed.write_changed("more.toml", |text| text + FAR);
    fs::copy(more, bed.file("a.toml")).unwrap();
    bed.daemon(Side::A).signal(Signal::SIGHUP);
    wait_until(PATIENCE, "the peer is there", || bed.status()["peers"].as_array().unwrap().len() == 2);
    bed.sites.assert_joined();
}

/// As large as one with 100,000 networks.
#[test(alone, root, ebpf)]
fn a_large_file_is_applied() {
    let bed = Testbed::running(DataplaneChoice::Ebpf);
    let large = bed.write_changed("large.toml", |text| text + &"# a comment\n".repeat(400_000) + FAR);
    assert!(bed.adit(&["apply", &large]).ok().stdout.contains("+ peer far"));
}

#[test(alone, root, ebpf)]
fn what_nobody_confirms_is_taken_back() {
    let mut bed = Testbed::running(DataplaneChoice::Ebpf);
    let more = bed.write_changed("more.toml", |text| text + FAR);
    let peers = |bed: &Testbed| bed.status()["peers"].as_array().unwrap().len();
    let applied = bed.adit(&["apply", "--confirm", "60", &more]).ok();
    assert!(applied.stdout.contains("adit confirm a"), "{applied:?}");
    assert_eq!(bed.adit(&["confirm", "a"]).ok().stdout, "overlay `a`: the change is kept\n");
    assert_eq!(bed.adit(&["confirm", "a"]).code, Some(1), "once is enough");

    // The mistake: this one makes peer b somebody else.
    let mistake = bed.write_changed("mistake.toml", |text| text.replace("\"10.1.1.2\"", "\"10.1.1.78\""));
    bed.adit(&["apply", "--confirm", "600", &mistake]).ok();
    assert!(!bed.reaches());
    bed.adit(&["apply", "--confirm", "1", &mistake]).ok();
    wait_until(PATIENCE, "what ran before runs again", || bed.reaches());
    assert_eq!(peers(&bed), 2, "what was confirmed last, not what ran first");
    bed.daemon(Side::A).signal(Signal::SIGHUP);
    bed.sites.assert_joined();
    let own = "a reload reads the file that the daemon was started with";
    wait_until(PATIENCE, own, || peers(&bed) == 1);

    // The daemon is killed meanwhile, and nobody starts it again.
    bed.adit(&["apply", "--confirm", "4", &mistake]).ok();
    bed.take(Side::A).kill();
    assert!(!bed.reaches(), "the programs go on with the mistake");
    wait_until(PATIENCE, "somebody else has taken it back", || bed.reaches());
    assert_eq!(peers(&bed), 1);
    bed.adit(&["down", "a"]).ok();
}

/// At boot the address may come after us.
#[test(root, ebpf)]
fn a_start_waits_for_the_underlay_address() {
    let sites = Sites::new();
    let _b = sites.run_b();
    let gateway = &sites.network.gateway_a;
    let (device, address) = (gateway.index("underlayA").unwrap(), "10.1.1.1/24".parse().unwrap());
    gateway.netlink().unwrap().delete_address(device, address).unwrap();
    let file = crate::support::sites::example("a.toml");
    let wait = || {
        let mut a = sites.machine.start(gateway.ns(), &["run", "--wait", &file]);
        while !a.wait_for("").contains("waiting for the underlay address") {}
        a
    };
    let mut a = wait();
    let adit = |arguments: &[&str]| sites.machine.adit(gateway.ns(), arguments);
    let status = adit(&["status", "a", "-j"]).ok().json()["overlays"][0].clone();
    assert_eq!((&status["daemon"], &status["site"]["name"]), (&"waiting".into(), &"a".into()), "{status}");
    assert!(status["waiting_for"].as_str().unwrap().contains("10.1.1.1"), "{status}");
    let shown = adit(&["status"]).ok().stdout;
    assert!(shown.starts_with("site a  waiting: ") && shown.contains("10.1.1.1"), "{shown}");
    let refused = adit(&["apply", &file]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("the overlay is not up yet"), "{refused:?}");
    gateway.address("underlayA", address).unwrap();
    a.wait_for("ready");
    sites.assert_joined();
    a.end(Signal::SIGINT);
    // And whoever does not want to wait any longer.
    gateway.netlink().unwrap().delete_address(device, address).unwrap();
    wait().end(Signal::SIGTERM);
}

/// Whatever a dead daemon has left half done, the next one makes whole.
#[test(alone, root, ebpf)]
fn a_kill_at_any_moment_of_an_apply_is_mended_by_the_next_start() {
    let mut bed = Testbed::running(DataplaneChoice::Ebpf);
    let before = bed.sites.view_a();
    let files =
        [bed.write_changed("more.toml", |text| text + FAR), bed.write_changed("less.toml", |text| text)];
    let start = Instant::now();
    bed.adit(&["apply", &files[1]]).ok();
    let takes = start.elapsed();
    let mut interrupted = 0;
    for round in 0..12 {
        let (file, delay) = (&files[round % 2], takes * round as u32 / 10);
        let daemon = bed.take(Side::A);
        let (machine, gateway) = (bed.sites.machine.clone(), bed.gateway().ns().clone());
        std::thread::scope(|scope| {
            let apply = scope.spawn(|| machine.adit(&gateway, &["apply", file]));
            std::thread::sleep(delay);
            daemon.kill();
            interrupted += usize::from(apply.join().unwrap().code != Some(0));
        });
        let assert_whole = |bed: &Testbed| {
            let planned = bed.adit(&["plan", file]).ok().stdout;
            assert_eq!(planned, "overlay `a`: nothing to change\n", "after {delay:?}");
            assert_reaches(&bed.sites.network.host_a, HOST_B);
        };
        // An apply that finds nobody at work starts the overlay itself.
        if bed.adit(&["status", "a"]).code == Some(0) {
            assert_whole(&bed);
            bed.adit(&["down", "a"]).ok();
        }
        bed.start_with(Side::A, file);
        assert_whole(&bed);
    }
    assert!(interrupted > 0, "some of them were to be cut short");
    assert_eq!(bed.sites.view_a().0.len(), before.0.len(), "no interface too many");
    bed.adit(&["down", "a"]).ok();
    assert_eq!(pins(&bed.sites.machine, "a"), [] as [PathBuf; 0]);
}

/// What somebody else does to an overlay.
type Breakage<'a> = (&'a str, u64, Box<dyn Fn() + 'a>);

/// Every object of ours, changed or deleted by hand.
fn breakages(bed: &Testbed) -> Vec<Breakage<'_>> {
    let gateway = bed.gateway();
    let netlink = || gateway.netlink().unwrap();
    let device = || gateway.index("ipipA").unwrap();
    let of_kind = move |kind| {
        let network: IpNet = "192.168.199.0/24".parse().unwrap();
        let is_meant = |route: &Route| route.destination == network && route.kind == kind;
        netlink().routes().unwrap().into_iter().find(is_meant).unwrap()
    };
    let ours = move || of_kind(RouteKind::Unicast);
    let guard = move || of_kind(RouteKind::Unreachable);
    vec![
        ("the route is deleted", 1, Box::new(move || netlink().delete_route(&ours()).unwrap())),
        ("the guard is deleted", 1, Box::new(move || netlink().delete_route(&guard()).unwrap())),
        (
            "route and guard are deleted",
            2,
            Box::new(move || netlink().delete_routes(&[ours(), guard()]).unwrap()),
        ),
        (
            "the route has another source",
            1,
            Box::new(move || {
                netlink().replace_route(&Route { preferred_source: None, ..ours() }).unwrap();
            }),
        ),
        (
            "a route of ours too many",
            1,
            Box::new(move || {
                let destination = "10.99.0.0/16".parse().unwrap();
                netlink().add_route(&Route { destination, ..ours() }).unwrap();
            }),
        ),
        ("the device has another MTU", 1, Box::new(move || netlink().set_mtu(device(), 1400).unwrap())),
        ("the device has another alias", 1, Box::new(move || netlink().set_alias(device(), "mine").unwrap())),
        // Its route goes with it.
        ("the device is down", 2, Box::new(move || netlink().set_down(device()).unwrap())),
        ("the device is deleted", 2, Box::new(move || netlink().delete_link(device()).unwrap())),
    ]
}

/// The same for what only the eBPF plane has.
fn breakages_of_programs(bed: &Testbed) -> Vec<Breakage<'_>> {
    let remove = |beginning: &'static str| {
        let machine = &bed.sites.machine;
        for pin in pins(machine, "a") {
            let name = pin.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(beginning) {
                let _ = machine.with_files(|| fs::remove_file(&pin));
            }
        }
    };
    vec![
        ("the pin of adit_encap is removed, and so it is detached", 1, Box::new(move || remove("encap-"))),
        ("the pin of adit_decap is removed", 1, Box::new(move || remove("decap-"))),
    ]
}

fn drift(plane: DataplaneChoice) {
    let bed = Testbed::running(plane);
    // What is not ours: an interface, an address, routes of others, one of them to a network of a
    // peer's neighbour.
    let gateway = bed.gateway();
    let stranger = Route {
        destination: "192.168.198.0/24".parse().unwrap(),
        device: Some(gateway.index("dummyA").unwrap()),
        protocol: STATIC_PROTOCOL,
        ..Route::default()
    };
    gateway.netlink().unwrap().add_route(&stranger).unwrap();
    let foreign = || {
        let (links, routes) = bed.sites.view_a();
        let links: Vec<String> = links.into_iter().filter(|link| !link.contains("ipipA")).collect();
        let routes: Vec<Route> =
            routes.into_iter().filter(|route| route.protocol != ROUTE_PROTOCOL).collect();
        (links, routes)
    };
    let before = foreign();
    let mut all = breakages(&bed);
    if plane == DataplaneChoice::Ebpf {
        all.extend(breakages_of_programs(&bed));
    }
    for (what, expected, work) in all {
        assert_reaches(&bed.sites.network.host_a, HOST_B);
        let counted = bed.repairs();
        work();
        let took = wait_until(PATIENCE, what, || bed.repairs() >= counted + expected && bed.reaches());
        assert!(took < A_SECOND, "{what}: repaired only after {took:?}");
        assert_eq!(bed.repairs(), counted + expected, "{what}: counted once");
        assert_eq!(foreign(), before, "{what}: nothing of others' was touched");
    }
    let strays: IpNet = "10.99.0.0/16".parse().unwrap();
    let routes = gateway.netlink().unwrap().routes().unwrap();
    assert!(routes.iter().all(|route| route.destination != strays), "what is too much goes");

    // A foreign route that takes the place of ours is left alone, and said.
    let network: IpNet = "192.168.199.0/24".parse().unwrap();
    let theirs = Route { destination: network, ..stranger };
    gateway.netlink().unwrap().replace_route(&theirs).unwrap();
    let counted = bed.repairs();
    std::thread::sleep(A_SECOND);
    let found = gateway.netlink().unwrap().routes().unwrap();
    let found: Vec<&Route> = found.iter().filter(|route| route.destination == network).collect();
    let is_theirs = |route: &Route| route.protocol == STATIC_PROTOCOL;
    let is_guard = |route: &Route| route.kind == RouteKind::Unreachable;
    assert!(matches!(found[..], [first, last] if is_theirs(first) && is_guard(last)), "{found:?}");
    assert_eq!(bed.repairs(), counted);
    // It goes, and ours comes back.
    gateway.netlink().unwrap().delete_route(&theirs).unwrap();
    wait_until(PATIENCE, "ours is back", || bed.reaches());
    let to: Ipv4Addr = INSIDE_B;
    crate::support::sites::assert_reaches(gateway, to);
}

#[test(alone, root, ebpf)]
fn what_others_break_is_repaired_with_ebpf() {
    drift(DataplaneChoice::Ebpf);
}

#[test(alone, root)]
fn what_others_break_is_repaired_with_userspace() {
    drift(DataplaneChoice::Userspace);
}
