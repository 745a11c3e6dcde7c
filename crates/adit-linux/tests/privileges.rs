//! A thread that drops privileges loses them, and other threads keep theirs.

#[macro_use(test)]
extern crate adit_harness;

use std::fs::File;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::thread;

use adit_linux::process::privileges::confine_packet_thread;
use adit_linux::process::{Capability, has_capability};
use adit_linux::sockets::packet::PacketSender;

/// Runs `work` on a thread that is confined as a packet thread.
fn confined<T: Send + 'static>(opens_sockets: bool, work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        confine_packet_thread(opens_sockets).unwrap();
        work()
    });
    thread.join().unwrap()
}

#[test]
fn a_packet_thread_can_move_packets_only() {
    let sockets = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let receiver = sockets.1.local_addr().unwrap();
    let refused = confined(false, move || {
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
        confine_packet_thread(false).unwrap();
        panic!("expected");
    });
    assert!(thread.join().is_err());
}

#[test(root)]
fn a_packet_thread_can_open_senders_and_no_other_sockets() {
    confined(true, || {
        let loopback = 1;
        PacketSender::open(loopback, 1500, 1).unwrap();
        assert!(UdpSocket::bind("127.0.0.1:0").is_err());
    });
    confined(false, || assert!(PacketSender::open(1, 1500, 1).is_err()));
    assert!(has_capability(Capability::NetAdmin));
}

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
