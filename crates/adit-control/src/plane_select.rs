//! Which data plane forwards, and starting it.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use adit_config::DataplaneChoice;
use adit_dataplane::DataPlane;
use adit_dataplane::ebpf::{self, EbpfError, EbpfOptions, EbpfPlane};
use adit_dataplane::userspace::UserspacePlane;
use adit_linux::tun::Tun;
use adit_tunnel::Tunnel;

use crate::error::ControlError;

/// What a data plane is started from.
pub(crate) struct PlaneStarter<'a> {
    pub(crate) tunnel: &'a Arc<Tunnel>,
    pub(crate) device: u32,
    pub(crate) underlay: Ipv4Addr,
    /// Opens the device once more.
    pub(crate) open: &'a dyn Fn() -> Result<Tun, adit_linux::error::Error>,
}

pub(crate) type Started = (Box<dyn DataPlane>, String, Option<PathBuf>);

impl PlaneStarter<'_> {
    /// Starts what was chosen, and says why that one.
    pub(crate) fn start(
        &self,
        choice: DataplaneChoice,
        tun: Tun,
        pins: Option<Result<PathBuf, EbpfError>>,
    ) -> Result<Started, ControlError> {
        if choice == DataplaneChoice::Userspace {
            return self.userspace(tun, "as configured".to_owned(), pins);
        }
        let asked = choice == DataplaneChoice::Ebpf;
        if tun.scope().netns.is_some() {
            const WHY: &str =
                "whose programs cannot pass datagrams on to another network namespace (site.netns)";
            if asked {
                return Err(ControlError::PlaneCannot { plane: "ebpf", why: WHY });
            }
            return self.userspace(tun, format!("auto: not ebpf, {WHY}"), pins.and_then(Result::ok).map(Ok));
        }
        let pins = match pins.transpose() {
            Ok(pins) => pins,
            Err(error) if asked => return Err(error.into()),
            Err(error) => return self.fall_back(tun, &error, None),
        };
        let options = EbpfOptions { pins: pins.clone(), ..EbpfOptions::default() };
        let tunnel = Arc::clone(self.tunnel);
        match EbpfPlane::start(tunnel, tun, self.device, self.underlay, &options) {
            Ok(plane) => {
                let why = if asked { "as configured" } else { "auto: this kernel takes the programs" };
                let reason = format!("{why}, attached by {}", plane.hook().as_str());
                Ok((Box::new(plane), reason, pins))
            }
            Err(error) if asked => Err(error.into()),
            Err(error) => self.fall_back((self.open)()?, &error, pins),
        }
    }

    fn fall_back(&self, tun: Tun, error: &EbpfError, pins: Option<PathBuf>) -> Result<Started, ControlError> {
        tracing::warn!(%error, "the eBPF data plane cannot be used; userspace forwards");
        self.userspace(tun, format!("auto: not ebpf, {error}"), pins.map(Ok))
    }

    fn userspace(
        &self,
        tun: Tun,
        reason: String,
        pins: Option<Result<PathBuf, EbpfError>>,
    ) -> Result<Started, ControlError> {
        let plane = UserspacePlane::start(Arc::clone(self.tunnel), tun, self.underlay)?;
        // Programs of an earlier start would go on in front of it, by what was true then.
        if let Some(Ok(pins)) = &pins {
            ebpf::remove_pins(pins)?;
        }
        Ok((Box::new(plane), reason, None))
    }
}

/// A queue for every two processors: one thread for each direction.
pub(crate) fn queues() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, 4)
}
