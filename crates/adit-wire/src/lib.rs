//! Headers, checksums and the encapsulation of RFC 2003, without I/O or allocation.
#![no_std]
