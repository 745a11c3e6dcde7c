//! An operator's nf_tables rules on a gateway. Some hold for what the tunnel carries, others are in
//! chains that outer frames pass by. All but `TRACKING` are in a table `fw`.

use adit_lab::LabError;
use adit_lab::host::Host;
use ipnet::Ipv4Net;

const FORWARD: &str = "type filter hook forward priority 0;";

/// A chain in FORWARD that drops everything by its policy.
pub const FORWARD_POLICY_DROP: &str =
    "table inet fw { chain f { type filter hook forward priority 0; policy drop; }; }";
/// A chain in FORWARD with a rule that accepts everything.
pub const FORWARD_ACCEPT: &str =
    "table inet fw { chain f { type filter hook forward priority 0; accept; }; }";
/// A chain in OUTPUT with a rule that drops IP in IP.
pub const OUTPUT_DROP_IPIP: &str =
    "table ip fw { chain out { type filter hook output priority 0; ip protocol 4 drop; }; }";
/// A chain in FORWARD that matches on connection state, which makes the kernel track connections
/// and reassemble fragments.
pub const TRACKING: &str = "
table ip filter {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        ct state new accept
    }
}
";

/// Chains in FORWARD that drop what passes from one network behind the tunnel interface `device` to
/// another, in the ways in which firewalls do it: by addresses, by interfaces, by policy.
#[must_use]
pub fn forward_drops(from: Ipv4Net, to: Ipv4Net, device: &str) -> [String; 3] {
    [
        format!("table ip fw {{ chain f {{ {FORWARD} ip saddr {from} ip daddr {to} drop; }}; }}"),
        format!("table inet fw {{ chain f {{ {FORWARD} iifname {device} oifname {device} drop; }}; }}"),
        FORWARD_POLICY_DROP.to_owned(),
    ]
}

/// Takes all rules away.
///
/// # Errors
/// Fails if `nft` is not installed.
pub fn flush(host: &Host) -> Result<(), LabError> {
    host.load_nftables("flush ruleset")
}
