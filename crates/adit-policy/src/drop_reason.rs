//! Every reason for which a datagram (or an ICMP message about one) is not passed on: one variant, one
//! counter, one line in `docs/drops.md`, one section of an RFC.

use core::fmt;

/// Where in a datagram's way it was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// On its way into the tunnel.
    Encapsulation,
    /// On its way out of the tunnel.
    Decapsulation,
    /// An ICMP error that came back from inside the tunnel.
    UnderlayIcmp,
    /// In the data plane: the tunnel let it pass, the operating system or a queue did not.
    DataPlane,
}

impl Stage {
    /// A heading for it.
    pub const fn title(self) -> &'static str {
        match self {
            Stage::Encapsulation => "Into the tunnel",
            Stage::Decapsulation => "Out of the tunnel",
            Stage::UnderlayIcmp => "ICMP from inside the tunnel",
            Stage::DataPlane => "In the data plane",
        }
    }
}

macro_rules! drop_reasons {
    ($($stage:ident { $($variant:ident, $name:literal, $section:literal, $explanation:literal;)+ })+) => {
        /// Why something was dropped. The names ([`as_str`](DropReason::as_str)) are stable: they are
        /// the keys of `drops` in the status and the labels of the metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(
                #[doc = concat!("`", $name, "` (", $section, "): ", $explanation)]
                $variant,
            )+)+
        }

        impl DropReason {
            /// All of them, in the order of their numbers.
            pub const ALL: [DropReason; DropReason::COUNT] = [$($(DropReason::$variant,)+)+];

            /// How many there are.
            pub const COUNT: usize = [$($($name,)+)+].len();

            /// The stable name, in kebab case.
            pub const fn as_str(self) -> &'static str {
                match self { $($(DropReason::$variant => $name,)+)+ }
            }

            /// The section of the RFC that asks for it (or that it follows from).
            pub const fn section(self) -> &'static str {
                match self { $($(DropReason::$variant => $section,)+)+ }
            }

            /// One sentence for people.
            pub const fn explanation(self) -> &'static str {
                match self { $($(DropReason::$variant => $explanation,)+)+ }
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
            "The datagram's IPv4 header is wrong: its length, its total length or its checksum.";
        InnerNotIpv4, "inner-not-ipv4", "RFC 2003 section 3.1",
            "What came to the tunnel is not IPv4; other protocols are not carried yet.";
        InnerTtlZero, "inner-ttl-zero", "RFC 2003 section 3.1",
            "The datagram's TTL is 0, so it must not be encapsulated; the sender is told Time Exceeded.";
        InnerDestinationUnknown, "inner-destination-unknown", "RFC 1812 section 5.2.7.1",
            "The destination is in no peer's networks; the sender is told Network Unreachable.";
        InnerSourceDenied, "inner-source-denied", "RFC 2827 section 4",
            "The source is in neither our networks nor a peer's; the sender is told Administratively Prohibited.";
        InnerSourceIsOwnForwarded, "inner-source-is-own-forwarded", "RFC 2003 section 3.2",
            "A datagram to be forwarded carries one of this gateway's own addresses as its source.";
        InnerSourceIsTunnelExit, "inner-source-is-tunnel-exit", "RFC 2003 section 3.2",
            "The source is the address of the tunnel's exit: the datagram is going around in a loop.";
        NestedEncapsulation, "nested-encapsulation", "RFC 2003 section 3.2",
            "An outer datagram of this tunnel was routed back into it; the underlay's route leads into the tunnel.";
        RelayToSamePeer, "relay-to-same-peer", "RFC 2827 section 4",
            "Source and destination are both behind the same peer; the datagram would go back where it came from.";
        InnerTooBig, "inner-too-big", "RFC 2003 section 5.1",
            "The datagram may not be fragmented and is larger than the path allows; the sender is told the MTU.";
        PeerUnreachable, "peer-unreachable", "RFC 2003 section 4",
            "A router inside the tunnel has just reported the exit unreachable (or could not be told whose datagram it was about); this datagram's sender is told so.";
    }
    Decapsulation {
        OuterMalformed, "outer-malformed", "RFC 791 section 3.1",
            "The outer IPv4 header is wrong: its version, its length, its total length or its checksum.";
        OuterNotProtocol4, "outer-not-protocol-4", "RFC 2003 section 3.1",
            "The outer header's protocol is not 4 (IP in IP).";
        OuterDestinationNotOurs, "outer-destination-not-ours", "RFC 2003 section 3.1",
            "The outer destination is not this tunnel's underlay address.";
        OuterSourceUnknown, "outer-source-unknown", "RFC 2003 section 6.1",
            "The outer source is not a configured peer.";
        OuterFragment, "outer-fragment", "RFC 4459 section 3.3",
            "The outer datagram is a fragment that nothing has reassembled.";
        DecapInnerMalformed, "decap-inner-malformed", "RFC 791 section 3.1",
            "The IPv4 header inside the outer datagram is wrong.";
        DecapInnerNotIpv4, "decap-inner-not-ipv4", "RFC 2003 section 3.1",
            "The outer datagram carries something other than IPv4.";
        DecapInnerTtlZero, "decap-inner-ttl-zero", "RFC 2003 section 3.1",
            "The inner datagram's TTL is 0 after decapsulation.";
        NestedToOurselves, "nested-to-ourselves", "RFC 6169 section 2.2",
            "The inner datagram is itself IP in IP addressed to this tunnel; unwrapping it again would hide its true sender.";
        InnerSourceIsOwn, "inner-source-is-own", "RFC 2827 section 4",
            "The inner source is one of our own addresses or networks, coming from outside.";
        InnerSourceNotFromPeer, "inner-source-not-from-peer", "RFC 6169 section 2.2",
            "The inner source is not in the networks of the peer that sent it.";
        InnerDestinationNotOurs, "inner-destination-not-ours", "RFC 2003 section 6.1",
            "The inner destination is neither in our networks nor in those of another peer.";
        EcnViolation, "ecn-violation", "RFC 6040 section 4.2",
            "The outer header says congestion experienced, but the inner sender does not know ECN: dropping is the only signal left.";
    }
    UnderlayIcmp {
        IcmpMalformed, "icmp-malformed", "RFC 792",
            "An ICMP message is truncated, its checksum is wrong, or its quote is not a datagram.";
        IcmpUnbelievable, "icmp-unbelievable", "RFC 5927 section 4",
            "An ICMP error quotes a datagram that this tunnel has not sent.";
        IcmpDisproved, "icmp-disproved", "RFC 5927 section 7",
            "An ICMP error says that the path fails or has shrunk, but the peer has just answered a probe over it.";
        IcmpNotRelayed, "icmp-not-relayed", "RFC 2003 section 4",
            "An ICMP error of a kind that concerns the tunnel's own header, not the original sender.";
        IcmpNotAnswerable, "icmp-not-answerable", "RFC 1122 section 3.2.2",
            "An ICMP error would be due, but the original datagram is one about which none may be sent.";
        IcmpRateLimited, "icmp-rate-limited", "RFC 1812 section 4.3.2.8",
            "An ICMP error would be due, but too many have been sent already.";
    }
    DataPlane {
        DeviceWriteFailed, "device-write-failed", "RFC 2003 section 5",
            "The operating system did not take a decapsulated datagram.";
        UnderlaySendFailed, "underlay-send-failed", "RFC 2003 section 5",
            "The operating system did not send an encapsulated datagram.";
        UnderlayNoRoute, "underlay-no-route", "RFC 2003 section 5",
            "The underlay has no route to the peer.";
        QueueFull, "queue-full", "RFC 2003 section 5.2",
            "A queue was full.";
    }
}

impl DropReason {
    /// The number of this reason: its place in [`DropReason::ALL`] and in `Totals::drops`.
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
