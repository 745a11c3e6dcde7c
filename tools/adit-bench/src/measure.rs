//! The measures, their contenders and their durations.

use std::time::Duration;

use serde::Serialize;

use crate::peers::{Contender, Families};
use crate::testbed::Shape;

/// The duration of each measurement and its number of slices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    /// How often a round goes through all contenders, forwards and backwards in turns. A round's
    /// figure is the mean of its slices, so a drift within a round affects all contenders alike.
    pub(crate) slices: usize,
    /// A slice of a stream, or of a flood of datagrams.
    pub(crate) load: Duration,
    /// A slice of one request after another.
    pub(crate) requests: Duration,
    /// How many echoes in a slice.
    pub(crate) pings: usize,
    /// A run of iperf3, which counts in seconds, and is not cut.
    pub(crate) iperf_seconds: u64,
    /// How often a site is started to time it.
    pub(crate) starts: usize,
}

impl Lengths {
    /// The lengths that a meaningful figure needs.
    pub(crate) const FULL: Self = Self {
        slices: 8,
        load: Duration::from_millis(200),
        requests: Duration::from_millis(125),
        pings: 40,
        iperf_seconds: 2,
        starts: 3,
    };
    /// Lengths that show that everything works; the figures mean nothing.
    pub(crate) const QUICK: Self = Self {
        slices: 2,
        load: Duration::from_millis(100),
        requests: Duration::from_millis(100),
        pings: 10,
        iperf_seconds: 1,
        starts: 1,
    };

    /// How often a round goes through the contenders of `measure`.
    pub(crate) fn slices_of(&self, measure: Measure) -> usize {
        if measure.is_iperf() { 1 } else { self.slices }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// Goodput of one stream, bits a second.
    TcpOne,
    /// Goodput of four streams together, bits a second.
    TcpFour,
    /// 64-byte datagrams of the batched generator that arrived, a second.
    UdpSmall,
    /// Requests answered, a second.
    RequestResponse,
    /// Median round trip of ICMP echoes, microseconds.
    Ping,
    /// One stream of iperf3, bits a second.
    IperfTcp,
    /// 64-byte datagrams of iperf3 that arrived, a second.
    IperfUdp,
    /// Goodput of one stream from a host behind one gateway to a host behind the other.
    ForwardTcp,
    /// 64-byte datagrams between the same hosts that arrived, a second.
    ForwardUdp,
}

impl Measure {
    pub(crate) const ALL: [Self; 9] = [
        Self::TcpOne,
        Self::TcpFour,
        Self::UdpSmall,
        Self::RequestResponse,
        Self::Ping,
        Self::IperfTcp,
        Self::IperfUdp,
        Self::ForwardTcp,
        Self::ForwardUdp,
    ];

    /// The contenders that it is measured of, in the order of the tables.
    pub(crate) fn contenders(self) -> &'static [Contender] {
        use Contender::{
            Adit, AditBefore, AditEbpf, Bare, BareV6, Control, EbpfOf, Fastd, Ipip, OpenVpn, Tinc,
            UserspaceBefore, UserspaceOf, Vpncloud, Vxlan,
        };
        use Families::{FourInSix, SixInFour, SixInSix};
        match self {
            Self::TcpOne => &[
                Bare,
                BareV6,
                AditEbpf,
                EbpfOf(SixInFour),
                EbpfOf(FourInSix),
                EbpfOf(SixInSix),
                AditBefore,
                Control,
                Adit,
                UserspaceBefore,
                UserspaceOf(SixInFour),
                UserspaceOf(FourInSix),
                UserspaceOf(SixInSix),
                Vxlan,
                Ipip,
                Tinc,
                Fastd,
                OpenVpn,
                Vpncloud,
            ],
            Self::UdpSmall => &Contender::ALL,
            Self::TcpFour | Self::Ping => &[Bare, AditEbpf, Adit],
            Self::RequestResponse => &[Bare, AditEbpf, AditBefore, Control, Adit],
            Self::IperfTcp | Self::IperfUdp => &[Bare, AditEbpf, Adit, OpenVpn],
            Self::ForwardTcp | Self::ForwardUdp => &[Bare, AditEbpf, AditBefore, Control, Adit, Ipip],
        }
    }

    /// The testbed that it needs.
    pub(crate) fn shape(self) -> Shape {
        match self {
            Self::ForwardTcp | Self::ForwardUdp => Shape::Chain,
            _ => Shape::Pair,
        }
    }

    /// Returns true if iperf3 measures it instead of the project's generators.
    pub(crate) fn is_iperf(self) -> bool {
        matches!(self, Self::IperfTcp | Self::IperfUdp)
    }
}

/// A figure that one measurement yields: the main one or a side figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aside {
    /// The figure itself.
    Figure,
    /// Processors that the tunnel's programs used, both sides together.
    Processors,
    /// TCP segments retransmitted.
    Retransmits,
    /// Datagrams that were offered, a second.
    Offered,
}
