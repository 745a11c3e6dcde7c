//! The kernel's packet buffer: reads and writes headers, and redirects the packet.

use core::ffi::c_void;
use core::mem::size_of;
use core::net::{Ipv4Addr, Ipv6Addr};

use adit_policy::GsoInfo;
use adit_wire::Protocol;
use adit_wire::{ipv4, ipv6, tcp};
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
    BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_F_INGRESS,
    bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
};
use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room, bpf_skb_change_proto,
    bpf_skb_change_type, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
const PACKET_HOST: u32 = 0;
const PACKET_OTHERHOST: u32 = 3;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// `-EINVAL`.
const INVALID: i64 = -22;

/// A packet of the kernel, as programs see it.
#[derive(Clone, Copy)]
pub struct Skb(*mut __sk_buff);

/// What kind of IP packet it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// Bytes of its header.
    #[inline(always)]
    pub const fn header_len(self) -> usize {
        match self {
            Family::V4 => ipv4::HEADER_LEN,
            Family::V6 => ipv6::HEADER_LEN,
        }
    }

    /// What an Ethernet header says of it.
    #[inline(always)]
    const fn ethertype(self) -> u16 {
        match self {
            Family::V4 => 0x0800,
            Family::V6 => 0x86dd,
        }
    }
}

/// The next hop towards a peer, of the outer header's family.
#[derive(Clone, Copy)]
pub enum NextHop {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl Skb {
    #[inline(always)]
    pub fn of(context: &TcContext) -> Skb {
        Skb(context.skb.skb)
    }

    #[inline(always)]
    fn fields(&self) -> &__sk_buff {
        // SAFETY: the kernel passes the context in; it is valid as long as the program runs.
        unsafe { &*self.0 }
    }

    /// Bytes of the whole packet, link header included.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        self.fields().len
    }

    /// Whether it is a packet of that family to the kernel.
    #[inline(always)]
    pub fn is_of(&self, family: Family) -> bool {
        self.fields().protocol == u32::from(family.ethertype().to_be())
    }

    /// Whether the packet is for this host and on this interface itself, not on a VLAN above it.
    #[inline(always)]
    pub fn is_for_us(&self) -> bool {
        self.fields().pkt_type == PACKET_HOST && self.is_untagged()
    }

    /// Whether the packet has no VLAN tag.
    #[inline(always)]
    pub fn is_untagged(&self) -> bool {
        self.fields().vlan_present == 0
    }

    /// Marks the packet as another host's. Packet sockets still get it, and the host's IP input
    /// does not. The IP input does not know the tunnel: where the kernel's own tunnel drivers are
    /// loaded (`tunnel4`), it would answer the peer with Port Unreachable, despite the raw socket.
    #[inline(always)]
    pub fn leave_to_packet_sockets(&self) {
        // SAFETY: numbers only. If the kernel refuses, the packet keeps its mark.
        unsafe { bpf_skb_change_type(self.0, PACKET_OTHERHOST) };
    }

    /// Whether the first `end` bytes can be read directly. Pulls them together if they are
    /// scattered.
    #[inline(always)]
    pub fn reach(&self, end: usize) -> bool {
        let fields = self.fields();
        if fields.data as usize + end <= fields.data_end as usize {
            return true;
        }
        // SAFETY: the kernel checks the length. All pointers into the packet are made anew after
        // this.
        (fields.len as usize >= end) && unsafe { bpf_skb_pull_data(self.0, end as u32) } == 0
    }

    /// The words at `offset`, if they can be read directly.
    #[inline(always)]
    pub fn load_words<W: Copy>(&self, offset: usize) -> Option<W> {
        // SAFETY: the bytes lie before the packet's end. Headers are four-byte aligned, and the
        // machines whose kernel has a just-in-time compiler do not require alignment.
        self.pointer::<W>(offset).map(|words| unsafe { *words })
    }

