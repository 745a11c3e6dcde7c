//! A sample status for tests.

use crate::state::status::Status;

/// A status with one peer, which is up, and without drops.
pub(crate) fn status() -> Status {
    let status = serde_json::json!({
        "schema": 2,
        "site": {
            "name": "a", "underlay": "10.1.1.1", "device": "ipipA", "dataplane": "userspace",
            "dataplane_reason": "as configured", "mtu": 1480,
        },
        "peers": [{
            "name": "b", "underlay": "10.1.1.2", "networks": ["192.168.199.0/24"], "state": "up",
            "path_mtu": 1500, "tx": { "packets": 3, "bytes": 300 }, "rx": { "packets": 2, "bytes": 200 },
            "last_rx_seconds": 0.5, "soft_state": {
                "path_mtu_from": "underlay", "path_mtu_expires_seconds": null, "probe": "answered",
                "probe_answered_seconds": 0.5, "ttl_seen": 63, "hops": 1, "ttl_needed": 2,
                "unreachable": null, "congestion_experienced": 0,
            },
        }],
        "drops": {},
    });
    serde_json::from_value(status).expect("the sample has the shape of a status")
}
