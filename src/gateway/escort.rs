//! Looks after a request whose body is still on its way to the upstream.
//!
//! Most are over before anything is to be done. One that is not is a stream like
//! an answer that takes long: operators see it, and it ends when what opened the
//! door counts no more, whether the client sends or the upstream takes anything
//! or not.

use std::{pin::Pin, sync::Arc, time::Duration};

use http::Response;
use tokio::time::{Instant, sleep};

use super::{
    AnswerBody, Arrival, Gateway, SendError,
    metered::Meter,
    stream::{Opener, opening},
    upload::Progress,
};
use crate::{
    domain::{id::StreamId, stream::StreamKind},
    server::client::new_uuid,
    services::{
        room::{Class, Place},
        usage::Slot,
    },
};

/// How often to look whether it is to end; a body that waits for its client is
/// told at once.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is known of a request that is being sent.
pub(super) struct Escorted<'a> {
    pub upload: &'a Arc<Progress>,
    pub opener: Opener<'a>,
    pub arrival: &'a Arrival<'a>,
    pub meter: &'a Meter<Slot>,
}

impl Gateway {
    /// What comes of `sending`, or why it had to end.
    pub(super) async fn escort<F>(
        &self,
        mut sending: Pin<&mut F>,
        of: Escorted<'_>,
        place: &mut Option<Place>,
    ) -> Result<Response<AnswerBody>, SendError>
    where
        F: Future<Output = Result<Response<AnswerBody>, SendError>>,
    {
        let brief = self.moment.begin(Instant::now());
        let early = tokio::select! {
            biased;
            sent = sending.as_mut() => Some(sent),
            () = brief => None,
        };
        match early {
            // The body may be on its way for longer than the answer's head.
            Some(Ok(answer)) => {
                if !of.upload.is_finished() {
                    self.enter_upload(&of, place);
                }
                return Ok(answer);
            }
            Some(Err(error)) => return Err(error),
            None if of.upload.is_finished() => return sending.await,
            None => self.enter_upload(&of, place),
        }
        loop {
            tokio::select! {
                biased;
                sent = sending.as_mut() => {
                    self.retake(&of, place);
                    return sent;
                }
                () = sleep(LOOK_EVERY) => {}
            }
            self.retake(&of, place);
            if let Some(fault) = of.upload.killed() {
                of.upload.failed(fault);
                return Err(fault.into());
            }
        }
    }

    fn enter_upload(&self, of: &Escorted<'_>, place: &mut Option<Place>) {
        let Escorted { upload, opener, arrival, meter } = of;
        let Some(record) = meter.record() else { return };
        // Its answer may be in the registry under the id of the request.
        let id = StreamId::from(new_uuid(record.at));
        let opening = opening(StreamKind::Upload, id, opener, arrival, record);
        let streams = &self.services.streams;
        upload.enter(streams.register(opening));
        if !streams.is_crowded() {
            *place = None;
        }
    }

    /// What is no stream any more, and still under way, is a plain request again:
    /// with a place beyond the limit if there is none, so that others wait for it.
    fn retake(&self, of: &Escorted<'_>, place: &mut Option<Place>) {
        if place.is_none() && of.upload.is_finished() {
            *place = Some(self.services.room.take(Class::Proxied));
        }
    }
}
