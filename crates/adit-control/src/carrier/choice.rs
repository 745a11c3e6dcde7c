//! The carrier that a configuration chooses.

use adit_config::Config;

use super::Carrier;
use super::ip_tunnel::IpTunnelCarrier;
use super::veth::VethCarrier;
use crate::reconcile::devices::uses_kernel_plane;

/// Returns the carrier of `site.dataplane`. `outlives_process` says whether what is loaded into the
/// kernel stays there when this process ends.
pub(crate) fn carrier_of(config: &Config, outlives_process: bool) -> Box<dyn Carrier> {
    if uses_kernel_plane(config) {
        return Box::new(IpTunnelCarrier::default());
    }
    Box::new(VethCarrier::new(outlives_process))
}
