//! Reasons for dropping a datagram, or an ICMP message about one. One table gives each reason its
//! variant, its counter, its RFC section and its line in `docs/reference/drops.md`.

use core::fmt;

/// Where a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Before or during encapsulation.
    Encapsulation,
    /// Before or during decapsulation.
    Decapsulation,
    /// An ICMP error from a router on the underlay.
    UnderlayIcmp,
    /// In the data plane: the tunnel admitted it, but the operating system or a queue did not take
    /// it.
    DataPlane,
}

impl Stage {
    /// Its heading in the reference.
    pub const fn title(self) -> &'static str {
        match self {
            Stage::Encapsulation => "Encapsulation",
            Stage::Decapsulation => "Decapsulation",
            Stage::UnderlayIcmp => "ICMP errors from the underlay",
            Stage::DataPlane => "Data plane",
        }
    }
}

macro_rules! drop_reasons {
    ($($stage:ident {
        $($variant:ident, $name:literal, $section:literal, $explanation:literal, $remedy:literal;)+
    })+) => {
        /// Why something was dropped. The names ([`as_str`](DropReason::as_str)) are stable: they
        /// are the keys of `drops` in the status and the labels of the metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(
                #[doc = concat!("`", $name, "` (", $section, "): ", $explanation)]
                $variant,
            )+)+
        }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: [DropReason; DropReason::COUNT] = [$($(DropReason::$variant,)+)+];

            /// Number of reasons.
            pub const COUNT: usize = [$($($name,)+)+].len();

            /// The stable name, in kebab case.
            pub const fn as_str(self) -> &'static str {
                match self { $($(DropReason::$variant => $name,)+)+ }
            }

            /// The section of the RFC that requires it or that it follows from.
            pub const fn section(self) -> &'static str {
                match self { $($(DropReason::$variant => $section,)+)+ }
            }

            /// What happened, in one sentence.
            pub const fn explanation(self) -> &'static str {
                match self { $($(DropReason::$variant => $explanation,)+)+ }
            }

            /// What an operator does about it, in a sentence or two.
            pub const fn remedy(self) -> &'static str {
                match self { $($(DropReason::$variant => $remedy,)+)+ }
            }

            /// Where it happens.
            pub const fn stage(self) -> Stage {
                match self { $($(DropReason::$variant => Stage::$stage,)+)+ }
            }
        }
    };
}

