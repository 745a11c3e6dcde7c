//! What runs through the tunnel while something happens to it: between the hosts of the article's
//! network, a probe of 10,000 datagrams a second and a TCP transfer, each both ways; and, where
//! that is wanted, a probe of IPv6.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use adit_lab::host::Host;
use adit_lab::throughput::Flow;
use adit_lab::two_sites::{HOST_A, HOST_A6, HOST_B, HOST_B6, TwoSites};
use adit_testbed::loss_stream::{LossStream, StreamOptions, StreamReport};
use adit_testbed::transfer::{Transfer, TransferReport};

use super::machine::PATIENCE;

/// Long enough to tell a stream that flows from one that does not.
const STEADY: Duration = Duration::from_millis(300);
/// For what is still on its way at the end.
const GRACE: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Load {
    probes: Vec<LossStream>,
    transfers: Vec<Transfer>,
}

/// How it went; every byte of the transfers has arrived.
pub(crate) struct Outcome {
    what: String,
    /// From host A to host B, and back; then those of IPv6.
    pub(crate) probes: Vec<StreamReport>,
    transfers: Vec<TransferReport>,
}

impl Load {
    /// Starts all streams and waits until each flows. `rate` is that of each transfer, in bits a
    /// second; none is as fast as it goes.
    pub(crate) fn start(network: &TwoSites, rate: Option<u64>) -> Self {
        let (a, b) = (&network.host_a, &network.host_b);
        let ways: [(&Host, &Host, _); 2] = [(a, b, HOST_B), (b, a, HOST_A)];
        let transfer = |(client, server, address): (_, _, Ipv4Addr)| {
            let address = address.into();
            Transfer::start(&Flow { client, server, address }, rate).unwrap()
        };
        let probe = |(from, to, address): (_, _, _)| {
            LossStream::start(from, to, address, StreamOptions::default(), PATIENCE).unwrap()
        };
        let load = Self { transfers: ways.map(transfer).into(), probes: ways.map(probe).into() };
        std::thread::sleep(STEADY);
        load
    }

    /// Adds a probe of IPv6 each way, of 2,000 datagrams a second.
    pub(crate) fn with_ipv6(mut self, network: &TwoSites) -> Self {
        let (a, b) = (&network.host_a, &network.host_b);
        let options = StreamOptions { rate: 2000, ..StreamOptions::default() };
        let ways: [(&Host, &Host, _); 2] = [(a, b, HOST_B6), (b, a, HOST_A6)];
        let probes = ways.map(|(from, to, address)| LossStream::start(from, to, address, options, PATIENCE));
        self.probes.extend(probes.map(Result::unwrap));
        self
    }

    /// Waits until everything flows, and ends it in order.
    #[track_caller]
    pub(crate) fn finish(self, what: &str) -> Outcome {
        for probe in &self.probes {
            assert!(probe.wait_for_arrival(PATIENCE), "{what}: traffic does not come back");
        }
        std::thread::sleep(STEADY);
        let transfers = self
            .transfers
            .into_iter()
            .map(|transfer| transfer.finish().expect("every byte arrives"))
            .collect();
        let probes = self.probes.into_iter().map(|probe| probe.finish(GRACE).unwrap()).collect();
        let outcome = Outcome { what: what.to_owned(), probes, transfers };
        outcome.show();
        outcome
    }
}

impl Outcome {
    #[expect(clippy::print_stderr, reason = "the figures are what the test is for")]
    fn show(&self) {
        eprintln!("{self}");
    }

    /// Nothing was lost, and nothing came twice.
    #[track_caller]
    pub(crate) fn assert_lossless(&self) {
        assert!(self.probes.iter().all(StreamReport::is_complete), "{self}");
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.what)?;
        let ways = ["A to B", "B to A", "A to B, IPv6", "B to A, IPv6"];
        for (way, probe) in ways.iter().zip(&self.probes) {
            write!(formatter, "\n  {way}: {probe}")?;
        }
        for (way, transfer) in ways.iter().zip(&self.transfers) {
            write!(formatter, "\n  {way}: {transfer}")?;
        }
        Ok(())
    }
}
