//! An upload that goes on beside its answer, or after it.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Fault, lock, request::Outgoing};
use crate::gateway::{timer::StallTimer, upload::Progress};

/// What ends an upload that nobody waits for any more.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Nothing was taken from the client nor by the upstream for so long.
    pub idle: Duration,
    /// Tells whether what opened the door still counts.
    pub progress: Option<Arc<Progress>>,
}

/// Tells an upstream the rest of a request.
pub(super) struct Telling<B, S> {
    outgoing: Outgoing<B>,
    stream: Arc<Mutex<S>>,
    progress: Option<Arc<Progress>>,
    timer: StallTimer,
    told: u64,
}

impl<B, S> Telling<B, S> {
    pub fn new(outgoing: Outgoing<B>, stream: Arc<Mutex<S>>, patience: Patience) -> Self {
        let Patience { idle, progress } = patience;
        Self { outgoing, stream, progress, timer: StallTimer::new(idle, None), told: 0 }
    }
}

impl<B, S> Future for Telling<B, S>
where
    B: Body<Data = Bytes> + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    type Output = Result<(), Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let this = self.get_mut();
        if let Poll::Ready(told) = this.outgoing.poll(cx, &mut *lock(&this.stream)) {
            return Poll::Ready(told);
        }
        // The body looks at it too, but only while the upstream takes what it has.
        if let Some(progress) = &this.progress
            && let Poll::Ready(fault) = progress.poll_killed(cx)
        {
            progress.failed(fault);
            return Poll::Ready(Err(Fault::Upload));
        }
        if std::mem::replace(&mut this.told, this.outgoing.told()) != this.told {
            this.timer.moved();
        }
        let stuck = || Fault::Io(io::ErrorKind::TimedOut.into());
        this.timer.poll(cx).map(|()| Err(stuck()))
    }
}