drop_reasons! {
    Encapsulation {
        InnerMalformed, "inner-malformed", "RFC 791 section 3.1",
            "The datagram's IP header is wrong: one of its lengths, or the checksum of IPv4.",
            "Find the sender with `tcpdump` on the tunnel interface. A broken driver or a program that \
             writes raw packets sends such headers.";
        InnerNotIpv4, "inner-not-ipv4", "RFC 2003 section 3.1",
            "The packet that reached the tunnel interface is of IPv6, and no network of this \
             overlay is; or it is not IP.",
            "Add the IPv6 networks of both sites to the files, or remove the IPv6 route that leads \
             into the tunnel.";
        InnerTtlZero, "inner-ttl-zero", "RFC 2003 section 3.1",
            "The datagram's TTL is 0, so it must not be encapsulated; the sender gets Time \
             Exceeded.",
            "Usually a traceroute. A steady rate is a routing loop: compare the routes of both \
             gateways.";
        InnerDestinationUnknown, "inner-destination-unknown", "RFC 1812 section 5.2.7.1",
            "No peer's networks hold the destination; the sender gets Network Unreachable.",
            "Add the network to the peer's `networks`, or remove the route that leads it into the \
             tunnel.";
        InnerSourceDenied, "inner-source-denied", "RFC 2827 section 4",
            "Neither our networks nor a peer's hold the source; the sender gets Administratively \
             Prohibited.",
            "Add the source's network to `site.networks`. If the gateway itself sends from \
             another address, give the route a source address (`ip route ... src`).";
        RouterErrorLimited, "router-error-limited", "RFC 1812 section 4.3.2.8",
            "A router of ours, whose address is in no network of ours, has sent an ICMP error to a \
             host behind the peer, and too many such have been sent already.",
            "Add the router's address to `site.networks` if such errors are many and wanted. \
             Otherwise find what they are about with `tcpdump` on the tunnel interface.";
        InnerSourceIsOwnForwarded, "inner-source-is-own-forwarded", "RFC 2003 section 3.2",
            "A datagram to be forwarded has one of this gateway's own addresses as its source.",
            "Somebody behind this gateway forges addresses, or an address is in use twice. Find \
             the interface it arrives on.";
        InnerSourceIsTunnelExit, "inner-source-is-tunnel-exit", "RFC 2003 section 3.2",
            "The source is the underlay address of the peer that the datagram is for: it goes \
             around in a loop.",
            "Check that the route to the peer's underlay address leads to the underlay on both \
             gateways.";
        NestedEncapsulation, "nested-encapsulation", "RFC 2003 section 3.2",
            "An outer datagram of this tunnel was routed back into it: the route to the underlay \
             leads into the tunnel.",
            "Route the peers' underlay addresses by the underlay; a default route into the tunnel \
             needs such exceptions.";
        EncapsulationLimit, "encapsulation-limit", "RFC 2473 section 4.1.1",
            "The packet says that it may not be encapsulated once more; the sender gets Parameter \
             Problem.",
            "It has passed several tunnels. Look for a loop among them, or raise the limit where it \
             enters the first one (`encaplimit` of Linux's ip6tnl).";
        RelayToSamePeer, "relay-to-same-peer", "RFC 2827 section 4",
            "Source and destination are both behind the same peer, so the datagram would return \
             to where it came from.",
            "Correct the peer's routing: it sends its own networks into the tunnel.";
        InnerTooBig, "inner-too-big", "RFC 2003 section 5.1",
            "The datagram must not be fragmented and is larger than the path allows; the sender \
             gets the MTU.",
            "Normal at the start of a connection. If transfers hang, let ICMP type 3 code 4 reach \
             the sender, and keep `tunnel.mss-clamp` on.";
        PeerUnreachable, "peer-unreachable", "RFC 2003 section 4",
            "A router on the underlay has reported the peer unreachable (or its report did not \
             say which datagram it was about); the sender of this datagram is told so.",
            "Check the path to the peer's underlay address with `ping` and `traceroute`.";
    }
    Decapsulation {
        OuterMalformed, "outer-malformed", "RFC 791 section 3.1",
            "The outer IPv4 header is wrong: its version, its length, its total length or its \
             checksum.",
            "A faulty link or device on the underlay corrupts packets: check the interface's \
             error counters.";
        OuterNotProtocol4, "outer-not-protocol-4", "RFC 2003 section 3.1",
            "The outer header's protocol is not 4 (IP in IP), nor 41 (IPv6) where a network is of \
             IPv6.",
            "Nothing to do: it was not for the tunnel.";
        OuterDestinationNotOurs, "outer-destination-not-ours", "RFC 2003 section 3.1",
            "The outer destination is not this tunnel's underlay address.",
            "Check `peer.underlay` on the other side, and any NAT in between.";
        OuterSourceUnknown, "outer-source-unknown", "RFC 2003 section 6.1",
            "The outer source is not a configured peer.",
            "If it should be one, correct `peer.underlay`: the peer's address has changed, or NAT \
             rewrites it. Otherwise somebody probes this gateway.";
        OuterFragment, "outer-fragment", "RFC 4459 section 3.3",
            "The outer datagram is a fragment that nothing has reassembled.",
            "Let the peer learn the path MTU (`tunnel.df`), so that it does not fragment outer \
             datagrams.";
        DecapInnerMalformed, "decap-inner-malformed", "RFC 791 section 3.1",
            "The IP header inside the outer datagram is wrong, or not of the version that the outer one \
             says.",
            "Find the sender behind the peer with `tcpdump` on the underlay; the peer forwards broken \
             headers.";
        DecapInnerNotIpv4, "decap-inner-not-ipv4", "RFC 2003 section 3.1",
            "The outer header says IP in IP (protocol 4), and carries something other than IPv4.",
            "Check that the peer's tunnel is IP in IP (mode `ipip`), or `mode any` of sit.";
        DecapInnerTtlZero, "decap-inner-ttl-zero", "RFC 2003 section 3.1",
            "The inner datagram's TTL is 0 after decapsulation.",
            "Usually a traceroute through a peer that does not count the tunnel as a hop. A \
             steady rate is a routing loop.";
        NestedToOurselves, "nested-to-ourselves", "RFC 6169 section 2.2",
            "The inner datagram is itself IP in IP to this tunnel; decapsulating it again would \
             hide its true sender.",
            "Check the peer's routing for a loop. Without one, somebody tries to get around the \
             address checks.";
        InnerSourceIsOwn, "inner-source-is-own", "RFC 2827 section 4",
            "The inner source is one of our own addresses or networks, although the datagram \
             comes from a peer.",
            "An address or network is in use on both sides, or somebody behind the peer forges \
             ours.";
        InnerSourceNotFromPeer, "inner-source-not-from-peer", "RFC 6169 section 2.2",
            "The inner source is not in the networks of the peer that sent the datagram.",
            "Add the network to that peer's `networks` if it belongs there. If the peer \
             masquerades, turn that off for the tunnel.";
        DecapRouterErrorLimited, "decap-router-error-limited", "RFC 1812 section 4.3.2.8",
            "A router behind the peer, whose address is in no network of that peer, has sent an ICMP \
             error, and too many such have come already.",
            "Add the router's address to the peer's `networks` if such errors are many and wanted. \
             Otherwise somebody behind the peer forges them.";
        InnerDestinationNotOurs, "inner-destination-not-ours", "RFC 2003 section 6.1",
            "Neither our networks nor those of another peer hold the inner destination.",
            "Add the network to `site.networks`, or remove it from this site's entry in the \
             peer's configuration.";
        RelayRefused, "relay-refused", "RFC 2003 section 6.1",
            "The datagram is from one peer to another, and `tunnel.relay` does not allow these two.",
            "If they are to reach each other, list them in `tunnel.relay`. Otherwise remove the \
             networks of the one from this site's entry in the other's configuration.";
        EcnViolation, "ecn-violation", "RFC 6040 section 4.2",
            "The outer header says Congestion Experienced, but the inner sender does not use ECN, \
             so dropping is the only signal left.",
            "Look for a router on the underlay that overwrites the TOS byte, or a peer whose \
             tunnel does not copy the inner ECN field to the outer header.";
    }
    UnderlayIcmp {
        IcmpMalformed, "icmp-malformed", "RFC 792",
            "An ICMP message is truncated, its checksum is wrong, or its quote is not a datagram.",
            "Nothing to do for a few. A steady rate is a faulty or hostile device on the \
             underlay.";
        IcmpUnbelievable, "icmp-unbelievable", "RFC 5927 section 4",
            "An ICMP error quotes a datagram that this tunnel has not sent, or not lately.",
            "Somebody forges ICMP errors, or another tunnel uses the same underlay address. The \
             tunnel ignores them.";
        IcmpDisproved, "icmp-disproved", "RFC 5927 section 7",
            "An ICMP error says that the path fails or has shrunk, but since then the peer has \
             answered a probe, or sent something.",
            "Somebody forges ICMP errors, or one of several paths is faulty: look with \
             `traceroute` to the peer's underlay address.";
        IcmpUnproven, "icmp-unproven", "RFC 5927 section 7",
            "An ICMP error says that the path fails or has shrunk, and nothing has confirmed it: \
             another error about the same peer is being tested, or it reports less than \
             `tunnel.mtu-floor`.",
            "Nothing to do for a few: a failing path causes many errors, of which one is tested. A \
             steady rate about a peer that can be reached is forged.";
        IcmpNotRelayed, "icmp-not-relayed", "RFC 2003 section 4",
            "An ICMP error concerns the tunnel's own header, not the original sender.",
            "Nothing to do for a few. A steady rate means that the underlay misroutes or rejects \
             the outer datagrams: capture ICMP there.";
        IcmpNotAnswerable, "icmp-not-answerable", "RFC 1122 section 3.2.2",
            "An ICMP error would be due, but none may be sent about this datagram.",
            "Nothing to do: the datagram was itself an ICMP error, a later fragment, or a \
             broadcast.";
        IcmpRateLimited, "icmp-rate-limited", "RFC 1812 section 4.3.2.8",
            "An ICMP error would be due, but too many have been sent already.",
            "Find the sender whose datagrams cause the errors: the other counters say which \
             errors they are.";
    }
    DataPlane {
        DeviceWriteFailed, "device-write-failed", "RFC 2003 section 5",
            "The operating system did not take a decapsulated datagram.",
            "Check that the tunnel interface is up (`ip link`) and that the host has memory left.";
        UnderlaySendFailed, "underlay-send-failed", "RFC 2003 section 5",
            "The operating system did not send an encapsulated datagram.",
            "Check the underlay interface (`ip -s link`), its queue, and local firewall rules for \
             protocol 4.";
        UnderlayNoRoute, "underlay-no-route", "RFC 2003 section 5",
            "This host has no route to the peer, or one that refuses (`unreachable`, `prohibit`).",
            "Add a route to the peer's underlay address: `ip route get` shows what is missing.";
        QueueFull, "queue-full", "RFC 2003 section 5.2",
            "A queue was full.",
            "The gateway receives more than it can carry: give it more processor time, or send \
             less.";
    }
}

impl DropReason {
    /// Its number: the index in [`DropReason::ALL`] and in `Totals::drops`.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason with this number.
    pub fn from_index(index: usize) -> Option<DropReason> {
        DropReason::ALL.get(index).copied()
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<DropReason> {
        DropReason::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
