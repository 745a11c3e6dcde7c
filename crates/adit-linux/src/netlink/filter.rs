//! The eBPF programs among the filters of a clsact qdisc (tc-bpf(8)).

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpf, TcFilterBpfOption, TcMessage, TcOption};

use super::Netlink;
use crate::error::Result;

// linux/pkt_sched.h: TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS) and TC_H_MIN_EGRESS.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

/// A filter that is an eBPF program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfFilter {
    /// Its handle, which is unique among filters of the same priority.
    pub handle: u32,
    /// Its priority: filters with a lower number run first.
    pub priority: u16,
    /// The number of the program.
    pub program: u32,
    /// The name that it was attached under; empty if none was given.
    pub name: String,
}

impl Netlink {
    /// Lists the programs among an interface's filters for egress, or for ingress if `egress` is
    /// false. Without a clsact qdisc the list is empty.
    ///
    /// # Errors
    /// The kernel refuses to list the filters.
    pub fn bpf_filters(&mut self, index: u32, egress: bool) -> Result<Vec<BpfFilter>> {
        let mut message = TcMessage::with_index(index.cast_signed());
        message.header.parent = if egress { EGRESS } else { INGRESS }.into();
        let what = || format!("cannot list the filters of interface {index}");
        let answers = self.socket.dump(&RouteNetlinkMessage::GetTrafficFilter(message), what)?;
        Ok(answers.into_iter().filter_map(of_message).collect())
    }
}

fn of_message(message: RouteNetlinkMessage) -> Option<BpfFilter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = message else { return None };
    let is_bpf =
        |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == TcFilterBpf::KIND);
    if !message.attributes.iter().any(is_bpf) {
        return None;
    }
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let program = options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(program)) => Some(*program),
        _ => None,
    })?;
    let name = options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
        _ => None,
    });
    Some(BpfFilter {
        name: name.unwrap_or_default(),
        handle: message.header.handle.into(),
        priority: (message.header.info >> 16) as u16,
        program,
    })
}
