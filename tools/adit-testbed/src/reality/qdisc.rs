//! An operator's qdisc on an interface: a shaper, classes with rates of their own, or fair queues.

use adit_lab::LabError;
use adit_lab::host::Host;

/// A qdisc at the root of an interface. Dropping it leaves it in place.
pub struct Qdisc {
    host: Host,
    device: String,
}

impl Qdisc {
    /// Limits what the interface sends to 1 Mbit/s.
    ///
    /// # Errors
    /// Fails if `tc` refuses it.
    pub fn shaper(host: &Host, device: &str) -> Result<Self, LabError> {
        Self::replace(host, device, "tbf rate 1mbit burst 10kb latency 50ms")
    }

    /// Two classes: 4 Mbit/s for what has this destination port, and 1 Mbit/s for the rest.
    ///
    /// # Errors
    /// Fails if `tc` refuses a part of it.
    pub fn classes(host: &Host, device: &str, port: u16) -> Result<Self, LabError> {
        let qdisc = Self::replace(host, device, "handle 1: htb default 10")?;
        qdisc.tc(&format!("class add dev {device} parent 1: classid 1:10 htb rate 1mbit ceil 1mbit"))?;
        qdisc.tc(&format!("class add dev {device} parent 1: classid 1:20 htb rate 4mbit ceil 4mbit"))?;
        let matching = format!("u32 match ip dport {port} 0xffff flowid 1:20");
        qdisc.tc(&format!("filter add dev {device} parent 1: protocol ip {matching}"))?;
        Ok(qdisc)
    }

    /// Fair queues. [`crate::needs::fq_codel`] says whether the kernel has them.
    ///
    /// # Errors
    /// Fails if `tc` refuses it.
    pub fn fq_codel(host: &Host, device: &str) -> Result<Self, LabError> {
        Self::replace(host, device, "fq_codel")
    }

    fn replace(host: &Host, device: &str, kind: &str) -> Result<Self, LabError> {
        let qdisc = Self { host: host.clone(), device: device.to_owned() };
        qdisc.tc(&format!("qdisc replace dev {device} root {kind}"))?;
        Ok(qdisc)
    }

    fn tc(&self, arguments: &str) -> Result<(), LabError> {
        self.host.program("tc", &arguments.split(' ').collect::<Vec<_>>())
    }

    /// Deletes the qdisc with its classes.
    ///
    /// # Errors
    /// Fails if it is not there any more.
    pub fn remove(self) -> Result<(), LabError> {
        self.tc(&format!("qdisc delete dev {} root", self.device))
    }
}
