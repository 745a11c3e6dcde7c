//! A stateful firewall between the gateways: datagrams towards gateway A pass only as long as the
//! firewall remembers that gateway A has sent some.

use std::time::Duration;

use adit_lab::LabError;
use adit_lab::router::Rule;
use adit_lab::two_sites::TwoSites;

/// Puts the firewall on the router. It forgets a flow that was idle for `timeout`, which is whole
/// seconds.
///
/// # Errors
/// Fails if `nft` refuses the rule, or if the kernel has no connection tracking.
pub fn protect_a(sites: &TwoSites, timeout: Duration) -> Result<Rule, LabError> {
    let rule = sites.router.drop_new_flows("toB")?;
    // That of protocols without ports, such as IP in IP; the kernel's own is 10 minutes.
    let seconds = timeout.as_secs().to_string();
    sites.router.sysctl("netfilter/nf_conntrack_generic_timeout", &seconds)?;
    Ok(rule)
}
