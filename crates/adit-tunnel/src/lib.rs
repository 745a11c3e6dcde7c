//! IP in IP (RFC 2003) as a pure function: peers, policy, path MTU, ICMP, drop reasons.
//!
//! [`Tunnel`] decides what becomes of a datagram; the caller moves the bytes. It does no I/O, reads
//! no clock (the time is an argument) and allocates nothing for a packet. All calls take `&self`,
//! so that the threads of a data plane share one tunnel; each counts into [`Counters`] of its own.
//!
//! ```text
//!                     inner datagram                              outer datagram
//!   this host's   ───────────────────►  Tunnel::encapsulate  ──────────────────────►  underlay
//!   networks      ◄───────────────────  Tunnel::decapsulate  ◄──────────────────────
//!                     (or an ICMP error)                      Tunnel::on_underlay_icmp ◄─ ICMP
//! ```
//!
//! Nothing is dropped without a [`DropReason`], and every reason names the RFC it comes from.
#![warn(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable
)]
#![cfg_attr(
    test,
    expect(
        clippy::indexing_slicing,
        clippy::expect_used,
        reason = "a test that goes out of bounds has failed, which is what it should do"
    )
)]

mod address_hasher;
mod atomic_address;
mod config;
mod counters;
mod decapsulate;
mod encapsulate;
mod encapsulate_v6;
#[doc(hidden)]
pub mod fuzz;
mod hop_count;
mod icmp_effect;
mod icmp_reply;
mod last_drop;
mod networks_v6;
mod other_overlays;
mod outer;
mod outer_header;
mod path_mtu;
mod path_search;
mod peer_delta;
mod peers;
mod probe;
mod probe_address;
mod probed_path;
mod prober;
mod reassembly;
mod relay;
mod route_state;
mod router_error;
mod soft_state;
mod tagged_time;
mod time;
mod token_bucket;
mod tunnel;
mod underlay_icmp;
mod underlay_icmp_v6;

pub use adit_peers::{
    Keepalive, Path, PathOptions, Peer, PeerDelta, PeerName, PeerSet, Relay, UnderlayAddresses,
};
pub use adit_policy::{DropReason, Origin, Owner, PeerIndex, Stage};
pub use config::{TunnelConfig, TunnelError};
pub use counters::{Counters, IcmpTotals, PeerTotals, ProbeTotals, Totals, Traffic};
pub use decapsulate::{Decapsulated, Outer};
pub use encapsulate::{Encapsulated, Inner};
pub use hop_count::HopCount;
pub use icmp_reply::{MAX_REPLY_LEN, Reply};
pub use last_drop::Dropped;
pub use path_mtu::{DEFAULT_MTU_FLOOR, LearnedBy, PATH_MTU_FLOOR, PATH_MTU_HOLD, PATH_MTU_LIFETIME, PathMtu};
pub use peer_delta::TableDelta;
pub use peers::PeerTable;
pub use probe::ProbeOptions;
pub use probed_path::{CONFIRM_INTERVAL, FIRST_RAISE, PROBE_TIMER, RAISE_TIMER, UNANSWERED_TIMEOUT};
pub use prober::{Prober, probe_interval};
pub use reassembly::{REASSEMBLY_TIMEOUT, Reassembler, Reassembly, is_fragment_v6};
pub use relay::RelayTable;
pub use soft_state::{
    ICMP_BURST, ICMP_PER_SECOND, PENDING_LIFETIME, Reachability, UNREACHABLE_WINDOW, UnreachableCause,
    UnreachableError,
};
pub use time::Instant;
pub use tunnel::{HostFacts, Remembered, Tunnel};
pub use underlay_icmp::{Claim, Proof, UnderlayIcmp};
