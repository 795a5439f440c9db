//! SIGINT and SIGTERM: the first asks a command to finish what it has begun, the second to give up.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Counts signals. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Interrupts(watch::Receiver<u32>);

impl Interrupts {
    /// From now on the signals no longer end the process by themselves.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (count, interrupts) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(interrupts))
    }

    /// Waits for the first signal, past or to come.
    pub(crate) async fn first(&mut self) {
        self.nth(1).await;
    }

    /// Waits for the second signal, past or to come.
    pub(crate) async fn second(&mut self) {
        self.nth(2).await;
    }

    async fn nth(&mut self, n: u32) {
        if self.0.wait_for(|count| *count >= n).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
