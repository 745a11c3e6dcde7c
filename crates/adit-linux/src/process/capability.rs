//! The capabilities (`capabilities(7)`) that Adit uses.

/// A capability that Adit uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// CAP_NET_BIND_SERVICE: listen on ports below 1024.
    NetBindService,
    /// CAP_NET_ADMIN: change interfaces, addresses and routes.
    NetAdmin,
    /// CAP_NET_RAW: open raw and packet sockets.
    NetRaw,
    /// CAP_IPC_LOCK: lock more memory than the limit (RLIMIT_MEMLOCK).
    IpcLock,
    /// CAP_SYS_ADMIN: create and enter namespaces.
    SysAdmin,
    /// CAP_PERFMON: load eBPF programs that read packets by pointers.
    Perfmon,
    /// CAP_BPF: create eBPF maps and load eBPF programs.
    Bpf,
}

impl Capability {
    pub(super) fn to_caps(self) -> caps::Capability {
        match self {
            Self::NetBindService => caps::Capability::CAP_NET_BIND_SERVICE,
            Self::NetAdmin => caps::Capability::CAP_NET_ADMIN,
            Self::NetRaw => caps::Capability::CAP_NET_RAW,
            Self::IpcLock => caps::Capability::CAP_IPC_LOCK,
            Self::SysAdmin => caps::Capability::CAP_SYS_ADMIN,
            Self::Perfmon => caps::Capability::CAP_PERFMON,
            Self::Bpf => caps::Capability::CAP_BPF,
        }
    }
}

/// Returns true if `capability` is in effect for the calling thread, in its user namespace.
#[must_use]
pub fn has_capability(capability: Capability) -> bool {
    caps::has_cap(None, caps::CapSet::Effective, capability.to_caps()).unwrap_or(false)
}
