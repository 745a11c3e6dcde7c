//! A TCX program of others at the ingress of an interface, before all that are there.
//! [`crate::needs::tcx`] says whether this kernel has TCX. It is loaded by python3.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use adit_lab::LabError;
use adit_lab::host::Host;

/// Loads a program that passes every packet on to the stack (`TCX_PASS`), attaches it in front of
/// all others at the ingress of the interface with that index, says so, and keeps it until its
/// standard input ends.
const PASS_EVERYTHING: &str = r#"
import ctypes, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 128)
    fd = libc.syscall(SYS_BPF, command, buffer, 128)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "bpf")
    return fd
code = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xb7, 0, 0, 0, 0x95, 0, 0, 0))
licence = ctypes.create_string_buffer(b"GPL")
program = bpf(5, struct.pack("<IIQQ", 3, 2, ctypes.addressof(code), ctypes.addressof(licence)))
BPF_TCX_INGRESS, BPF_F_BEFORE = 46, 1 << 3
link = bpf(28, struct.pack("<IIII", program, int(sys.argv[1]), BPF_TCX_INGRESS, BPF_F_BEFORE))
print("attached", flush=True)
sys.stdin.read()
"#;

/// The program. Dropping it detaches it.
pub struct TcxProgram(Child);

impl TcxProgram {
    /// Attaches a program that passes every packet on to the stack: no later program sees one.
    ///
    /// # Errors
    /// Fails if there is no such interface, if python3 cannot start, or if the kernel refuses the
    /// program.
    pub fn pass_everything(host: &Host, device: &str) -> Result<Self, LabError> {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", PASS_EVERYTHING, &host.index(device)?.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = Self(host.run(|| command.spawn().map_err(LabError::io("start python3")))?);
        let mut line = String::new();
        if let Some(stdout) = program.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(LabError::io("read from python3"))?;
        }
        if line == "attached\n" {
            return Ok(program);
        }
        let source = std::io::Error::other("its standard error says why");
        Err(LabError::Io { what: format!("attach a TCX program to {device}"), source })
    }
}

impl Drop for TcxProgram {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
