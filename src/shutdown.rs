//! How the process ends: first nicely, then at once.
//!
//! *Soft*: take nothing new, finish what is under way. *Served*: nothing is
//! under way any more. *Hard*: cut what is left. The first SIGTERM or SIGINT begins the soft part; a second one, or the
//! end of the grace period, the hard part. Soft always comes before hard.
//! Parts of the program watch the tokens; none of them handles a signal.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Shared by everything that has to end; clones are the same shutdown.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    served: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when nothing new may begin.
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Cancelled when no request is served any more: for what requests need up to
    /// their end.
    pub fn served(&self) -> &CancellationToken {
        &self.served
    }

    /// Cancelled when what is left is cut.
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// Work that must end before the process does; spawn jobs and connections
    /// here.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Begins the soft part; nothing more the second time.
    pub fn begin(&self) {
        self.soft.cancel();
    }

    /// Cuts at once.
    pub fn cut(&self) {
        self.soft.cancel();
        self.served.cancel();
        self.hard.cancel();
    }

    /// Follows SIGTERM and SIGINT from here on, on the current runtime. An error
    /// if the handlers cannot be installed.
    pub fn follow_signals(&self) -> io::Result<()> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let shutdown = self.clone();
        // Not among `tasks`, which would wait for it.
        tokio::spawn(async move {
            any(&mut terminate, &mut interrupt).await;
            tracing::info!("stopping; a second signal cuts what is under way");
            shutdown.begin();
            any(&mut terminate, &mut interrupt).await;
            tracing::warn!("stopping at once");
            shutdown.cut();
        });
        Ok(())
    }

    /// To be called when the server has stopped. Waits for the tasks, for `grace` at most; cuts the rest and waits for it,
    /// for `grace` again at most. Whether all ended without being cut.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.begin();
        self.served.cancel();
        self.tasks.close();
        let ended = async {
            tokio::select! {
                // Tasks that were cut end as well; that is no nice end.
                biased;
                () = self.hard.cancelled() => false,
                () = self.tasks.wait() => true,
            }
        };
        let nicely = timeout(grace, ended).await.unwrap_or(false);
        self.cut();
        if !nicely && timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "left behind at the end");
        }
        nicely
    }
}

/// SIGHUP: `recv().await` answers once per request to read the configuration
/// again. Without this the signal ends the process.
pub fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

async fn any(a: &mut Signal, b: &mut Signal) {
    tokio::select! {
        _ = a.recv() => {}
        _ = b.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn tasks_that_follow_the_soft_token_end_nicely() {
        let shutdown = Shutdown::new();
        let soft = shutdown.soft().clone();
        shutdown.tasks().spawn(async move { soft.cancelled().await });
        assert!(shutdown.finish(LONG).await);
        assert!(shutdown.hard().is_cancelled());
    }

    #[tokio::test]
    async fn the_rest_is_cut_after_the_grace_period() {
        let shutdown = Shutdown::new();
        let hard = shutdown.hard().clone();
        let task = shutdown.tasks().spawn(async move { hard.cancelled().await });
        assert!(!shutdown.finish(SHORT).await);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_cut_ends_the_grace_period() {
        let shutdown = Shutdown::new();
        let hard = shutdown.hard().clone();
        shutdown.tasks().spawn(async move { hard.cancelled().await });
        let finishing = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.finish(LONG).await }
        });
        shutdown.soft().cancelled().await;
        shutdown.cut();
        assert!(!timeout(LONG / 2, finishing).await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn a_task_that_ignores_everything_holds_nobody_up() {
        let shutdown = Shutdown::new();
        shutdown.tasks().spawn(std::future::pending::<()>());
        assert!(!timeout(LONG, shutdown.finish(SHORT)).await.unwrap());
    }

    /// To this process, which has a handler by then.
    fn send(signal: &str) {
        let command = format!("kill -{signal} {}", std::process::id());
        let sent = std::process::Command::new("sh").args(["-c", &command]).status();
        assert!(sent.unwrap().success());
    }

    #[tokio::test]
    async fn the_first_signal_is_soft_and_the_second_hard() {
        let shutdown = Shutdown::new();
        let mut hangups = hangups().unwrap();
        shutdown.follow_signals().unwrap();
        send("HUP");
        timeout(LONG, hangups.recv()).await.unwrap().unwrap();
        assert!(!shutdown.soft().is_cancelled());
        send("TERM");
        timeout(LONG, shutdown.soft().cancelled()).await.unwrap();
        assert!(!shutdown.hard().is_cancelled());
        send("INT");
        timeout(LONG, shutdown.hard().cancelled()).await.unwrap();
    }
}
