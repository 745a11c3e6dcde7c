//! The machine that measured, without which the figures mean nothing.

use std::process::{Command, Stdio};

use serde::Serialize;

/// The properties of the machine on which the figures depend.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) processors: usize,
    /// True if the processors are virtual.
    pub(crate) is_virtual: bool,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// The load average of the minute before the run. Other work on the machine is noise.
    pub(crate) load_before: Option<f64>,
    /// The commit of the source, with `-dirty` if the source has changed since.
    pub(crate) commit: Option<String>,
}

impl Machine {
    /// Describes this machine.
    pub(crate) fn this() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let meminfo = read("/proc/meminfo");
        let flags = field(&cpuinfo, "flags").unwrap_or_default();
        let memory =
            field(&meminfo, "MemTotal").and_then(|size| size.strip_suffix(" kB")?.parse::<u64>().ok());
        Self {
            processor: field(&cpuinfo, "model name").unwrap_or("unknown processor").to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            is_virtual: flags.split_whitespace().any(|flag| flag == "hypervisor"),
            memory_mib: memory.unwrap_or_default() / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg").split_whitespace().next().and_then(|load| load.parse().ok()),
            commit: commit(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} × {}{}, {:.1} GiB of memory,\nLinux {}",
            self.processors,
            self.processor,
            if self.is_virtual { " (virtual machine)" } else { "" },
            self.memory_mib as f64 / 1024.0,
            self.kernel,
        )?;
        if let Some(commit) = &self.commit {
            write!(formatter, ", commit {commit}")?;
        }
        match self.load_before {
            Some(load) => write!(formatter, "; load average of the minute before: {load:.2}"),
            None => Ok(()),
        }
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=10"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!commit.is_empty()).then_some(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotal:  2048 kB\nMemTotalish: 1 kB\nmodel name\t: A: B\n";
        assert_eq!(field(text, "MemTotal"), Some("2048 kB"));
        assert_eq!(field(text, "model name"), Some("A: B"));
        assert_eq!(field(text, "model"), None);
    }
}
