//! The tunnel interface in an operator's hands: shaping, captures, counters and packet filters work
//! as on any interface, on every plane. Linux's own ipip interface is the measure.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use adit_config::DataplaneChoice;
use adit_lab::capture::{Frame, Tap};
use adit_lab::ping::ping;
use adit_lab::two_sites::{HOST_A, HOST_B, INSIDE_B, TwoSites};
use adit_testbed::needs::{ebpf, fq_codel, ipip};
use adit_testbed::reality::qdisc::Qdisc;

use crate::support::machine::PATIENCE;
use crate::support::sites::assert_reaches;
use crate::support::testbed::{Side, Testbed};
use crate::support::wait_until;

const DEVICE: &str = "ipipA";
/// How long a stream is measured.
const MEASURED: Duration = Duration::from_millis(1500);
/// Ports of the two streams.
const BULK: u16 = 7001;
const PREFERRED: u16 = 7002;
const MEGABIT: f64 = 1e6;
const PINGS: u64 = 5;

/// What a command on gateway A prints.
fn output(bed: &Testbed, line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    bed.sites.machine.run(bed.gateway().ns(), command.args(words)).ok().stdout
}

/// Bits a second of a TCP stream from host A that host B receives while it is measured.
fn rate(network: &TwoSites, port: u16) -> f64 {
    let (a, b) = (&network.host_a, &network.host_b);
    let at = |address: Ipv4Addr| SocketAddrV4::new(address, port);
    let listener = b.ns().run(|| TcpListener::bind(at(HOST_B))).unwrap().unwrap();
    thread::scope(|scope| {
        let received = scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (start, mut total, mut buffer) = (Instant::now(), 0, vec![0; 1 << 16]);
            while start.elapsed() < MEASURED {
                stream.set_read_timeout(Some(MEASURED)).unwrap();
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(len) => total += len,
                    // A shaper may let nothing through for a while.
                    Err(_) => {}
                }
            }
            total as f64 * 8.0 / start.elapsed().as_secs_f64()
        });
        let mut stream = a.ns().run(|| TcpStream::connect(at(HOST_B))).unwrap().unwrap();
        stream.set_write_timeout(Some(MEASURED)).unwrap();
        // Ends when the receiver has closed.
        while stream.write_all(&[0; 1 << 14]).is_ok() && !received.is_finished() {}
        received.join().unwrap()
    })
}

fn shaping_holds(bed: &Testbed) {
    let free = rate(&bed.sites.network, BULK);
    assert!(free > 5.0 * MEGABIT, "without a shaper {free} bit/s");
    let shaper = Qdisc::shaper(bed.gateway(), DEVICE).unwrap();
    let shaped = rate(&bed.sites.network, BULK);
    assert!((0.2 * MEGABIT..2.0 * MEGABIT).contains(&shaped), "with 1 Mbit/s {shaped} bit/s");
    shaper.remove().unwrap();
}

/// Two classes, one chosen by a filter, each with its own rate.
fn classes_have_their_rates(bed: &Testbed) {
    let classes = Qdisc::classes(bed.gateway(), DEVICE, PREFERRED).unwrap();
    let network = &bed.sites.network;
    let (preferred, bulk) = thread::scope(|scope| {
        let bulk = scope.spawn(|| rate(network, BULK));
        (rate(network, PREFERRED), bulk.join().unwrap())
    });
    assert!((0.2 * MEGABIT..2.0 * MEGABIT).contains(&bulk), "the class of 1 Mbit/s: {bulk} bit/s");
    assert!((2.0 * MEGABIT..7.0 * MEGABIT).contains(&preferred), "that of 4 Mbit/s: {preferred} bit/s");
    classes.remove().unwrap();
}

/// Packets that the interface has sent and received, by two readers that must agree: netlink, and
/// `/proc/net/dev`, which SNMP agents and node_exporter read.
fn counted(bed: &Testbed) -> (u64, u64) {
    let gateway = bed.gateway();
    let netlink = output(bed, "ip -s -j link show ipipA");
    let netlink: serde_json::Value = serde_json::from_str(&netlink).unwrap();
    let of = |way: &str| netlink[0]["stats64"][way]["packets"].as_u64().unwrap();
    let table = gateway.ns().run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap().unwrap();
    let line = table.lines().find(|line| line.trim_start().starts_with(DEVICE)).expect("it is listed");
    let fields: Vec<u64> =
        line.split(':').nth(1).unwrap().split_whitespace().map(|field| field.parse().unwrap()).collect();
    assert_eq!((fields[9], fields[1]), (of("tx"), of("rx")), "{line}");
    (of("tx"), of("rx"))
}

/// The datagram in a frame of the interface, which has a link header or none.
fn datagram(frame: &Frame) -> Option<&[u8]> {
    frame.ipv4().or_else(|| (frame.bytes.first()? >> 4 == 4).then_some(&frame.bytes[..]))
}

