//! Which of root's rights a daemon keeps once it runs: what its file asks for, for repairs and reloads.

use adit_config::{Config, DataplaneChoice};
use adit_linux::bpf::bpffs;
use adit_linux::process::Capability;
use adit_linux::process::privileges;

use crate::error::ControlError;

/// Ports below this one are the system's, unless it says otherwise.
const FIRST_FREE_PORT: u16 = 1024;

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptCapabilities {
    kept: Vec<Capability>,
}

impl KeptCapabilities {
    /// What an overlay needs that is one of these, now or later.
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
                // A repair enters it.
                kept.push(Capability::SysAdmin);
            }
            if config.site.metrics.is_some_and(|address| address.port() < FIRST_FREE_PORT) {
                kept.push(Capability::NetBindService);
            }
        }
        Self { kept }
    }

    /// Gives up everything else, for good: in the calling thread, which is to be the process's only one, and in those
    /// that it starts.
    pub(crate) fn give_up_others(&self, config: &Config) -> Result<(), ControlError> {
        if loads_programs(config) {
            // Mounting it takes more than is kept; without it, who needs it says why.
            let _ = bpffs::root();
        }
        Ok(privileges::keep_only(&self.kept)?)
    }

    /// Whether what is left is enough for another configuration.
    ///
    /// # Errors
    /// It is not, and what to do.
    pub(crate) fn suffice_for(&self, config: &Config) -> Result<(), ControlError> {
        let has_programs =
            [Capability::Bpf, Capability::SysAdmin].iter().any(|right| self.kept.contains(right));
        if loads_programs(config) && !has_programs {
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
    fn what_is_kept_is_what_the_files_ask_for() {
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
        assert_eq!(KeptCapabilities::of([&config("")]), of_programs, "auto may come to need them");
        // Who may return to another has that one's rights too.
        assert_eq!(KeptCapabilities::of([&userspace, &ebpf]), of_programs);
    }

    #[test]
    fn a_file_that_needs_more_is_refused() {
        let (userspace, ebpf) = (config("dataplane = \"userspace\""), config("dataplane = \"ebpf\""));
        KeptCapabilities::of([&ebpf]).suffice_for(&userspace).expect("less is enough");
        KeptCapabilities::of([&ebpf]).suffice_for(&config("")).expect("the same is enough");
        KeptCapabilities::of([&userspace]).suffice_for(&userspace).expect("the same is enough");
        let refused = KeptCapabilities::of([&userspace])
            .suffice_for(&ebpf)
            .expect_err("it has given them up")
            .to_string();
        assert!(refused.contains("\"ebpf\"") && refused.contains("systemctl restart adit@a"), "{refused}");
    }
}