    /// Writes words at `offset`. Returns `None` if they cannot be written directly.
    #[inline(always)]
    pub fn store_words<W: Copy>(&self, offset: usize, words: W) -> Option<()> {
        // SAFETY: as for `load_words`; the kernel has made sure that these bytes may be written.
        self.pointer::<W>(offset).map(|place| unsafe { *place = words })
    }

    /// The header of an ICMP echo at `offset`, if it can be read directly.
    #[inline(always)]
    pub fn echo_header(&self, offset: usize) -> Option<[u8; 8]> {
        self.load_words::<[u32; 2]>(offset).map(|words| zerocopy::transmute!(words))
    }

    /// The byte at `offset`, if it can be read directly.
    #[inline(always)]
    pub fn byte(&self, offset: usize) -> Option<u8> {
        self.load_words(offset)
    }

    #[inline(always)]
    fn pointer<T>(&self, offset: usize) -> Option<*mut T> {
        let fields = self.fields();
        let start = fields.data as usize + offset;
        (start + size_of::<T>() <= fields.data_end as usize).then_some(start as *mut T)
    }

    /// How the kernel will segment the packet, whose transport header of that protocol is at
    /// `transport`. Returns `None` for a kind of GSO packet that the programs do not carry.
    #[inline(always)]
    pub fn gso(&self, protocol: Protocol, transport: usize) -> Option<GsoInfo> {
        let gso_size = self.fields().gso_size;
        if gso_size == 0 {
            return Some(GsoInfo { gso_size, transport_header: 0 });
        }
        let data_offset = match protocol {
            Protocol::TCP => self.byte(transport + tcp::DATA_OFFSET_OFFSET)?,
            _ => 0,
        };
        let transport_header = adit_policy::transport_header(protocol, data_offset)?;
        Some(GsoInfo { gso_size, transport_header })
    }

    /// Copies 1 to 64 bytes, wherever the kernel keeps them.
    #[inline(always)]
    pub fn load(&self, offset: usize, bytes: &mut [u8; 64], len: usize) -> Option<()> {
        // The compiler knows the bounds of `len` and would leave out the check that the verifier
        // needs. The verifier of Linux 6.1 follows a mask but not a comparison.
        let len = (core::hint::black_box(len).wrapping_sub(1) & 63) + 1;
        let to = bytes.as_mut_ptr().cast::<c_void>();
        // SAFETY: `to` has room for `len` bytes, as the mask ensures.
        (unsafe { bpf_skb_load_bytes(self.0.cast(), offset as u32, to, len as u32) } == 0).then_some(())
    }

    /// Writes a word at an even byte of a transport segment and updates the checksum at offset
    /// `checksum`. The kernel knows whether that checksum is complete or left to the device.
    #[inline(always)]
    pub fn set_word(&self, offset: usize, checksum: usize, old: u16, new: u16) -> Option<()> {
        let order = |word: u16| u64::from(word.to_be());
        // SAFETY: the kernel checks the offsets.
        let mended = unsafe { bpf_l4_csum_replace(self.0, checksum as u32, order(old), order(new), 2) } == 0;
        let bytes = new.to_be_bytes();
        // SAFETY: the helper reads two bytes, and `bytes` has two.
        let written =
            mended && unsafe { bpf_skb_store_bytes(self.0, offset as u32, bytes.as_ptr().cast(), 2, 0) } == 0;
        written.then_some(())
    }

    /// Makes room for an outer header before the network header. A GSO packet stays one.
    #[inline(always)]
    pub fn push_outer(&self, outer: Family) -> Option<()> {
        let kind = match outer {
            Family::V4 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
            Family::V6 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
        };
        let flags = u64::from(kind | BPF_F_ADJ_ROOM_FIXED_GSO);
        let len = outer.header_len() as i32;
        // SAFETY: the kernel checks the arguments. All pointers into the packet are made anew after
        // this.
        (unsafe { bpf_skb_adjust_room(self.0, len, BPF_ADJ_ROOM_MAC, flags) } == 0).then_some(())
    }

