//! A check that the tunnel allocates nothing for a datagram, whatever becomes of it. It has a
//! process of its own, because there is one global allocator. It counts per thread, because threads
//! of the test harness allocate too.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use adit_tunnel::{Encapsulated, UnderlayIcmp};
use adit_wire::icmpv4::Icmpv4Error;
use common::*;

struct Counting;

thread_local! {
    /// It has no lazy initialization and no destructor, so that counting does not allocate.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn allocations() -> u64 {
    ALLOCATIONS.get()
}

#[expect(unsafe_code, reason = "allocations cannot be counted in another way")]
// SAFETY: every call goes to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, that is, from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_tunnel_allocates_nothing_for_a_datagram() {
    let gateway = Gateway::default();
    let inner = [
        a_to_b().build(),
        syn(HOST_A, HOST_C).build(),
        a_to_b().len(1600).build(),
        a_to_b().len(1600).df(true).build(),
        a_to_b().ttl(0).build(),
        datagram(HOST_A, STRANGER).build(),
        datagram(STRANGER, HOST_B).build(),
        a_to_b().inside(A, B).build(),
        vec![0x45; 7],
    ];
    let outer = [
        datagram(HOST_B, HOST_A).inside(B, A).build(),
        datagram(HOST_B, HOST_A).tos(1).inside(B, A).tos(2).build(),
        datagram(HOST_C, HOST_A).inside(B, A).build(),
        datagram(HOST_B, HOST_A).inside(STRANGER, A).build(),
        vec![0x45; 30],
    ];
    let ours = a_to_b().len(1000).inside(A, B).df(true).build();
    let messages = [
        icmp(Icmpv4Error::TooBig { mtu: 900 }, &ours, 576),
        icmp(unreachable(0), &ours, 576),
        icmp(unreachable(1), &ours, 28),
        icmp(Icmpv4Error::SourceQuench, &ours, 576),
        vec![0x45; 30],
    ];
    let mut out = [0; adit_tunnel::MAX_REPLY_LEN];

    let before = allocations();
    let mut answered = 0;
    for _ in 0..100 {
        for bytes in &inner {
            if let Encapsulated::Reply { reply, .. } = gateway.encapsulate(bytes) {
                answered += reply.write(bytes, &mut out);
            }
        }
        for bytes in &outer {
            gateway.decapsulate(bytes);
        }
        for message in &messages {
            if let UnderlayIcmp::Relay { reply, offending, .. } = gateway.icmp(message) {
                answered += reply.write(&message[offending], &mut out);
            }
        }
    }
    let allocated = allocations() - before;

    assert!(answered > 0, "nothing was answered, so the test does not cover answers");
    assert_eq!(allocated, 0);
    drop(Box::new(std::hint::black_box(1)));
    assert!(allocations() > before, "the allocator must count allocations");
}
