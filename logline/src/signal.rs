//! When a process is told to stop.

use std::future::Future;

/// Waits for Ctrl-C, or for the signal with which service managers stop a process (`SIGTERM`): the end of
/// [`Run::run`](crate::kernels::Run::run). A signal counts from this call on, also before the future is polled, and does not end the process
/// any more.
///
/// Must be called within a Tokio runtime.
pub fn shutdown_signal() -> impl Future<Output = ()> {
    #[cfg(unix)]
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate()).and_then(|terminated| Ok((terminated, signal(SignalKind::interrupt())?)))
    };
    async move {
        #[cfg(unix)]
        if let Ok((mut terminated, mut interrupted)) = signals {
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = terminated.recv() => {}
            }
            return;
        }
        // Without a handler for signals the process ends as any other.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
