//! Routers: hosts that forward, with NAT, filters, limits and the faults of real routers.
//!
//! Every change is a [`Rule`] that can be taken back, so that a test can break a path and mend it.
//! Filters and NAT run `nft` (nftables), limits run `tc`, and rules for the router's own packets
//! run `ip` (both iproute2).

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::LabError;
use crate::host::Host;

/// A host that forwards IPv4. It dereferences to its [`Host`], which has its interfaces and routes.
#[derive(Clone)]
pub struct Router {
    host: Host,
}

impl Deref for Router {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Router {
    /// A router without interfaces.
    ///
    /// # Errors
    /// Fails without the right to make network namespaces.
    pub fn new(name: &str) -> Result<Self, LabError> {
        let host = Host::new(name)?;
        host.forward()?;
        Ok(Self { host })
    }

    /// Answers ARP on `port` for all addresses that it routes through other ports. Hosts on both
    /// sides can then share a subnet and need no route to the router.
    ///
    /// # Errors
    /// Fails if there is no such interface.
    pub fn proxy_arp(&self, port: &str) -> Result<(), LabError> {
        self.sysctl(&format!("ipv4/conf/{port}/proxy_arp"), "1")?;
        // By default the kernel delays a proxied answer by up to 0.8 s.
        self.sysctl(&format!("ipv4/neigh/{port}/proxy_delay"), "0")
    }

    /// Lowers the MTU of `port` to `mtu` bytes. The router refuses longer datagrams with an ICMP
    /// error, or fragments them where DF is clear.
    ///
    /// # Errors
    /// Fails if there is no such interface or the kernel refuses the MTU.
    pub fn limit_mtu(&self, port: &str, mtu: u32) -> Result<Rule, LabError> {
        let before = self
            .netlink()?
            .link(port)?
            .map(|link| link.mtu)
            .ok_or_else(|| LabError::NoInterface { host: self.name().to_owned(), device: port.to_owned() })?;
        self.mtu(port, mtu)?;
        Ok(self.rule(vec![Undo::Mtu { port: port.to_owned(), mtu: before }]))
    }

    /// Drops datagrams longer than `mtu` bytes on `port` without an ICMP error to any of `senders`.
    /// Such a router breaks path MTU discovery (RFC 2923 section 2.1).
    ///
    /// # Errors
    /// Fails if there is no such interface or `ip` refuses a rule.
    pub fn black_hole(&self, port: &str, mtu: u32, senders: &[Ipv4Addr]) -> Result<Rule, LabError> {
        // No datagram may meet the lower MTU while the router still answers.
        let mut rule = self.drop_own_packets_to(senders)?;
        rule.undo.extend(self.limit_mtu(port, mtu)?.undo);
        Ok(rule)
    }

    /// Drops what the router itself sends to these addresses, such as ICMP errors. It still
    /// forwards datagrams to them.
    ///
    /// # Errors
    /// Fails if `ip` refuses a rule.
    pub fn drop_own_packets_to(&self, addresses: &[Ipv4Addr]) -> Result<Rule, LabError> {
        let mut rule = self.rule(Vec::new());
        for address in addresses {
            // The kernel looks up a host's own packets as if they came in by the loopback
            // interface.
            let words = |verb: &str| format!("rule {verb} iif lo to {address} blackhole");
            self.run_program("ip", &words("add"))?;
            rule.undo.push(Undo::Program("ip", words("del")));
        }
        Ok(rule)
    }

    /// Drops forwarded datagrams of an IP protocol.
    ///
    /// # Errors
    /// Fails if `nft` refuses the rule.
    pub fn drop_protocol(&self, protocol: u8) -> Result<Rule, LabError> {
        self.filter(&format!("ip protocol {protocol} drop"))
    }

