//! The streams of all instances, as operators see them.
//!
//! Each instance shows its own to the others through Redis, a picture that is at
//! most [`SHARE_EVERY`] old and expires by itself; without Redis there is only
//! this instance. Cutting asks the instances themselves, so that a stream need
//! not be in the picture.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{OpenStream, StreamService};
use crate::domain::{
    audit::{Action, Actor, Event},
    id::{StreamId, UserId},
    page::{Page, PageRequest},
    stream::{StreamInfo, StreamKind},
};
use crate::services::StoreError;

/// How often an instance shows what it has.
pub const SHARE_EVERY: Duration = Duration::from_secs(2);
/// How long a picture is shown that is not renewed.
const SHARED_FOR: Duration = Duration::from_secs(7);
/// Most streams of one instance that the others are shown, the newest: some
/// 400 KiB.
const MOST_SHARED: usize = 1000;

/// Which streams are meant; all without anything.
#[derive(Clone, Debug, Default)]
pub struct StreamFilter {
    pub user_id: Option<UserId>,
    pub upstream: Option<String>,
    pub kind: Option<StreamKind>,
}

#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// It is not here, and elsewhere cannot be asked.
    #[error("the other instances cannot be reached")]
    InstancesAway,
    /// It was cut, and could not be noted.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StreamFilter {
    fn matches(&self, info: &StreamInfo) -> bool {
        let Self { user_id, upstream, kind } = self;
        user_id.is_none_or(|id| info.user_id == Some(id))
            && upstream.as_ref().is_none_or(|name| info.upstream == *name)
            && kind.is_none_or(|kind| info.kind == kind)
    }
}

impl StreamService {
    /// Newest first. Of other instances what they have shown; nothing while
    /// Redis is away.
    pub async fn list(&self, filter: &StreamFilter, page: PageRequest) -> Page<StreamInfo> {
        let mut all = self.own();
        for picture in self.hub.shown_elsewhere().await {
            // Another version of the program may show it otherwise.
            all.extend(serde_json::from_str::<Vec<StreamInfo>>(&picture).unwrap_or_default());
        }
        let is_later = |info: &StreamInfo| page.after.is_none_or(|at| info.id.as_uuid() < at.0);
        all.retain(|info| is_later(info) && filter.matches(info));
        all.sort_unstable_by_key(|info| std::cmp::Reverse(info.id));
        all.truncate(page.limit as usize + 1);
        Page::from_rows(all, page.limit, |info| info.id.as_uuid())
    }

    /// Ends a stream, on whichever instance it is; whether there was one.
    pub async fn cut(&self, by: &Actor, id: StreamId) -> Result<bool, CutError> {
        let is_cut = self.cut_here(id)
            || self.hub.cut_elsewhere(id.as_uuid()).await.ok_or(CutError::InstancesAway)?;
        // Afterwards: whoever must be cut off is, also where the log is away.
        if is_cut {
            let event = Event::new(Action::ConnectionCut, "connection", id);
            self.audit.note(by, event).await?;
        }
        Ok(is_cut)
    }

    /// Shows the others what is open here.
    pub async fn share(&self) {
        let mut own = self.own();
        if own.is_empty() {
            if self.sharing.swap(false, Ordering::Relaxed) {
                self.hub.hide().await;
            }
            return;
        }
        self.sharing.store(true, Ordering::Relaxed);
        own.sort_unstable_by_key(|info| std::cmp::Reverse(info.id));
        own.truncate(MOST_SHARED);
        let picture = serde_json::to_string(&own).expect("names, numbers and texts are JSON");
        self.hub.show(&picture, SHARED_FOR).await;
    }

    fn own(&self) -> Vec<StreamInfo> {
        let instance = self.hub.instance();
        self.all().iter().map(|stream: &Arc<OpenStream>| stream.info(instance)).collect()
    }
}
