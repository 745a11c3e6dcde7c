//! The choice of the data plane behind a veth pair, and its start.

use std::sync::Arc;

use adit_config::DataplaneChoice;
use adit_dataplane::ebpf::{self, EbpfError, EbpfOptions, EbpfPlane, Persistence};
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
        let persistence = self.persistence();
        if self.request.choice == DataplaneChoice::Userspace {
            return self.start_userspace(AS_CONFIGURED.to_owned(), persistence.ok());
        }
        let must_be_ebpf = self.request.choice == DataplaneChoice::Ebpf;
        let persistence = match persistence {
            Ok(persistence) => persistence,
            Err(error) if must_be_ebpf => return Err(error.into()),
            Err(error) => return self.fall_back(&error, None),
        };
        match self.start_ebpf(must_be_ebpf, persistence.clone()) {
            Err(error) if must_be_ebpf => Err(error.into()),
            Err(error) => self.fall_back(&error, Some(persistence)),
            Ok(started) => Ok(started),
        }
    }

    /// How programs outlive this process, if they are to.
    fn persistence(&self) -> Result<Persistence, EbpfError> {
        let Some(site) = self.request.pins else { return Ok(Persistence::EndWithProcess) };
        Ok(ebpf::pins_of(site)?.map_or(Persistence::Filters, Persistence::Pinned))
    }

    fn start_ebpf(&self, must_be_ebpf: bool, persistence: Persistence) -> Result<StartedPlane, EbpfError> {
        let why_filters = match persistence {
            Persistence::Filters => ", because the BPF file system here ends with this process",
            Persistence::EndWithProcess | Persistence::Pinned(_) => "",
        };
        let stays = persistence.outlives_process();
        let options = EbpfOptions::of(persistence);
        let PlaneRequest { tunnel, interface, mark, .. } = self.request;
        let plane = EbpfPlane::start(Arc::clone(tunnel), interface, *mark, &options)?;
        let why = if must_be_ebpf { AS_CONFIGURED } else { "auto: this kernel takes the programs" };
        let reason = format!("{why}, attached by {}{why_filters}", plane.hook().as_str());
        Ok(StartedPlane { plane: Box::new(plane), reason, stays })
    }

    fn fall_back(
        &self,
        error: &EbpfError,
        persistence: Option<Persistence>,
    ) -> Result<StartedPlane, ControlError> {
        tracing::warn!(%error, "the eBPF data plane cannot be used; userspace forwards");
        self.start_userspace(format!("auto: not ebpf, {error}"), persistence)
    }

    fn start_userspace(
        &self,
        reason: String,
        persistence: Option<Persistence>,
    ) -> Result<StartedPlane, ControlError> {
        let PlaneRequest { tunnel, interface, mark, .. } = self.request;
        let plane = UserspacePlane::start(Arc::clone(tunnel), interface, *mark)?;
        // Programs of an earlier start would go on forwarding by an old configuration.
        match &persistence {
            Some(Persistence::Pinned(pins)) => ebpf::remove_pins(pins)?,
            Some(Persistence::Filters) => ebpf::remove_filters(interface.hidden)?,
            Some(Persistence::EndWithProcess) | None => {}
        }
        Ok(StartedPlane { plane: Box::new(plane), reason, stays: false })
    }
}

/// A queue for every two processors, at most four: each queue has one thread for each direction.
pub(crate) fn queues() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, 4)
}
