//! The scenarios of everyday traffic and of errors on the path.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use adit_lab::LabError;
use adit_lab::host::Host;
use adit_lab::ping::{Answer, ping};
use adit_lab::throughput::Flow;
use adit_lab::two_sites::{HOST_A, HOST_B, INSIDE_A, INSIDE_B, ROUTER, UNDERLAY_A, UNDERLAY_B};
use adit_linux::netlink::{Route, STATIC_PROTOCOL};
use adit_linux::sockets::udp::PathSocket;
use adit_testbed::transfer::Transfer;
use ipnet::Ipv4Net;

use super::{Pair, Scenario};
use crate::error::Error;

/// How long a scenario waits for one answer.
const ATTEMPT: Duration = Duration::from_secs(1);

pub(super) const PING: Scenario = Scenario {
    name: "facing-ping",
    what: "Echo requests of 84 and 1,480 bytes with DF from host to host, in both directions.",
    asks: &["answered"],
    run: pings,
    waits: false,
};

pub(super) const TCP: Scenario = Scenario {
    name: "facing-tcp",
    what: "A TCP transfer of 1 MiB in each direction, with every byte compared.",
    asks: &["every byte"],
    run: transfers,
    waits: false,
};

pub(super) const UDP: Scenario = Scenario {
    name: "facing-udp",
    what: "UDP datagrams with 1 to 65,507 bytes of payload without DF, in both directions.",
    asks: &["all arrive"],
    run: datagrams,
    waits: false,
};

pub(super) const TRACEROUTE: Scenario = Scenario {
    name: "facing-traceroute",
    what: "The hops that a traceroute from host A to host B shows.",
    asks: &["gateway A, gateway B, host B"],
    run: traceroute,
    waits: false,
};

pub(super) const NO_ROUTE: Scenario = Scenario {
    name: "facing-no-route",
    what: "The router inside the tunnel has no route to gateway B: which of host A's datagrams is answered first.",
    asks: &["the first: 3/0 from gateway A", "the first: 3/1 from gateway A"],
    run: no_route,
    waits: false,
};

pub(super) const PATH_MTU: Scenario = Scenario {
    name: "facing-path-mtu",
    what: "The router's link to gateway B takes 1,300 bytes: which of host A's datagrams (1,480 bytes, DF) is answered first, and whether a datagram that fits then arrives.",
    asks: &["the first: MTU 1280; what fits arrives"],
    run: path_mtu,
    waits: false,
};

fn pings(pair: &Pair) -> Result<String, Error> {
    let network = &pair.network;
    for (from, to, way) in [(&network.host_a, HOST_B, "A to B"), (&network.host_b, HOST_A, "B to A")] {
        for size in [84, 1480] {
            let answer = from.run(|| ping(to, size, 64, ATTEMPT))?;
            if !answer.is_reply() {
                return Ok(format!("{way}, {size} bytes: {}", words(&answer)));
            }
        }
    }
    Ok("answered".to_owned())
}

fn transfers(pair: &Pair) -> Result<String, Error> {
    const BYTES: u64 = 1 << 20;
    // Bits a second. The rate is low to keep the capture small.
    const RATE: u64 = 50_000_000;
    const TIMEOUT: Duration = Duration::from_secs(15);
    let network = &pair.network;
    for (client, server, address, way) in [
        (&network.host_a, &network.host_b, HOST_B, "A to B"),
        (&network.host_b, &network.host_a, HOST_A, "B to A"),
    ] {
        let transfer = match Transfer::start(&Flow { client, server, address: address.into() }, Some(RATE)) {
            Ok(transfer) => transfer,
            Err(LabError::Io { .. }) => return Ok(format!("{way}: no transfer")),
            Err(error) => return Err(error.into()),
        };
        let deadline = Instant::now() + TIMEOUT;
        while transfer.received() < BYTES && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if transfer.received() < BYTES {
            return Ok(format!("{way}: no transfer"));
        }
        // A broken path may fail at the connection, in the middle, or with other bytes.
        if transfer.finish().is_err() {
            return Ok(format!("{way}: no transfer"));
        }
    }
    Ok("every byte".to_owned())
}

/// Sizes around the edges: the MTU less one and two headers, several fragments, the largest.
const SIZES: [usize; 14] = [1, 2, 64, 512, 1372, 1452, 1453, 1472, 1473, 4000, 9000, 16_000, 32_768, 65_507];

fn datagrams(pair: &Pair) -> Result<String, Error> {
    let network = &pair.network;
    let set = |discovery| -> Result<(), Error> {
        for host in [&network.host_a, &network.host_b] {
            host.sysctl("ipv4/ip_no_pmtu_disc", discovery)?;
        }
        Ok(())
    };
    set("1")?;
    let there = lost(&network.host_a, HOST_A, &network.host_b, HOST_B)?;
    let back = lost(&network.host_b, HOST_B, &network.host_a, HOST_A)?;
    set("0")?;
    Ok(match (there.as_str(), back.as_str()) {
        ("", "") => "all arrive".to_owned(),
        (there, "") => format!("A to B lost: {there}"),
        ("", back) => format!("B to A lost: {back}"),
        (there, back) => format!("A to B lost: {there}; B to A lost: {back}"),
    })
}

