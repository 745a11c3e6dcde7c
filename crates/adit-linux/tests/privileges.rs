//! A thread that drops privileges loses them, and other threads keep theirs.

#[macro_use(test)]
extern crate adit_harness;

use std::fs::File;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::thread;

use adit_linux::netlink::Netlink;
use adit_linux::netns::NetNs;
use adit_linux::process::privileges::{self, PacketThread, confine_packet_thread};
use adit_linux::process::{Capability, has_capability};
use adit_linux::sockets::packet::PacketSender;
use adit_linux::sockets::xdp::XdpSender;

/// Runs `work` on a thread that is confined as a packet thread.
fn confined<T: Send + 'static>(kind: PacketThread, work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        confine_packet_thread(kind).unwrap();
        work()
    });
    thread.join().unwrap()
}

#[test]
fn a_packet_thread_can_move_packets_only() {
    let sockets = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let receiver = sockets.1.local_addr().unwrap();
    let refused = confined(PacketThread::Plain, move || {
        sockets.0.send_to(b"packet", receiver).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(sockets.1.recv(&mut buffer).unwrap(), 6);
        // Growing memory is allowed.
        assert_eq!(vec![1u8; 8 << 20].iter().map(|byte| usize::from(*byte)).sum::<usize>(), 8 << 20);
        let attempts = [
            File::open("/etc/hostname").map(drop),
            TcpListener::bind("127.0.0.1:0").map(drop),
            std::process::Command::new("true").status().map(drop),
        ];
        attempts.map(|attempt| attempt.unwrap_err().kind())
    });
    assert_eq!(refused, [ErrorKind::PermissionDenied; 3]);
    File::open("/proc/self/status").expect("other threads keep their rights");
}

#[test]
fn a_packet_thread_can_panic() {
    let thread = thread::spawn(|| {
        confine_packet_thread(PacketThread::Plain).unwrap();
        panic!("expected");
    });
    assert!(thread.join().is_err());
}

#[test(root)]
fn a_packet_thread_can_open_senders_and_no_other_sockets() {
    confined(PacketThread::OpensSenders, || {
        let loopback = 1;
        PacketSender::open(loopback, 1500, 1).unwrap();
        assert!(UdpSocket::bind("127.0.0.1:0").is_err());
    });
    confined(PacketThread::Plain, || assert!(PacketSender::open(1, 1500, 1).is_err()));
    assert!(has_capability(Capability::NetAdmin));
}

/// Many daemons of root run on a gateway of many overlays, and many queues in one of them. All
/// their frames count against one limit of locked memory, which is 8 MiB on most systems.
#[test(root)]
fn a_packet_thread_can_open_senders_beyond_the_limit_of_locked_memory() {
    const SENDERS: u32 = 16;
    let (here, there) = (NetNs::fresh().unwrap(), NetNs::fresh().unwrap());
    let links: Vec<u32> = here
        .run(|| {
            let mut netlink = Netlink::open().unwrap();
            let mut add = |number: u32| {
                let (near, far) = (format!("near{number}"), format!("far{number}"));
                netlink.add_veth(&near, &far, &there).unwrap();
                let index = netlink.link(&near).unwrap().unwrap().index;
                netlink.set_up(index).unwrap();
                index
            };
            (0..SENDERS).map(&mut add).collect()
        })
        .unwrap();
    let opened = here.run(|| {
        privileges::keep_only(&[Capability::NetAdmin, Capability::NetRaw]).unwrap();
        confine_packet_thread(PacketThread::OpensSenders).unwrap();
        links.into_iter().map(|link| XdpSender::open(link, 0, 64)).collect::<Result<Vec<_>, _>>()
    });
    assert_eq!(opened.unwrap().unwrap().len(), SENDERS as usize);
}

/// Signal 0 only asks whether the caller may signal that thread.
#[expect(unsafe_code, reason = "no crate wraps this call")]
fn may_signal(process: i32, thread: i32) -> std::io::Result<()> {
    // SAFETY: numbers only.
    let done = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, 0) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test(root)]
fn a_packet_thread_can_signal_its_own_process_only() {
    let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let other_id = other.id().cast_signed();
    may_signal(other_id, other_id).unwrap();
    let own = std::process::id().cast_signed();
    for kind in [PacketThread::Plain, PacketThread::OpensSenders, PacketThread::ReadsMaps] {
        let refused = confined(kind, move || {
            may_signal(own, own).unwrap();
            may_signal(other_id, other_id).unwrap_err().kind()
        });
        assert_eq!(refused, ErrorKind::PermissionDenied, "{kind:?}");
    }
    other.kill().unwrap();
    other.wait().unwrap();
}

/// `bpf(2)` with no attributes: the kernel finds none of its commands in it.
#[expect(unsafe_code, reason = "no crate wraps this call")]
fn bpf(command: libc::c_int) -> Option<i32> {
    // SAFETY: the kernel reads no byte of an attribute of no bytes.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::null::<u8>(), 0) };
    if done < 0 { std::io::Error::last_os_error().raw_os_error() } else { None }
}

#[test(root)]
fn a_packet_thread_can_read_maps_and_make_nothing_of_bpf() {
    const BPF_MAP_CREATE: libc::c_int = 0;
    const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
    const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_OBJ_GET: libc::c_int = 7;
    for command in [BPF_MAP_CREATE, BPF_MAP_UPDATE_ELEM, BPF_PROG_LOAD, BPF_OBJ_GET] {
        assert_eq!(confined(PacketThread::ReadsMaps, move || bpf(command)), Some(libc::EPERM), "{command}");
    }
    assert_ne!(confined(PacketThread::ReadsMaps, || bpf(BPF_MAP_LOOKUP_ELEM)), Some(libc::EPERM));
    assert_eq!(confined(PacketThread::Plain, || bpf(BPF_MAP_LOOKUP_ELEM)), Some(libc::EPERM));
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
