//! The kernel's knobs under `/proc/sys`. Those under `net/` are the calling thread's network
//! namespace's.

use std::fs;
use std::io;

use crate::error::{Error, Result};

/// Reads `knob`, a path such as `net/ipv4/ip_forward`, without the newline at its end.
///
/// # Errors
/// There is no such knob, or it is not ours to read.
pub fn read(knob: &str) -> Result<String> {
    let path = path(knob)?;
    let text = fs::read_to_string(&path)
        .map_err(|error| explain(Error::new(format!("cannot read {path}"), error)))?;
    Ok(text.trim_end().to_owned())
}

/// Writes `value` to `knob`.
///
/// # Errors
/// There is no such knob, it is not ours to write, or the kernel refuses the value.
pub fn write(knob: &str, value: &str) -> Result<()> {
    let path = path(knob)?;
    // Not `fs::write`, which asks for the file to be made where there is none.
    let attempt = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    attempt.map_err(|error| explain(Error::new(format!("cannot write `{value}` to {path}"), error)))
}

fn path(knob: &str) -> Result<String> {
    let is_inside =
        !knob.is_empty() && knob.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if !is_inside {
        return Err(Error::from_errno(format!("cannot use `{knob}` as a kernel setting"), libc::EINVAL)
            .with_hint("a path below /proc/sys is expected, such as net/ipv4/ip_forward"));
    }
    Ok(format!("/proc/sys/{knob}"))
}

fn explain(error: Error) -> Error {
    match error.errno() {
        Some(libc::EROFS) => {
            error.with_hint("/proc/sys is mounted read-only, as containers do: set it from outside")
        }
        Some(libc::EACCES | libc::EPERM) => error.with_hint("run as root"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_without_newline() {
        assert_eq!(read("kernel/ostype").unwrap(), "Linux");
    }

    #[test]
    fn stays_below_proc_sys() {
        for knob in ["", "/etc/passwd", "../self/status", "net//ipv4", "net/./ipv4"] {
            assert_eq!(read(knob).unwrap_err().errno(), Some(libc::EINVAL), "{knob}");
        }
    }

    #[test]
    fn missing_knob_names_its_path() {
        let error = read("net/ipv4/no_such_knob").unwrap_err();
        assert!(error.to_string().starts_with("cannot read /proc/sys/net/ipv4/no_such_knob: "), "{error}");
    }
}
