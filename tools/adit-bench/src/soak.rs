//! The soak test: the memory of Adit's processes under full load.

use std::time::{Duration, Instant};

use adit_lab::throughput;
use serde::Serialize;

use crate::error::BenchError;
use crate::interrupt;
use crate::peers::Tunnel;

/// The load before the first sample. It has both kinds, so that every buffer is in use.
const WARM_UP: Duration = Duration::from_secs(2);
/// Each kind of load takes turns.
const TURN: Duration = Duration::from_secs(5);

/// The memory of both sides together over time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Soak {
    /// Seconds of full load between the first and the last sample.
    pub(crate) seconds: f64,
    /// `VmRSS` in KiB after the warm-up, and after each turn.
    pub(crate) resident_kib: Vec<u64>,
}

impl Soak {
    /// The growth in KiB from start to end.
    pub(crate) fn growth_kib(&self) -> i64 {
        match (self.resident_kib.first(), self.resident_kib.last()) {
            (Some(first), Some(last)) => last.cast_signed() - first.cast_signed(),
            _ => 0,
        }
    }
}

/// Four TCP streams and floods of small datagrams by turns, for `time`.
pub(crate) fn run(adit: &Tunnel, time: Duration) -> Result<Soak, BenchError> {
    let path = adit.path();
    let turn = TURN.min(time / 2);
    let warm_up = WARM_UP.min(turn);
    throughput::tcp(&path, 4, warm_up)?;
    throughput::udp_small(&path, warm_up)?;
    let mut resident_kib = vec![resident(adit)?];
    let start = Instant::now();
    while start.elapsed() < time {
        interrupt::check()?;
        throughput::tcp(&path, 4, turn)?;
        resident_kib.push(resident(adit)?);
        interrupt::check()?;
        throughput::udp_small(&path, turn)?;
        resident_kib.push(resident(adit)?);
    }
    Ok(Soak { seconds: start.elapsed().as_secs_f64(), resident_kib })
}

fn resident(adit: &Tunnel) -> Result<u64, BenchError> {
    let gone = || BenchError::Io {
        what: "read the memory of `adit run`".to_owned(),
        source: std::io::Error::other("it has ended"),
    };
    adit.processes().map(|process| process.memory_kib("VmRSS")).sum::<Option<u64>>().ok_or_else(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_the_last_look_less_the_first() {
        let soak = |resident_kib| Soak { seconds: 60.0, resident_kib };
        assert_eq!(soak(vec![100, 130, 120]).growth_kib(), 20);
        assert_eq!(soak(vec![100, 90]).growth_kib(), -10);
    }
}
