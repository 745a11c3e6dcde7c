//! Listening on an interface of a host, in the background.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use adit_linux::capture;
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};

use crate::error::LabError;
use crate::host::Host;

const ETHERNET_HEADER: usize = 14;
/// The largest frame that is read whole.
const SNAPLEN: u32 = 70_000;
/// How long the listener goes on after the last frame it waits for might have come.
const LINGER: Duration = Duration::from_millis(20);

/// A frame that passed.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When.
    pub time: SystemTime,
    /// From its link header on.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// The IPv4 datagram in it, if it has one.
    #[must_use]
    pub fn ipv4(&self) -> Option<&[u8]> {
        (self.bytes.get(12..ETHERNET_HEADER)? == [0x08, 0x00]).then(|| &self.bytes[ETHERNET_HEADER..])
    }
}

/// A listener.
pub struct Tap {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Frame>>,
}

impl Tap {
    /// Listens from now on.
    ///
    /// # Errors
    /// No such interface, or not allowed to listen.
    pub fn start(host: &Host, device: &str) -> Result<Self, LabError> {
        let index = host.index(device)?;
        let tap = host.run(|| capture::Tap::open(index))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = host.ns().spawn("lab-tap", move || listen(&tap, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Stops, and gives what was heard.
    #[must_use]
    pub fn finish(self) -> Vec<Frame> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn listen(tap: &capture::Tap, stopped: &AtomicBool) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; SNAPLEN as usize];
    loop {
        match tap.next(&mut buffer, LINGER) {
            Ok(Some((time, len))) => frames.push(Frame { time, bytes: buffer[..len].to_vec() }),
            Ok(None) | Err(_) if stopped.load(Ordering::Relaxed) => return frames,
            Ok(None) => {}
            Err(_) => return frames,
        }
    }
}

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
