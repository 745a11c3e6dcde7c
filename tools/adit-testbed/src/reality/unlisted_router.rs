//! A router inside a site, whose address towards the gateway no configuration lists, and a host
//! behind it in a part of the site's network.
//!
//! ```text
//!   gateway ── router ── far host
//! ```

use std::net::Ipv4Addr;

use adit_lab::LabError;
use adit_lab::cable::{CableEnd, connect, connect_to_gateway};
use adit_lab::host::Host;
use adit_lab::router::Router;
use ipnet::Ipv4Net;

/// The router's address, from which it sends its errors.
pub const UNLISTED: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
/// The router's interface to the far host.
pub const TO_HOST: &str = "toHost";

const GATEWAY: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);

/// The router and the host behind it.
pub struct UnlistedRouter {
    /// The router.
    pub router: Router,
    /// The host.
    pub host: Host,
    /// The host's address.
    pub address: Ipv4Addr,
}

impl UnlistedRouter {
    /// Adds them behind a gateway. `part` is a part of the gateway's network with room for two
    /// hosts.
    ///
    /// # Errors
    /// Fails if the kernel refuses an interface or a route.
    pub fn add(gateway: &Host, part: Ipv4Net) -> Result<Self, LabError> {
        let (router, host) = (Router::new("unlisted router")?, Host::new("far host")?);
        let first = part.network().to_bits() + 1;
        let [inside, address] = [first, first + 1].map(Ipv4Addr::from_bits);
        connect(CableEnd::new(gateway, "far", GATEWAY), CableEnd::new(&router, "toGateway", UNLISTED), 30)?;
        gateway.route(part, Some(UNLISTED), None)?;
        router.route(Ipv4Net::default(), Some(GATEWAY), None)?;
        let end = CableEnd::new(&router, TO_HOST, inside);
        connect_to_gateway(CableEnd::new(&host, "eth0", address), end, part.prefix_len())?;
        Ok(Self { router, host, address })
    }
}
