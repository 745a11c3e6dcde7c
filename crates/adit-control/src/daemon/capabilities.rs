//! The capabilities that a daemon keeps: those that repairs and reloads of its configuration need.

use adit_config::{Config, DataplaneChoice};
use adit_linux::bpf::bpffs;
use adit_linux::process::Capability;
use adit_linux::process::privileges;

use crate::error::ControlError;

/// Ports below this one take a capability, unless a sysctl says otherwise.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// The capabilities that are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptCapabilities {
    kept: Vec<Capability>,
}

impl KeptCapabilities {
    /// Those that an overlay needs which runs any of these configurations.
    pub(crate) fn of<'a>(configs: impl IntoIterator<Item = &'a Config>) -> Self {
        let mut kept = vec![Capability::NetAdmin, Capability::NetRaw];
        for config in configs {
            if loads_programs(config) {
                kept.extend_from_slice(if privileges::has_bpf_capabilities() {
                    &[Capability::Bpf, Capability::Perfmon]
                } else {
                    &[Capability::SysAdmin]
                });
            }
            if config.site.netns.is_some() {
                // A repair enters the namespace.
                kept.push(Capability::SysAdmin);
            }
            if config.site.metrics.is_some_and(|address| address.port() < FIRST_UNPRIVILEGED_PORT) {
                kept.push(Capability::NetBindService);
            }
        }
        Self { kept }
    }

    /// Gives up all others for good, in the calling thread and in the threads that it starts. The
    /// process may have no other thread yet.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn give_up_others(&self, config: &Config) -> Result<(), ControlError> {
        if loads_programs(config) {
            // Mounting the BPF file system takes more than is kept. Whoever needs it reports its
            // absence.
            let _ = bpffs::directory();
        }
        Ok(privileges::keep_only(&self.kept)?)
    }

    /// Checks that they are enough for another configuration.
    ///
    /// # Errors
    /// Fails if they are not.
    pub(crate) fn suffice_for(&self, config: &Config) -> Result<(), ControlError> {
        let can_load = [Capability::Bpf, Capability::SysAdmin].iter().any(|right| self.kept.contains(right));
        if loads_programs(config) && !can_load {
            return Err(ControlError::GivenUp {
                asked: match config.site.dataplane {
                    DataplaneChoice::Ebpf => "ebpf",
                    _ => "auto",
                },
                name: config.site.name.to_string(),
            });
        }
        Ok(())
    }
}

fn loads_programs(config: &Config) -> bool {
    matches!(config.site.dataplane, DataplaneChoice::Auto | DataplaneChoice::Ebpf)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = include_str!("../../../../examples/a.toml");

    fn config(site: &str) -> Config {
        Config::parse("a.toml", &A.replace("[site]", &format!("[site]\n{site}"))).expect("it is valid")
    }

    #[test]
    fn a_daemon_keeps_what_its_files_need() {
        use Capability::{NetAdmin, NetBindService, NetRaw};
        let userspace = config("dataplane = \"userspace\"");
        let scraped = config("dataplane = \"userspace\"\nmetrics = \"127.0.0.1:443\"");
        let ebpf = config("dataplane = \"ebpf\"");
        assert_eq!(KeptCapabilities::of([&userspace]).kept, [NetAdmin, NetRaw]);
        assert_eq!(KeptCapabilities::of([&scraped]).kept, [NetAdmin, NetRaw, NetBindService]);
        let of_programs = KeptCapabilities::of([&ebpf]);
        assert!(of_programs.kept.len() > 2);
        let elsewhere = config("dataplane = \"userspace\"\nnetns = \"blue\"");
        assert_eq!(KeptCapabilities::of([&elsewhere]).kept, [NetAdmin, NetRaw, Capability::SysAdmin]);
        assert_eq!(KeptCapabilities::of([&config("")]), of_programs, "auto may need them later");
        // A daemon that may roll back to another file keeps what that one needs, too.
        assert_eq!(KeptCapabilities::of([&userspace, &ebpf]), of_programs);
    }

    #[test]
    fn a_file_that_needs_more_than_the_daemon_has_kept_is_refused() {
        let (userspace, ebpf) = (config("dataplane = \"userspace\""), config("dataplane = \"ebpf\""));
        KeptCapabilities::of([&ebpf]).suffice_for(&userspace).expect("less is enough");
        KeptCapabilities::of([&ebpf]).suffice_for(&config("")).expect("the same is enough");
        KeptCapabilities::of([&userspace]).suffice_for(&userspace).expect("the same is enough");
        let refused = KeptCapabilities::of([&userspace])
            .suffice_for(&ebpf)
            .expect_err("the daemon has given them up")
            .to_string();
        assert!(refused.contains("\"ebpf\"") && refused.contains("systemctl restart adit@a"), "{refused}");
    }
}
