//! iperf3, a load generator from outside the project, as a check.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::error::BenchError;
use crate::peers::Tunnel;
use crate::process::{self, Process};

/// Time to start, to connect, and to exchange results over a path full of datagrams.
const TIMEOUT: Duration = Duration::from_secs(15);
const PORT: &str = "5201";

/// What iperf3 sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// One TCP stream.
    Tcp,
    /// 64-byte datagrams, as many as it can.
    Udp,
}

/// Bits a second (TCP) or datagrams a second (UDP) that arrived.
pub(crate) fn run(tunnel: &Tunnel, load: Load, seconds: u64) -> Result<f64, BenchError> {
    let iperf3 = process::find("iperf3", "on Debian: apt-get install iperf3")?;
    let directory = tunnel.testbed.subdirectory("iperf3")?;
    let [a, b] = &tunnel.testbed.sides;
    let address = tunnel.server().to_string();
    let mut command = Command::new(&iperf3);
    command.args(["--server", "--one-off", "--forceflush", "--bind", &address, "--port", PORT]);
    let mut server = Process::start(&b.end, "iperf3-server", command, &directory)?;
    server.wait_for_word("Server listening", TIMEOUT)?;

    let mut command = Command::new(&iperf3);
    command.args(["--client", &address, "--port", PORT, "--json", "--time", &seconds.to_string()]);
    if load == Load::Udp {
        command.args(["--udp", "--bitrate", "0", "--length", "64"]);
    }
    let mut client = Process::start(&a.end, "iperf3-client", command, &directory)?;
    client.wait_for_end(Duration::from_secs(seconds) + TIMEOUT)?;
    delivered(&client.output(), load)
}

/// Reads the client's report, which includes the server's results.
fn delivered(report: &str, load: Load) -> Result<f64, BenchError> {
    let report: Value = serde_json::from_str(report).map_err(|_| BenchError::Iperf { what: "its JSON" })?;
    let end = report.get("end").ok_or(BenchError::Iperf { what: "`end`" })?;
    let number = |object: &Value, name: &'static str| {
        object.get(name).and_then(Value::as_f64).ok_or(BenchError::Iperf { what: name })
    };
    match load {
        Load::Tcp => {
            let sum = end.get("sum_received").ok_or(BenchError::Iperf { what: "`end.sum_received`" })?;
            number(sum, "bits_per_second")
        }
        Load::Udp => {
            let sum = end.get("sum").ok_or(BenchError::Iperf { what: "`end.sum`" })?;
            Ok((number(sum, "packets")? - number(sum, "lost_packets")?) / number(sum, "seconds")?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_what_was_sent_less_what_was_lost() -> Result<(), BenchError> {
        let report = r#"{"end":{"sum":{"seconds":2.0,"packets":1000,"lost_packets":100}}}"#;
        assert_eq!(delivered(report, Load::Udp)?, 450.0);
        let report = r#"{"end":{"sum_sent":{"bits_per_second":9e9},"sum_received":{"bits_per_second":8e9}}}"#;
        assert_eq!(delivered(report, Load::Tcp)?, 8e9);
        Ok(())
    }

    #[test]
    fn a_report_that_lacks_something_says_what() {
        let error = delivered(r#"{"error":"unable to connect"}"#, Load::Tcp).unwrap_err().to_string();
        assert_eq!(error, "the report of iperf3 lacks `end`");
        let error = delivered(r#"{"end":{"sum":{"packets":1}}}"#, Load::Udp).unwrap_err().to_string();
        assert_eq!(error, "the report of iperf3 lacks lost_packets");
        assert!(delivered("no JSON", Load::Tcp).is_err());
    }
}
