use adit_wire::Protocol;
use adit_wire::checksum::{self, Sum};
use proptest::prelude::*;

use crate::packets::{A, B};

/// RFC 1071 section 3: the example's words and their sum.
#[test]
fn rfc1071_s3_the_example_sums_to_ddf2() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(checksum::sum(&bytes).fold(), 0xddf2);
    assert_eq!(checksum::checksum(&bytes), !0xddf2);
}

#[test]
fn rfc1071_s1_an_odd_byte_is_the_high_half_of_a_word() {
    assert_eq!(checksum::sum(&[0x12]).fold(), 0x1200);
    assert_eq!(checksum::sum(&[0, 1, 0x12]).fold(), 0x1201);
}

#[test]
fn rfc1071_s2_deferred_carries_are_all_added_back() {
    // Enough of the greatest words that folding carries more than once.
    let bytes = vec![0xff; 65_534];
    assert_eq!(checksum::sum(&bytes).fold(), 0xffff);
    let sum = (0..70_000).fold(Sum::ZERO, |sum, _| sum.add_word(0xffff));
    assert_eq!(sum.fold(), 0xffff);
}

/// RFC 1624 section 4: with equation 2 of RFC 1141 this example gives 0xffff.
#[test]
fn rfc1624_s4_the_example_gives_0000_and_not_ffff() {
    assert_eq!(checksum::update(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn rfc1624_s3_corner_cases_of_the_two_zeros() {
    for (words, at, new) in [
        // The sum becomes 0xffff: the checksum is 0x0000.
        ([0xcd7a_u16, 0x5555], 1, 0x3285),
        ([0x0000, 0x0001], 1, 0xffff),
        ([0x0000, 0xffff], 1, 0x0001),
        // From one representation of zero to the other, beside other data.
        ([0x1234, 0x0000], 1, 0xffff),
        ([0x1234, 0xffff], 1, 0x0000),
        // No change at all.
        ([0x1234, 0xffff], 1, 0xffff),
        ([0xffff, 0x0000], 0, 0xffff),
    ] {
        let full = |words: [u16; 2]| Sum::ZERO.add_word(words[0]).add_word(words[1]).checksum();
        let mut changed = words;
        changed[at] = new;
        assert_eq!(
            checksum::update(full(words), words[at], new),
            full(changed),
            "{words:04x?} to {changed:04x?}"
        );
    }
}

#[test]
fn rfc9293_s3_1_the_pseudo_header_has_addresses_protocol_and_length() {
    let mut bytes = Vec::new();
    bytes.extend(A.octets());
    bytes.extend(B.octets());
    bytes.extend([0, 6, 0x12, 0x34]);
    let sum = checksum::pseudo_header_v4(A, B, Protocol::TCP, 0x1234);
    assert_eq!(sum.fold(), checksum::sum(&bytes).fold());
}

proptest! {
    #[test]
    fn rfc1071_sum_is_etherparses(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let theirs = etherparse::checksum::Sum16BitWords::new().add_slice(&bytes).ones_complement();
        // It gives the checksum in memory order.
        prop_assert_eq!(checksum::checksum(&bytes), u16::from_be(theirs));
    }

    #[test]
    fn rfc1624_s3_update_is_what_a_full_computation_gives(
        mut words in prop::collection::vec(prop_oneof![Just(0), Just(0xffff), any::<u16>()], 2..12),
        at in any::<prop::sample::Index>(),
        new in prop_oneof![Just(0_u16), Just(0xffff), any::<u16>()],
    ) {
        // A header begins with a version: its words are never all zero.
        words[0] |= 0x4000;
        let at = at.index(words.len() - 1) + 1;
        let full = |words: &[u16]| words.iter().fold(Sum::ZERO, |sum, &word| sum.add_word(word)).checksum();
        let before = full(&words);
        let old = std::mem::replace(&mut words[at], new);
        prop_assert_eq!(checksum::update(before, old, new), full(&words));
    }
}