/// The sizes that do not arrive as they were sent.
fn lost(sender: &Host, from: Ipv4Addr, receiver: &Host, to: Ipv4Addr) -> Result<String, Error> {
    let bind = |host: &Host, address| {
        host.ns()
            .run(|| UdpSocket::bind(SocketAddrV4::new(address, 0)))?
            .map_err(Error::io("bind a UDP socket"))
    };
    let (sender, receiver) = (bind(sender, from)?, bind(receiver, to)?);
    receiver.set_read_timeout(Some(ATTEMPT)).map_err(Error::io("set a timeout"))?;
    let address = receiver.local_addr().map_err(Error::io("learn a port"))?;
    let mut buffer = vec![0; 65_536];
    let mut lost = Vec::new();
    for size in SIZES {
        let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        // The sending host refuses a datagram if it knows a smaller path MTU.
        let arrives = match sender.send_to(&payload, address) {
            Ok(_) => match receiver.recv(&mut buffer) {
                Ok(len) => buffer[..len] == payload,
                Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                Err(error) => return Err(Error::io("receive a UDP datagram")(error)),
            },
            Err(_) => false,
        };
        if !arrives {
            lost.push(size.to_string());
        }
    }
    Ok(lost.join(", "))
}

fn traceroute(pair: &Pair) -> Result<String, Error> {
    const HOPS: u8 = 6;
    let mut hops = Vec::new();
    for ttl in 1..=HOPS {
        let answer = pair.ping(84, ttl, ATTEMPT)?;
        hops.push(words(&answer));
        if answer.is_reply() {
            break;
        }
    }
    Ok(hops.join(", "))
}

/// Describes an answer with the names of the hosts.
fn words(answer: &Answer) -> String {
    match answer {
        Answer::Reply { .. } => "host B".to_owned(),
        Answer::Refused { by, error } => match error.type_and_code() {
            (11, 0) => name(*by),
            (message_type, code) => format!("{message_type}/{code} from {}", name(*by)),
        },
        Answer::RefusedV6 { by, .. } => format!("an error from {by}"),
        Answer::NotSent(_) => "not sent".to_owned(),
        Answer::Silence => "\\*".to_owned(),
    }
}

fn name(address: Ipv4Addr) -> String {
    match address {
        INSIDE_A | UNDERLAY_A => "gateway A".to_owned(),
        INSIDE_B | UNDERLAY_B => "gateway B".to_owned(),
        ROUTER => "the router".to_owned(),
        other => other.to_string(),
    }
}

const ORDINALS: [&str; 3] = ["first", "second", "third"];

fn no_route(pair: &Pair) -> Result<String, Error> {
    let router = &pair.network.router;
    let route = Route {
        destination: Ipv4Net::from(UNDERLAY_B).into(),
        device: Some(router.index("toB")?),
        protocol: STATIC_PROTOCOL,
        ..Route::default()
    };
    router.netlink()?.delete_route(&route)?;
    let heard = first_answered(pair);
    router.route(Ipv4Net::from(UNDERLAY_B), None, Some("toB"))?;
    pair.wait_until_it_carries()?;
    heard
}

fn first_answered(pair: &Pair) -> Result<String, Error> {
    for ordinal in ORDINALS {
        let answer = pair.ping(84, 64, ATTEMPT)?;
        if answer != Answer::Silence {
            return Ok(format!("the {ordinal}: {}", words(&answer)));
        }
    }
    Ok("none of three".to_owned())
}

fn path_mtu(pair: &Pair) -> Result<String, Error> {
    const LEN: usize = 1480;
    const HEADERS: usize = 28;
    let network = &pair.network;
    network.router.mtu("toB", 1300)?;
    network.gateway_b.mtu("underlayB", 1300)?;
    let receiver = network.host_b.ns().run(|| UdpSocket::bind(SocketAddrV4::new(HOST_B, 0)))?;
    let receiver = receiver.map_err(Error::io("bind a UDP socket"))?;
    receiver.set_read_timeout(Some(ATTEMPT)).map_err(Error::io("set a timeout"))?;
    let port = receiver.local_addr().map_err(Error::io("learn a port"))?.port();
    let sender = network
        .host_a
        .run(|| PathSocket::connect(SocketAddrV4::new(HOST_A, 0), SocketAddrV4::new(HOST_B, port)))?;
    for ordinal in ORDINALS {
        // The socket reports an error that came back at the next call, which may be this one.
        let _ = sender.send(&vec![7; LEN - HEADERS]);
        let told = sender.take_error_within(ATTEMPT).map_err(Error::io("read a socket's errors"))?;
        let Some(mtu) = told.and_then(|told| told.mtu) else { continue };
        let payload = vec![9; (mtu as usize).saturating_sub(HEADERS)];
        let fits = sender.send(&payload).is_ok()
            && receiver.recv(&mut vec![0; LEN]).is_ok_and(|len| len == payload.len());
        let fits = if fits { "what fits arrives" } else { "what should fit is lost" };
        return Ok(format!("the {ordinal}: MTU {mtu}; {fits}"));
    }
    Ok("none of three".to_owned())
}
