//! Situations that gateways meet in practice, as namespaces that tests share.

/// A router inside a site, whose addresses no configuration lists.
pub mod unlisted_router;
