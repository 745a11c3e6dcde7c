//! Captures as pcapng files, for Wireshark and tshark. The one module that knows the library which
//! writes them.

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

/// Writes frames as pcapng.
///
/// # Errors
/// The file cannot be written.
pub fn write_pcapng(path: &Path, device: &str, frames: &[Frame]) -> Result<(), LabError> {
    write_interfaces(path, &[(device, frames)])
}

/// Writes the frames of several interfaces as one pcapng, in the order in which they passed.
///
/// # Errors
/// The file cannot be written.
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
