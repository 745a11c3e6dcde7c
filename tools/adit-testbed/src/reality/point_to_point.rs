//! A cable without Ethernet, such as PPP: two TUN interfaces, joined by two processes of socat.
//! [`crate::needs::tun`] says whether this machine has what it takes.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use adit_lab::LabError;
use adit_lab::host::Host;
use ipnet::Ipv4Net;

const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// One end: a host, the name of its interface, and the address there.
pub type End<'a> = (&'a Host, &'a str, Ipv4Net);

/// A cable. Dropping it removes both interfaces.
pub struct Cable {
    programs: Vec<Child>,
    socket: PathBuf,
}

impl Cable {
    /// Connects two hosts, with both interfaces up.
    ///
    /// # Errors
    /// Fails if socat cannot start or an interface does not come up.
    pub fn connect(left: End<'_>, right: End<'_>) -> Result<Self, LabError> {
        let name = format!("adit-cable-{}-{}", std::process::id(), unique());
        let socket = std::env::temp_dir().join(name);
        let mut cable = Self { programs: Vec::new(), socket };
        // A socket that keeps the bounds of packets: SOCK_SEQPACKET.
        let path = cable.socket.display().to_string();
        cable.start(left, &format!("UNIX-LISTEN:{path},type=5"))?;
        wait_for("the cable's socket", || Ok(cable.socket.exists()))?;
        cable.start(right, &format!("UNIX-CONNECT:{path},type=5"))?;
        for (host, device, _) in [left, right] {
            wait_for(device, || {
                Ok(host.netlink()?.link(device)?.is_some_and(|link| link.up && link.running))
            })?;
        }
        Ok(cable)
    }

    fn start(&mut self, (host, device, address): End<'_>, socket: &str) -> Result<(), LabError> {
        let tun = format!("TUN:{address},tun-name={device},iff-up,tun-type=tun");
        let mut command = Command::new("socat");
        command.args([&tun, socket]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = host.run(|| command.spawn().map_err(LabError::io("start socat")))?;
        self.programs.push(child);
        Ok(())
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// A number that no other cable of this process has.
fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> Result<bool, LabError>) -> Result<(), LabError> {
    let deadline = Instant::now() + START_TIMEOUT;
    while !is_there()? {
        if Instant::now() > deadline {
            let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
            return Err(LabError::Io { what: format!("wait for {what}"), source });
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}
