//! Captures as pcapng files, for Wireshark, tcpdump and scapy.
//!
//! Only this module uses the `pcap-file` library. A release candidate of it is pinned, because it
//! is the best writer of pcapng in Rust today. The last stable release, 2.0.0, ignores the
//! timestamp resolution that an interface declares, always writes nanoseconds, and needs old
//! versions of syn and thiserror. `pcapng-writer` 0.1.0 has had no release since its first. tcpdump
//! and scapy read what this module writes in `end_to_end::interop` of adit-testbed.

use std::path::Path;
use std::time::SystemTime;

use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};

use crate::capture::{Frame, SNAPLEN};
use crate::error::LabError;

/// Writes the frames of one interface as a pcapng file, with times in nanoseconds.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_pcapng(path: &Path, device: &str, frames: &[Frame]) -> Result<(), LabError> {
    write_interfaces(path, &[(device, frames)])
}

/// Writes the frames of several interfaces, each with its name, as one pcapng file in the order of
/// their times.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_interfaces(path: &Path, interfaces: &[(&str, &[Frame])]) -> Result<(), LabError> {
    let what = format!("write {}", path.display());
    let file = std::fs::File::create(path).map_err(LabError::io(&what))?;
    write_blocks(std::io::BufWriter::new(file), interfaces)
        .map_err(|error| LabError::Io { what, source: std::io::Error::other(error) })
}

fn write_blocks(
    out: impl std::io::Write,
    interfaces: &[(&str, &[Frame])],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut writer = PcapNgWriter::new(out)?;
    let mut all = Vec::new();
    for (number, (device, frames)) in (0u32..).zip(interfaces) {
        let mut interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, SNAPLEN);
        interface.options.push(InterfaceDescriptionOption::IfName((*device).into()));
        interface.options.push(InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::new(false, 9)?));
        writer.write_pcapng_block(interface)?;
        all.extend(frames.iter().map(|frame| (number, frame)));
    }
    all.sort_by_key(|(_, frame)| frame.time);
    for (interface_id, frame) in all {
        writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id,
            timestamp: frame.time.duration_since(SystemTime::UNIX_EPOCH)?,
            original_len: frame.bytes.len() as u32,
            data: frame.bytes.as_slice().into(),
            options: Vec::new(),
        })?;
    }
    writer.into_inner().flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    fn frame(nanoseconds: u64, byte: u8) -> Frame {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds);
        Frame { time, bytes: vec![byte; 60] }
    }

    #[test]
    fn interfaces_have_names_and_frames_are_in_the_order_of_their_times() {
        const START: u64 = 1_700_000_000_000_000_000;
        let (first, second) = ([frame(START + 1, 1), frame(START + 1_000_000_003, 3)], [frame(START + 2, 2)]);
        let mut file = Vec::new();
        write_blocks(&mut file, &[("toA", &first), ("toB", &second)]).unwrap();
        let mut reader = PcapNgReader::new(&file[..]).unwrap();
        let (mut names, mut frames) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block.unwrap().0 {
                Block::InterfaceDescription(interface) => {
                    names.extend(interface.options.iter().filter_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                        _ => None,
                    }));
                }
                Block::EnhancedPacket(packet) => {
                    frames.push((packet.interface_id, packet.timestamp.as_nanos() as u64, packet.data[0]));
                }
                _ => {}
            }
        }
        assert_eq!(names, ["toA", "toB"]);
        assert_eq!(frames, [(0, START + 1, 1), (1, START + 2, 2), (0, START + 1_000_000_003, 3)]);
    }
}
