//! The tunnel as a pure function: peers, policy, path MTU, ICMP, drop reasons.