fn both_directions_are_captured_counted_and_filtered(bed: &Testbed) {
    let gateway = bed.gateway();
    gateway
        .program_with_input(
            "nft",
            &["-f", "-"],
            "table ip seen {
                counter out { }
                counter in { }
                counter own_out { }
                counter own_in { }
                chain output {
                    type filter hook output priority 0;
                    oifname \"ipipA\" ip length 777 icmp type echo-request counter name own_out;
                }
                chain input {
                    type filter hook input priority 0;
                    iifname \"ipipA\" ip length 777 icmp type echo-reply counter name own_in;
                }
                chain forward {
                    type filter hook forward priority 0;
                    oifname \"ipipA\" icmp type echo-request counter name out;
                    iifname \"ipipA\" icmp type echo-reply counter name in;
                }
            }
            ",
        )
        .unwrap();
    let tap = Tap::start(gateway, DEVICE).unwrap();
    let before = counted(bed);
    for _ in 0..PINGS {
        assert_reaches(&bed.sites.network.host_a, HOST_B);
    }
    for _ in 0..PINGS {
        // Probes have other lengths.
        let answer = gateway.run(|| ping(INSIDE_B, 777, 64, PATIENCE)).unwrap();
        assert!(answer.is_reply(), "{answer:?}");
    }
    let after = counted(bed);
    let frames = tap.finish();
    let passed = |kind: u8, source: Ipv4Addr| {
        let is_meant = |bytes: &&[u8]| bytes[9] == 1 && bytes[20] == kind && bytes[12..16] == source.octets();
        frames.iter().filter_map(datagram).filter(is_meant).count() as u64
    };
    assert_eq!((passed(8, HOST_A), passed(0, HOST_B)), (PINGS, PINGS), "captured");
    // Probes of the path pass the interface, too.
    let (sent, received) = (before.0 + 2 * PINGS, before.1 + 2 * PINGS);
    assert!(after.0 >= sent && after.1 >= received, "{before:?} to {after:?}");
    let listed = output(bed, "nft list counters table ip seen");
    assert_eq!(listed.matches("packets 5 ").count(), 4, "{listed}");
    sysfs_agrees_with_netlink(bed);
}

/// All that `ip -s link` shows is in `/sys/class/net/*/statistics`, too.
fn sysfs_agrees_with_netlink(bed: &Testbed) {
    let read = "mount -t sysfs sysfs /sys && grep -H . /sys/class/net/ipipA/statistics/* && ip -s -j link show ipipA";
    let mut seen = String::new();
    // A probe may pass between the two.
    wait_until(PATIENCE, "sysfs and netlink agree", || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", read]);
        seen = bed.sites.machine.run(bed.gateway().ns(), &mut command).ok().stdout;
        let (files, json) = seen.split_once('[').expect("both are read");
        let json: serde_json::Value = serde_json::from_str(&format!("[{json}")).unwrap();
        ["rx", "tx"].iter().all(|way| {
            ["packets", "bytes", "errors", "dropped"].iter().all(|what| {
                let value = &json[0]["stats64"][way][what];
                assert!(value.is_u64(), "{seen}");
                files.contains(&format!("/{way}_{what}:{value}\n"))
            })
        })
    });
}

fn behaves_like_any_interface(plane: DataplaneChoice) {
    let bed = Testbed::running(plane);
    both_directions_are_captured_counted_and_filtered(&bed);
    shaping_holds(&bed);
    classes_have_their_rates(&bed);
    assert_eq!(bed.repairs(), 0, "nobody takes the operator's qdisc away");
}

#[test(alone, root, ebpf, nft)]
fn it_behaves_like_any_interface_with_ebpf() {
    behaves_like_any_interface(DataplaneChoice::Ebpf);
}

#[test(alone, root, nft)]
fn it_behaves_like_any_interface_with_userspace() {
    behaves_like_any_interface(DataplaneChoice::Userspace);
}

#[test(alone, root, ipip, nft)]
fn it_behaves_like_any_interface_with_linuxs_ipip() {
    behaves_like_any_interface(DataplaneChoice::Kernel);
}

fn fq_codel_sees_what_is_sent(plane: DataplaneChoice) {
    let bed = Testbed::running(plane);
    Qdisc::fq_codel(bed.gateway(), DEVICE).unwrap();
    assert_reaches(&bed.sites.network.host_a, HOST_B);
    let shown = output(&bed, "tc -s -j qdisc show dev ipipA");
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert!(shown[0]["packets"].as_u64().is_some_and(|packets| packets > 0), "{shown}");
}

#[test(root, ebpf, fq_codel)]
fn fq_codel_sees_what_is_sent_with_ebpf() {
    fq_codel_sees_what_is_sent(DataplaneChoice::Ebpf);
}

