//! The share of the programs: whether they or userspace behind them have carried lately. Pure.
//!
//! The programs may be attached and yet see nothing: another program may come before them and end
//! the chain, or a peer's route may leave by something other than Ethernet.

use adit_tunnel::Totals;

/// Datagrams of one direction that are enough to judge by.
const ENOUGH: u64 = 16;

/// Datagrams sent to and received from all peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) tx: u64,
    pub(super) rx: u64,
}

impl Carried {
    pub(super) fn of(totals: &Totals) -> Self {
        totals.peers.iter().fold(Self::default(), |sum, peer| Self {
            tx: sum.tx + peer.tx_packets,
            rx: sum.rx + peer.rx_packets,
        })
    }
}

/// What has been carried since the last judgement, in one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Direction {
    userspace: u64,
    all: u64,
    is_bypassed: bool,
}

impl Direction {
    /// Judges by everything since the last judgement, if that is enough.
    fn observe(&mut self, userspace: u64, all: u64) {
        let new = all.saturating_sub(self.all);
        // Counts start again with another data plane.
        if all < self.all || userspace < self.userspace {
            (self.userspace, self.all) = (userspace, all);
        } else if new >= ENOUGH {
            self.is_bypassed = userspace - self.userspace == new;
            (self.userspace, self.all) = (userspace, all);
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Share {
    tx: Direction,
    rx: Direction,
}

impl Share {
    /// Takes over what userspace alone, and everything together, has carried until now.
    pub(super) fn observe(&mut self, userspace: Carried, all: Carried) {
        self.tx.observe(userspace.tx, all.tx);
        self.rx.observe(userspace.rx, all.rx);
    }

    /// Whether all that was sent lately passed the programs by.
    pub(super) fn is_tx_bypassed(&self) -> bool {
        self.tx.is_bypassed
    }

    /// Whether all that was received lately passed the programs by.
    pub(super) fn is_rx_bypassed(&self) -> bool {
        self.rx.is_bypassed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After each row: what userspace and all have received, and whether programs are bypassed.
    fn check(rows: &[(u64, u64, bool)]) {
        let mut share = Share::default();
        for &(userspace, all, expected) in rows {
            share.observe(Carried { tx: 0, rx: userspace }, Carried { tx: 0, rx: all });
            assert_eq!(share.is_rx_bypassed(), expected, "{userspace} of {all} in {rows:?}");
            assert!(!share.is_tx_bypassed());
        }
    }

    #[test]
    fn userspace_carries_alone_only_if_it_has_carried_all_of_enough() {
        check(&[(0, 0, false), (15, 15, false), (16, 16, true), (16, 17, true), (17, 40, false)]);
        check(&[(3, 100, false), (103, 200, true), (103, 300, false)]);
    }

    #[test]
    fn counts_that_start_again_are_no_judgement() {
        check(&[(20, 20, true), (0, 0, true), (0, 16, false)]);
    }
}