    /// Drops forwarded ICMP errors: Destination Unreachable (which includes Datagram Too Big), Time
    /// Exceeded and Parameter Problem. Echo requests and replies still pass.
    ///
    /// # Errors
    /// Fails if `nft` refuses the rule.
    pub fn drop_icmp_errors(&self) -> Result<Rule, LabError> {
        self.filter("icmp type { destination-unreachable, time-exceeded, parameter-problem } drop")
    }

    /// Drops what comes in by `port`, unless it belongs to a flow that has begun on another side.
    ///
    /// # Errors
    /// Fails if `nft` refuses the rule.
    pub fn drop_new_flows(&self, port: &str) -> Result<Rule, LabError> {
        self.filter(&format!("iifname \"{port}\" ct state new drop"))
    }

    /// Translates the source of everything that leaves by `port` to that port's address.
    ///
    /// # Errors
    /// Fails if `nft` refuses the rule.
    pub fn masquerade(&self, port: &str) -> Result<Rule, LabError> {
        let chain = "type nat hook postrouting priority srcnat";
        self.table(&format!("chain nat {{ {chain}; oifname \"{port}\" masquerade; }}"))
    }

    /// Maps an address to another one by 1:1 NAT: hosts beyond `port` reach `inner` as `outer`.
    ///
    /// # Errors
    /// Fails if `nft` refuses the rules.
    pub fn map_address(&self, port: &str, inner: Ipv4Addr, outer: Ipv4Addr) -> Result<Rule, LabError> {
        self.table(&format!(
            "chain inbound {{
                type nat hook prerouting priority dstnat;
                iifname \"{port}\" ip daddr {outer} dnat to {inner};
            }}
            chain outbound {{
                type nat hook postrouting priority srcnat;
                oifname \"{port}\" ip saddr {inner} snat to {outer};
            }}"
        ))
    }

    /// Limits what leaves by `port` to a rate in kilobits a second, with a token bucket that queues
    /// up to 50 ms.
    ///
    /// # Errors
    /// Fails if `tc` refuses the queue.
    pub fn limit_rate(&self, port: &str, kbit: u32) -> Result<Rule, LabError> {
        self.run_program(
            "tc",
            &format!("qdisc add dev {port} root tbf rate {kbit}kbit burst 16kb latency 50ms"),
        )?;
        Ok(self.rule(vec![Undo::Program("tc", format!("qdisc del dev {port} root"))]))
    }

    fn filter(&self, statement: &str) -> Result<Rule, LabError> {
        let chain = "type filter hook forward priority filter";
        self.table(&format!("chain forward {{ {chain}; {statement}; }}"))
    }

    /// Loads a table of nftables rules with a name that no other rule uses.
    fn table(&self, chains: &str) -> Result<Rule, LabError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("lab{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.load_nftables(&format!("table ip {name} {{\n{chains}\n}}\n"))?;
        Ok(self.rule(vec![Undo::Program("nft", format!("delete table ip {name}"))]))
    }

    fn run_program(&self, program: &str, words: &str) -> Result<(), LabError> {
        self.program(program, &words.split(' ').collect::<Vec<_>>())
    }

    fn rule(&self, undo: Vec<Undo>) -> Rule {
        Rule { router: self.clone(), undo }
    }
}

/// A change to a router, in force until [`Rule::remove`]. Dropping it leaves it in force.
#[must_use = "a rule can only be removed by its owner"]
pub struct Rule {
    router: Router,
    /// How to take it back, in the order in which it was made.
    undo: Vec<Undo>,
}

enum Undo {
    Mtu { port: String, mtu: u32 },
    Program(&'static str, String),
}

impl Rule {
    /// Takes the change back.
    ///
    /// # Errors
    /// Fails if the kernel or a program refuses a step. The remaining steps are not taken.
    pub fn remove(mut self) -> Result<(), LabError> {
        while let Some(step) = self.undo.pop() {
            match step {
                Undo::Mtu { port, mtu } => self.router.mtu(&port, mtu)?,
                Undo::Program(program, words) => self.router.run_program(program, &words)?,
            }
        }
        Ok(())
    }
}