#[test(root, fq_codel)]
fn fq_codel_sees_what_is_sent_with_userspace() {
    fq_codel_sees_what_is_sent(DataplaneChoice::Userspace);
}

#[test(root, ipip, fq_codel)]
fn fq_codel_sees_what_is_sent_with_linuxs_ipip() {
    fq_codel_sees_what_is_sent(DataplaneChoice::Kernel);
}

/// Every device of the gateways, by an ordinary user in their network namespaces: nobody attaches,
/// listens, sends or switches off.
const ATTEMPTS: &str = r#"
import fcntl, itertools, os, socket, struct, sys
done = []
def attempt(what, call):
    try:
        call()
        done.append(what)
    except OSError:
        pass
# A request of rtnetlink about an interface; the kernel's answer.
def netlink(kind, index, change=0, attribute=b""):
    body = struct.pack("=BxHiII", 0, 0, index, 0, change) + attribute
    header = struct.pack("=IHHII", 16 + len(body), kind, 5, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:
        route.send(header + body)
        error = struct.unpack_from("=i", route.recv(4096), 16)[0]
    if error:
        raise OSError(-error, "refused")
RTM_NEWLINK, RTM_DELLINK, IFF_UP = 16, 17, 1
ADDRESS = struct.pack("=HH6s2x", 10, 1, b"\2\0\0\0\0\x77")
names = sys.argv[2:] or [name for _, name in socket.if_nameindex()]
for name in names:
    request = name.encode().ljust(16, b"\0")
    for kind, queues, header in itertools.product((1, 2), (0x100, 0), (0x4000, 0)):
        def attach():
            node = os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(node, 0x400454ca, struct.pack("16sH22x", name.encode(), kind | queues | header | 0x1000))
        attempt("attach " + name, attach)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    attempt("down " + name, lambda: fcntl.ioctl(udp, 0x8914, request + struct.pack("H14x", 0)))
    attempt("mtu " + name, lambda: fcntl.ioctl(udp, 0x8922, request + struct.pack("i12x", 100)))
    index = socket.if_nametoindex(name)
    attempt("netlink address " + name, lambda: netlink(RTM_NEWLINK, index, 0, ADDRESS))
    attempt("netlink down " + name, lambda: netlink(RTM_NEWLINK, index, IFF_UP))
    attempt("netlink delete " + name, lambda: netlink(RTM_DELLINK, index))
attempt("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300))
attempt("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 4))
attempt("AF_XDP socket", lambda: socket.socket(44, socket.SOCK_RAW, 0))
print("tried", len(names), "devices:", ", ".join(done) or "nothing succeeded")
"#;

fn attempts(bed: &Testbed, side: Side, node: &str) -> String {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
    command.args(["--inh-caps=-all", "--ambient-caps=-all", "/usr/bin/python3", "-c", ATTEMPTS, node]);
    bed.sites.machine.run(bed.side(side).ns(), &mut command).ok().stdout
}

fn nobody_else_can_use_a_device(plane: DataplaneChoice) {
    let mut bed = Testbed::running(plane);
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("tun").into_os_string().into_string().unwrap();
    let open_to_all = [
        format!("mknod -m 0666 {node} c 10 200"),
        format!("chmod 755 {}", folder.path().display()),
        // The control: a TUN device without an owner.
        "ip tuntap add dev control mode tun multi_queue".to_owned(),
    ];
    for command in &open_to_all {
        let words: Vec<&str> = command.split(' ').collect();
        bed.gateway().program(words[0], &words[1..]).unwrap();
    }
    let said = attempts(&bed, Side::A, &node);
    assert!(said.contains("attach control") && said.matches(", ").count() < 8, "{said}");
    bed.ip("link delete control");
    // And whoever has the rights succeeds by the same requests.
    bed.ip("link add control type veth peer name other-end");
    let mut as_root = Command::new("/usr/bin/python3");
    let said =
        bed.sites.machine.run(bed.gateway().ns(), as_root.args(["-c", ATTEMPTS, &node, "control"])).ok();
    for what in ["address", "down", "delete"] {
        assert!(said.stdout.contains(&format!("netlink {what} control")), "{}", said.stdout);
    }
    for is_alive in [true, false] {
        for side in Side::BOTH {
            let said = attempts(&bed, side, &node);
            assert!(said.ends_with("devices: nothing succeeded\n"), "{side:?}, alive: {is_alive}: {said}");
            if is_alive {
                bed.end(side, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

#[test(root, ebpf, util_linux, scapy)]
fn nobody_else_can_use_a_device_of_ebpf() {
    nobody_else_can_use_a_device(DataplaneChoice::Ebpf);
}

#[test(root, util_linux, scapy)]
fn nobody_else_can_use_a_device_of_userspace() {
    nobody_else_can_use_a_device(DataplaneChoice::Userspace);
}
