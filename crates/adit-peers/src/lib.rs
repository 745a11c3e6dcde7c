//! The peers of a site as data: the rule that keeps their addresses apart, and changes of them.
//!
//! A [`PeerSet`] is one site's peers at one revision. Every set that exists keeps the rule of
//! [`AddressPlan`]: names and underlay addresses are unique, networks of different owners are
//! disjoint, and no underlay address lies in a peer's network. A [`PeerDelta`] leads from one
//! revision to the next; it is the only way to change the peers of a running overlay, whoever asks
//! for the change: a file, a call of the API or a store.
//!
//! This is a crate of its own because everything above needs the same rule and nothing else of each
//! other: `adit-config` makes a set from a file, `adit-tunnel` forwards by one, `adit-control`
//! applies deltas. It does no I/O and reads no clock.
//!
//! ```
//! use adit_peers::{Conflict, PathOptions, Peer, PeerSet};
//!
//! let peer = |name: &str, underlay: [u8; 4], network: &str| Peer {
//!     name: name.parse().unwrap(),
//!     underlay: underlay.into(),
//!     networks: vec![network.parse().unwrap()],
//!     path: PathOptions::default(),
//! };
//! let mut before = PeerSet::new(Some([10, 1, 1, 1].into()), ["172.16.17.0/24".parse().unwrap()])?;
//! before.insert(peer("b", [10, 1, 1, 2], "192.168.199.0/24"))?;
//!
//! let mut after = before.clone();
//! after.insert(peer("c", [10, 1, 1, 3], "192.168.200.0/24"))?;
//! assert!(after.insert(peer("d", [10, 1, 1, 4], "192.168.200.0/25")).is_err(), "overlaps peer c");
//!
//! let delta = before.delta_to(&after);
//! assert_eq!(before.apply(&delta).unwrap(), after);
//! # Ok::<(), Conflict>(())
//! ```
#![warn(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable
)]
#![cfg_attr(
    test,
    expect(clippy::unwrap_used, reason = "a test that unwraps nothing has failed, as it should")
)]

mod address_plan;
mod conflict;
mod name;
mod peer;
mod peer_delta;
mod peer_set;
mod relay;
mod underlay_addresses;
mod unicast;

pub use address_plan::AddressPlan;
pub use conflict::{Conflict, Holder, NAMED_ADDRESSES};
pub use name::{NameError, PeerName};
pub use peer::{Keepalive, PathOptions, Peer};
pub use peer_delta::{DeltaError, PeerDelta};
pub use peer_set::PeerSet;
pub use relay::Relay;
pub use underlay_addresses::{Path, UnderlayAddresses, UnderlayAddressesError};
pub use unicast::{NotUnicast, check_host, check_network};
