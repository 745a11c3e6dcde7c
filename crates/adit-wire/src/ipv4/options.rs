//! The options of an IPv4 header, RFC 791 section 3.1.

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;

/// An option whose length does not fit in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MalformedOption;

/// An iterator over the options of a header, each with its type and length octets. It leaves
/// padding out, and ends after a malformed option.
#[derive(Debug, Clone)]
pub(crate) struct Ipv4Options<'a> {
    rest: &'a [u8],
}

impl<'a> Ipv4Options<'a> {
    pub(crate) fn new(options: &'a [u8]) -> Ipv4Options<'a> {
        Ipv4Options { rest: options }
    }
}

impl<'a> Iterator for Ipv4Options<'a> {
    type Item = Result<&'a [u8], MalformedOption>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.rest {
                [] | [OPTION_END, ..] => return None,
                [OPTION_NOP, ref rest @ ..] => self.rest = rest,
                [_, len, ..] if len >= 2 => {
                    let Some((option, rest)) = self.rest.split_at_checked(usize::from(len)) else {
                        break;
                    };
                    self.rest = rest;
                    return Some(Ok(option));
                }
                _ => break,
            }
        }
        self.rest = &[];
        Some(Err(MalformedOption))
    }
}
