//! Ctrl-C and SIGTERM. After the first signal the bench removes everything in order. A second one
//! ends the process at once, and the kernel ends the programs that it started.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::error::BenchError;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Exit code after SIGINT, as shells have it.
pub(crate) const EXIT: u8 = 130;

/// Watches for signals from now on, on a thread of its own.
///
/// It uses a handler instead of a blocked signal, because programs inherit blocked signals and
/// could not be asked to end.
pub(crate) fn watch() -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::io("watch for signals"))?;
    let inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(BenchError::io("watch for SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(BenchError::io("watch for SIGTERM"))?;
    drop(inside);
    std::thread::Builder::new()
        .name("bench-signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                for _ in 0..2 {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if ASKED.swap(true, Ordering::Relaxed) {
                        std::process::exit(i32::from(EXIT));
                    }
                }
            });
        })
        .map_err(BenchError::io("watch for signals"))?;
    Ok(())
}

/// Fails after a signal.
pub(crate) fn check() -> Result<(), BenchError> {
    if ASKED.load(Ordering::Relaxed) { Err(BenchError::Interrupted) } else { Ok(()) }
}
