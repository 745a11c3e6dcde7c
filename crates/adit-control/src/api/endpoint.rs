//! The list of endpoints, from which the routes, the description, and its tests are made.

/// An endpoint of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The overlay as it is now.
    Status,
    /// Every drop reason with its count.
    Drops,
    /// Events as they happen.
    Events,
    /// Metrics for Prometheus.
    Metrics,
    /// The running configuration as a file.
    Config,
    /// Applies a configuration file.
    Apply,
    /// Applies the file again that was applied last.
    Reload,
    /// Keeps a change that waits to be confirmed.
    Confirm,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Status,
        Self::Drops,
        Self::Events,
        Self::Metrics,
        Self::Config,
        Self::Apply,
        Self::Reload,
        Self::Confirm,
    ];

    /// Its path.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Status => "/v1/status",
            Self::Drops => "/v1/drops",
            Self::Events => "/v1/events",
            Self::Metrics => "/v1/metrics",
            Self::Config => "/v1/config",
            Self::Apply => "/v1/apply",
            Self::Reload => "/v1/reload",
            Self::Confirm => "/v1/confirm",
        }
    }

    /// True if it changes something and so takes a POST; false if it takes a GET.
    #[must_use]
    pub const fn is_change(self) -> bool {
        match self {
            Self::Status | Self::Drops | Self::Events | Self::Metrics | Self::Config => false,
            Self::Apply | Self::Reload | Self::Confirm => true,
        }
    }
}
