//! Thousands of clients that are silent, slow or hostile: the daemon answers in its usual time, and
//! neither its memory nor its descriptors grow without a bound.

#![expect(clippy::print_stderr, reason = "the figures are for people")]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use adit_config::DataplaneChoice;
use adit_linux::process::raise_descriptor_limit;
use adit_testbed::needs::ebpf;
use adit_testbed::test_planes::plane_name;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};

use crate::support::machine::Running;
use crate::support::sites::Sites;

const METRICS: &str = "127.0.0.1:9150";
const SOCKET: &str = "/run/adit/a.sock";

/// What clients send: nothing, the beginning of a request, one without an end, and none at all.
const REQUESTS: [&[u8]; 4] = [b"", b"GET ", b"GET /v1/status HTTP/1.1\r\nHost: a\r\nX: ", &[0xff; 300]];

/// Connects without waiting for the answer, sends what the kernel takes at once, and leaves the
/// connection as it is.
fn connect_and_leave(to: SocketAddr, request: &[u8]) -> OwnedFd {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    let connected = connect(fd.as_raw_fd(), &SockaddrStorage::from(to));
    assert!(matches!(connected, Ok(()) | Err(nix::Error::EINPROGRESS)), "{connected:?}");
    let mut stream = TcpStream::from(fd);
    let _ = stream.write(request);
    stream.into()
}

/// How many TCP connections there are in the calling thread's network namespace, at their clients'
/// ends.
fn established(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    // Local address, remote address, state: 01 is established.
    let to_port = format!(":{port:04X} 01");
    table.lines().filter(|line| line.contains(&to_port)).count()
}

/// What the daemon has: descriptors, and KiB of memory.
fn taken(daemon: &Running) -> (usize, u64) {
    let process = format!("/proc/{}", daemon.pid());
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = memory.split_whitespace().next().unwrap().parse().unwrap();
    (std::fs::read_dir(format!("{process}/fd")).unwrap().count(), memory)
}

/// The slowest of five statuses.
fn slowest_status(sites: &Sites) -> Duration {
    let status = || {
        let start = Instant::now();
        sites.machine.adit(sites.network.gateway_a.ns(), &["status", "a", "-j"]).ok();
        start.elapsed()
    };
    (0..5).map(|_| status()).max().unwrap()
}

fn hinder_nobody(plane: DataplaneChoice) {
    raise_descriptor_limit().unwrap();
    let sites = Sites::with_site(format!("dataplane = \"{}\"\nmetrics = \"{METRICS}\"", plane_name(plane)));
    let (a, _b) = (sites.run_a(&[]), sites.run_b());
    let gateway = sites.network.gateway_a.ns();
    let usual = slowest_status(&sites);
    let (descriptors, memory) = taken(&a);

    let address: SocketAddr = METRICS.parse().unwrap();
    let (remote, connected) = sites.machine.within(gateway, || {
        let connect = |number: usize| connect_and_leave(address, REQUESTS[number % REQUESTS.len()]);
        let remote: Vec<_> = (0..10_000).map(connect).collect();
        (remote, established(address.port()))
    });
    let local: Vec<UnixStream> = sites.machine.with_files(|| {
        (0..1000)
            .map(|number| {
                let mut stream = UnixStream::connect(SOCKET).unwrap();
                let _ = stream.write_all(REQUESTS[number % REQUESTS.len()]);
                stream
            })
            .collect()
    });
    let slowest = slowest_status(&sites);
    let (more_descriptors, more_memory) = taken(&a);
    eprintln!(
        "{}: 10,000 connections to the metrics ({connected} established, the others refused by the kernel), 1,000 to \
         the socket: status in {:.0} ms at most ({:.0} ms without), {} descriptors more, {} KiB more",
        plane_name(plane),
        slowest.as_secs_f64() * 1e3,
        usual.as_secs_f64() * 1e3,
        more_descriptors - descriptors,
        more_memory.saturating_sub(memory),
    );
    assert!(connected >= 16, "{connected}");
    assert!(slowest < 5 * usual + Duration::from_millis(500), "{slowest:?}, and {usual:?} without");
    assert!(more_descriptors <= descriptors + 1000 + 32, "{more_descriptors}, {descriptors} before");
    assert!(more_memory < memory + 64 * 1024, "{more_memory} KiB, {memory} KiB before");
    sites.assert_joined();
    drop((remote, local));
    sites.machine.adit(gateway, &["apply", &sites.file("a.toml")]).ok();
}

#[test(alone, root, ebpf)]
fn thousands_of_clients_hinder_nobody_with_ebpf() {
    hinder_nobody(DataplaneChoice::Ebpf);
}

#[test(alone, root)]
fn thousands_of_clients_hinder_nobody_with_userspace() {
    hinder_nobody(DataplaneChoice::Userspace);
}