    /// Removes the outer header in front of an inner one, of whose family the packet is then to the
    /// kernel too. If a device verified a transport checksum, it was the inner one: the outer
    /// header has no checksum beyond its own. `None`: the packet is as it was. `Some(false)`: it
    /// has been changed, and can be no further.
    ///
    /// To remove a header of the other family there is a flag since Linux 6.3. Before, the kernel
    /// first makes a packet of the inner family of it, which only changes the room before the inner
    /// header to that of such a header.
    #[inline(always)]
    pub fn pop_outer(&self, outer: Family, inner: Family) -> Option<bool> {
        if outer == inner {
            return (self.shrink(outer.header_len(), 0) == 0).then_some(true);
        }
        let flag = match inner {
            Family::V4 => BPF_F_ADJ_ROOM_DECAP_L3_IPV4,
            Family::V6 => BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
        };
        let is_whole = match self.shrink(outer.header_len(), flag) {
            0 => true,
            // No older kernel knows the flag, and no newer one has another reason to say so.
            INVALID => {
                // SAFETY: numbers only. All pointers into the packet are made anew after this.
                if unsafe { bpf_skb_change_proto(self.0, inner.ethertype().to_be(), 0) } != 0 {
                    return None;
                }
                self.shrink(inner.header_len(), 0) == 0
            }
            _ => return None,
        };
        Some(is_whole && self.store_words(ETHERNET - 2, inner.ethertype().to_be()).is_some())
    }

    #[inline(always)]
    fn shrink(&self, by: usize, flag: u32) -> i64 {
        let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET | flag);
        // SAFETY: as above.
        unsafe { bpf_skb_adjust_room(self.0, -(by as i32), BPF_ADJ_ROOM_MAC, flags) }
    }

    /// Sends the packet by an interface to a next hop, with this firewall mark unless it is 0. The
    /// kernel resolves the next hop's link-layer address and queues the packet meanwhile.
    #[inline(always)]
    pub fn send_to(&self, device: u32, next_hop: NextHop, mark: u32) {
        if mark != 0 {
            // SAFETY: as for `fields`; a program may write this field.
            unsafe { (*self.0).mark = mark };
        }
        let (nh_family, ipv6_nh) = match next_hop {
            NextHop::V4(address) => (AF_INET, [address.to_bits().to_be(), 0, 0, 0]),
            NextHop::V6(address) => (AF_INET6, zerocopy::transmute!(address.octets())),
        };
        let __bindgen_anon_1 = bpf_redir_neigh__bindgen_ty_1 { ipv6_nh };
        let mut hop = bpf_redir_neigh { nh_family, __bindgen_anon_1 };
        // SAFETY: `hop` is initialised and outlives the call. The helper only records its
        // arguments.
        unsafe { bpf_redirect_neigh(device, &mut hop, size_of::<bpf_redir_neigh>() as i32, 0) };
    }

    /// Writes both link-layer addresses of the Ethernet header. Returns `None` if they cannot be
    /// written directly.
    #[inline(always)]
    pub fn set_addresses(&self, addresses: &[u8; 12]) -> Option<()> {
        let words: [u32; 3] = zerocopy::transmute!(*addresses);
        // SAFETY: as for `store_words`; these machines do not require alignment.
        self.pointer::<[u32; 3]>(0).map(|place| unsafe { place.write_unaligned(words) })
    }

    /// Sends the packet by the interface `device`.
    #[inline(always)]
    pub fn transmit_on(&self, device: u32) {
        // SAFETY: numbers only.
        unsafe { bpf_redirect(device, 0) };
    }

    /// Gives the packet to the host's stack as if it had arrived on `device`.
    #[inline(always)]
    pub fn receive_on(&self, device: u32) {
        // SAFETY: numbers only.
        unsafe { bpf_redirect(device, u64::from(BPF_F_INGRESS)) };
    }
}
