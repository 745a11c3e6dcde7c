//! Filters of the clsact qdisc that are BPF programs (tc-bpf(8)).

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpf, TcFilterBpfOption, TcMessage, TcOption};

use super::Netlink;
use crate::error::Result;

// linux/pkt_sched.h: TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS) and TC_H_MIN_EGRESS.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

/// A program that is a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfFilter {
    /// What tells it apart from others of the same priority.
    pub handle: u32,
    /// Where it stands among others: the lowest first.
    pub priority: u16,
    /// The program's number.
    pub program: u32,
}

impl Netlink {
    /// The programs among the filters for what leaves by an interface (`egress`), or for what comes in. None where
    /// there is no such qdisc.
    ///
    /// # Errors
    /// What the kernel says.
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
    Some(BpfFilter {
        handle: message.header.handle.into(),
        priority: (message.header.info >> 16) as u16,
        program,
    })
}
