//! Kernel settings under `/proc/sys`. Those under `net/` belong to the calling thread's network
//! namespace.

use std::fs;
use std::io;

use crate::error::{Error, Result};

/// Reads the setting `knob`, a path such as `net/ipv4/ip_forward`, without its final newline.
///
/// # Errors
/// There is no such setting, or it may not be read.
pub fn read(knob: &str) -> Result<String> {
    let path = path(knob)?;
    let text = fs::read_to_string(&path)
        .map_err(|error| explain(Error::new(format!("cannot read {path}"), error)))?;
    Ok(text.trim_end().to_owned())
}

/// Returns true if the kernel forwards what arrives by this interface. `all` and `default` are
/// names too.
///
/// # Errors
/// There is no such interface, or the setting may not be read.
pub fn forwards(interface: &str) -> Result<bool> {
    Ok(read(&format!("net/ipv4/conf/{interface}/forwarding"))? == "1")
}

/// Returns true if the kernel forwards packets of IPv6. The settings of interfaces do not count
/// there.
///
/// # Errors
/// The kernel has no IPv6, or the setting may not be read.
pub fn forwards_ipv6() -> Result<bool> {
    Ok(read("net/ipv6/conf/all/forwarding")? == "1")
}

/// Returns true if the setting `knob` exists and may be written.
#[must_use]
pub fn is_writable(knob: &str) -> bool {
    path(knob).is_ok_and(|path| fs::OpenOptions::new().write(true).open(path).is_ok())
}

/// Writes `value` to the setting `knob`.
///
/// # Errors
/// There is no such setting, it may not be written, or the kernel refuses the value.
pub fn write(knob: &str, value: &str) -> Result<()> {
    let path = path(knob)?;
    // `fs::write` would try to create a missing file.
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
            .with_hint("use a path below /proc/sys, such as net/ipv4/ip_forward"));
    }
    Ok(format!("/proc/sys/{knob}"))
}

fn explain(error: Error) -> Error {
    match error.errno() {
        Some(libc::EROFS) => {
            error.with_hint("/proc/sys is mounted read-only, as in containers: set it from outside")
        }
        Some(libc::ENOENT) => error.with_hint("this kernel does not have the setting"),
        Some(libc::EACCES | libc::EPERM) => error.with_hint("run as root"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_read_without_its_newline() {
        assert_eq!(read("kernel/ostype").unwrap(), "Linux");
    }

    #[test]
    fn a_path_outside_proc_sys_is_refused() {
        for knob in ["", "/etc/passwd", "../self/status", "net//ipv4", "net/./ipv4"] {
            assert_eq!(read(knob).unwrap_err().errno(), Some(libc::EINVAL), "{knob}");
        }
    }

    #[test]
    fn the_error_about_a_missing_setting_has_its_path() {
        let error = read("net/ipv4/no_such_knob").unwrap_err();
        assert!(error.to_string().starts_with("cannot read /proc/sys/net/ipv4/no_such_knob: "), "{error}");
    }
}
