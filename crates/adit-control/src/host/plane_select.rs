//! The choice of the data plane behind a veth pair, and its start.

use std::path::PathBuf;
use std::sync::Arc;

use adit_config::DataplaneChoice;
use adit_dataplane::ebpf::{self, EbpfError, EbpfOptions, EbpfPlane};
use adit_dataplane::userspace::UserspacePlane;

use super::{PlaneRequest, StartedPlane};
use crate::error::ControlError;

const AS_CONFIGURED: &str = "as configured";

/// Starts the data plane that a request asks for.
pub(super) struct PlaneStarter<'a> {
    pub(super) request: &'a PlaneRequest<'a>,
}

impl PlaneStarter<'_> {
    /// Starts the chosen data plane. With `auto` userspace forwards if eBPF cannot.
    pub(super) fn start(&self) -> Result<StartedPlane, ControlError> {
        // Without a BPF file system there is no eBPF plane. Only a request for eBPF fails then.
        let pins = self.request.pins.map(ebpf::pins_of);
        if self.request.choice == DataplaneChoice::Userspace {
            return self.start_userspace(AS_CONFIGURED.to_owned(), pins.and_then(Result::ok));
        }
        let must_be_ebpf = self.request.choice == DataplaneChoice::Ebpf;
        let pins = match pins.transpose() {
            Ok(pins) => pins,
            Err(error) if must_be_ebpf => return Err(error.into()),
            Err(error) => return self.fall_back(&error, None),
        };
        match self.start_ebpf(must_be_ebpf, pins.clone()) {
            Err(error) if must_be_ebpf => Err(error.into()),
            Err(error) => self.fall_back(&error, pins),
            Ok(started) => Ok(started),
        }
    }

    fn start_ebpf(&self, must_be_ebpf: bool, pins: Option<PathBuf>) -> Result<StartedPlane, EbpfError> {
        let is_pinned = pins.is_some();
        let options = EbpfOptions { pins, ..EbpfOptions::default() };
        let PlaneRequest { tunnel, interface, underlay, .. } = self.request;
        let plane = EbpfPlane::start(Arc::clone(tunnel), interface, *underlay, &options)?;
        let why = if must_be_ebpf { AS_CONFIGURED } else { "auto: this kernel takes the programs" };
        let reason = format!("{why}, attached by {}", plane.hook().as_str());
        Ok(StartedPlane { plane: Box::new(plane), reason, is_pinned })
    }

    fn fall_back(&self, error: &EbpfError, pins: Option<PathBuf>) -> Result<StartedPlane, ControlError> {
        tracing::warn!(%error, "the eBPF data plane cannot be used; userspace forwards");
        self.start_userspace(format!("auto: not ebpf, {error}"), pins)
    }

    fn start_userspace(&self, reason: String, pins: Option<PathBuf>) -> Result<StartedPlane, ControlError> {
        let PlaneRequest { tunnel, interface, underlay, .. } = self.request;
        let plane = UserspacePlane::start(Arc::clone(tunnel), interface, *underlay)?;
        // Programs of an earlier start would go on forwarding by an old configuration.
        if let Some(pins) = &pins {
            ebpf::remove_pins(pins)?;
        }
        Ok(StartedPlane { plane: Box::new(plane), reason, is_pinned: false })
    }
}

/// A queue for every two processors, at most four: each queue has one thread for each direction.
pub(crate) fn queues() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, 4)
}
