//! Both directions of a tunnel, its clocks and its end.
//!
//! An end takes at most two seconds: one for the frames under way, since no
//! frame of ours may stand inside another, and one for the other sides' own
//! Close. What is not finished then is cut.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    CHATTER_WINDOW, Cause, Ended, Gate, Passed, Policy,
    frame::{Header, Opcode, Side, Sizes, write_control},
    pipe::Pipe,
};
use crate::domain::kill::KillSwitch;

/// Longest wait for the end of a frame that is under way.
const FRAME_WAIT: Duration = Duration::from_secs(1);
/// Longest wait for the other sides' Close after ours.
const LINGER: Duration = Duration::from_secs(1);
/// How long one side may take to answer the other's Close.
const CLOSE_ANSWER: Duration = Duration::from_secs(10);
/// Rounds before other tasks have their turn.
const ROUNDS: usize = 32;

/// Relays until the tunnel has ended, and closes both sides. What `client` and
/// `upstream` have read beyond the handshake must be the first they give.
pub async fn relay<C, U, G>(
    client: C,
    upstream: U,
    policy: &Policy,
    gate: &mut G,
    kill: &KillSwitch,
) -> Ended
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
    G: Gate,
{
    let mut relay = Relay::new(client, upstream, policy, gate, kill);
    let cause = poll_fn(|cx| relay.poll(cx)).await;
    let (inward, outward) = (relay.up.passed(), relay.down.passed());
    Ended {
        cause,
        messages_in: inward.messages,
        messages_out: outward.messages,
        bytes_in: inward.bytes,
        bytes_out: outward.bytes,
    }
}

pub(super) struct Relay<'r, C, U, G> {
    client: C,
    upstream: U,
    policy: &'r Policy,
    gate: &'r mut G,
    kill: &'r KillSwitch,
    /// Client to upstream.
    up: Pipe,
    /// Upstream to client.
    down: Pipe,
    told: (Passed, Passed),
    chatter: Chatter,
    /// Since when the client is silent, or was last sent a Ping.
    silent_since: Instant,
    /// Pings since the client was last heard.
    pings: u32,
    /// When something but a Pong last passed.
    active_at: Instant,
    /// One side has closed, and when the other must have.
    closing: Option<(Cause, Instant)>,
    ending: Option<Ending>,
    timer: Option<Pin<Box<Sleep>>>,
    /// What the timer is set to.
    armed: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Ending {
    cause: Cause,
    deadline: Instant,
    /// Both sides were told all that they will be.
    said: bool,
    /// Connections end without a Close.
    quiet: bool,
}

/// Frames that carry nothing, counted by windows.
struct Chatter {
    since: Instant,
    count: u32,
}

impl Chatter {
    fn is_too_much(&mut self, now: Instant, most: u32) -> bool {
        if now.saturating_duration_since(self.since) >= CHATTER_WINDOW {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count > most
    }
}

impl<'r, C, U, G> Relay<'r, C, U, G>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
    G: Gate,
{
    pub(super) fn new(
        client: C,
        upstream: U,
        policy: &'r Policy,
        gate: &'r mut G,
        kill: &'r KillSwitch,
    ) -> Self {
        let now = Instant::now();
        Self {
            client,
            upstream,
            policy,
            gate,
            kill,
            up: Pipe::new(Side::Client, policy.sizes),
            down: Pipe::new(Side::Upstream, Sizes::UNLIMITED),
            told: Default::default(),
            chatter: Chatter { since: now, count: 0 },
            silent_since: now,
            pings: 0,
            active_at: now,
            closing: None,
            ending: None,
            timer: None,
            armed: None,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        if self.ending.is_none()
            && let Poll::Ready(reason) = self.kill.poll_tripped(cx)
        {
            self.end(Cause::Killed(reason), Instant::now());
        }
        let finished = self.run(cx);
        let now = (self.up.passed(), self.down.passed());
        if now.0 != self.told.0 {
            self.gate.passed(Side::Client, now.0);
        }
        if now.1 != self.told.1 {
            self.gate.passed(Side::Upstream, now.1);
        }
        self.told = now;
        finished
    }

    fn run(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        for round in 1.. {
            let now = Instant::now();
            let was_ending = self.ending.is_some();
            let pumped = self.pump(cx, now);
            let moved = pumped.unwrap_or_else(|cause| {
                self.end(cause, now);
                true
            });
            self.look_for_ends(now);
            if let Some(cause) = self.check_end(cx, now) {
                return Poll::Ready(cause);
            }
            let changed = moved || was_ending != self.ending.is_some();
            if changed && round < ROUNDS {
                continue;
            }
            let Some(next) = self.check_clocks(now) else { continue };
            if changed {
                // Others first.
                cx.waker().wake_by_ref();
                break;
            }
            if self.poll_timer(cx, next).is_pending() {
                break;
            }
        }
        Poll::Pending
    }

    /// Why it has ended, once it has.
    fn check_end(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Cause> {
        let said = self.up.is_over() && self.down.is_over();
        let ending = self.ending.as_mut()?;
        if said && !ending.said {
            ending.said = true;
            ending.deadline = now + LINGER;
        }
        let Ending { cause, deadline, quiet, .. } = *ending;
        let over = deadline <= now || self.both_have_closed();
        // That their connections end is all that quiet sides are told.
        if over || (said && quiet) {
            self.shut_down(cx);
        }
        over.then_some(cause)
    }

    fn pump(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Cause> {
        let Self { client, upstream, gate, chatter, policy, .. } = self;
        let mut check = |cx: &mut Context<'_>, header: &Header| {
            if header.begins_message() {
                ready!(gate.poll_admit(cx)).map_err(Cause::Refused)?;
            }
            if header.is_chatter() && chatter.is_too_much(now, policy.max_chatter) {
                return Poll::Ready(Err(Cause::Chatter));
            }
            Poll::Ready(Ok(()))
        };
        let up = self.up.pump(cx, now, (&mut *client, &mut *upstream), &mut check);
        let mut pass = |_: &mut Context<'_>, _: &Header| Poll::Ready(Ok(()));
        let down = self.down.pump(cx, now, (upstream, client), &mut pass);
        let (inward, outward) = (self.up.take_news(), self.down.take_news());
        if inward.heard {
            self.silent_since = now;
            self.pings = 0;
        }
        if inward.active || outward.active {
            self.active_at = now;
        }
        Ok(up? | down?)
    }

    /// Whether the sides themselves have come to an end.
    fn look_for_ends(&mut self, now: Instant) {
        if self.ending.is_some() {
            return;
        }
        let (up, down) = (&self.up, &self.down);
        let client_closed = up.is_closed() && up.is_through();
        let upstream_closed = down.is_closed() && down.is_through();
        let first = match self.closing {
            Some((cause, _)) => cause,
            None if client_closed => Cause::Closed(Side::Client),
            None if upstream_closed => Cause::Closed(Side::Upstream),
            // It may still have something to say that it said before.
            None if up.is_dead() => Cause::Gone(Side::Upstream),
            None => Cause::Gone(Side::Client),
        };
        if client_closed && upstream_closed {
            self.end(first, now);
        } else if down.is_at_eof() && down.is_through() {
            let gone = Cause::Gone(Side::Upstream);
            self.end(if down.is_closed() { first } else { gone }, now);
        } else if down.is_dead() || (up.is_at_eof() && up.is_through() && !client_closed) {
            self.end(first, now);
        } else if self.closing.is_none() && (client_closed || upstream_closed || up.is_dead()) {
            let patience = if up.is_dead() { LINGER } else { CLOSE_ANSWER };
            self.closing = Some((first, now + patience));
        }
    }

    /// Begins the end; later causes change nothing.
    fn end(&mut self, cause: Cause, now: Instant) {
        if self.ending.is_some() {
            return;
        }
        let (to_client, to_upstream) = (cause.to_client(), cause.to_upstream());
        let quiet = to_client.is_none();
        self.ending = Some(Ending { cause, deadline: now + FRAME_WAIT, said: false, quiet });
        let to_client = to_client.filter(|_| !self.down.is_closed());
        let to_upstream = to_upstream.filter(|_| !self.up.is_closed());
        self.down.end(to_client.map(|(code, text)| {
            move |frame: &mut Vec<u8>| {
                let payload = [&code.to_be_bytes(), text.as_bytes()].concat();
                write_control(Opcode::Close, &payload, None, frame);
            }
        }));
        self.up.end(to_upstream.map(|code| {
            move |frame: &mut Vec<u8>| {
                let mask = Some(rand::random::<[u8; 4]>());
                write_control(Opcode::Close, &code.to_be_bytes(), mask, frame);
            }
        }));
    }

    /// Whether each side was told and has told all.
    fn both_have_closed(&self) -> bool {
        let (up, down) = (&self.up, &self.down);
        let client = down.is_dead() || (down.is_over() && (up.is_closed() || up.is_at_eof()));
        let upstream = up.is_over() && (down.is_closed() || down.is_at_eof());
        client && upstream
    }

    fn shut_down(&mut self, cx: &mut Context<'_>) {
        // Neither is waited for: what was to be said is said.
        let _ = Pin::new(&mut self.client).poll_shutdown(cx);
        let _ = Pin::new(&mut self.upstream).poll_shutdown(cx);
    }

    /// When to look at the clocks again; `None` if one of them has just changed
    /// something.
    fn check_clocks(&mut self, now: Instant) -> Option<Instant> {
        if let Some(ending) = &self.ending {
            return (ending.deadline > now).then_some(ending.deadline);
        }
        let stalled = |pipe: &Pipe, cause| {
            pipe.stuck_since.map(|since| (since + self.policy.write_stall, cause))
        };
        let ends = [
            self.policy.max_life.map(|end| (end, Cause::TooOld)),
            self.policy.idle.map(|idle| (self.active_at + idle, Cause::Idle)),
            self.closing.map(|(cause, end)| (end, cause)),
            stalled(&self.down, Cause::Stalled(Side::Client)),
            stalled(&self.up, Cause::Stalled(Side::Upstream)),
        ];
        let never = (now + CLOSE_ANSWER, Cause::Idle);
        let (mut next, cause) =
            ends.into_iter().flatten().min_by_key(|(end, _)| *end).unwrap_or(never);
        if next <= now {
            self.end(cause, now);
            return None;
        }
        // One that has said goodbye answers no Ping.
        if self.closing.is_none() {
            next = next.min(self.check_silence(now)?);
        }
        Some(next)
    }

    fn check_silence(&mut self, now: Instant) -> Option<Instant> {
        if self.up.is_blocked() {
            // It is not its fault that nothing is heard.
            self.silent_since = now;
            self.pings = 0;
        }
        if self.silent_since + self.policy.ping_after > now {
            return Some(self.silent_since + self.policy.ping_after);
        }
        if self.pings >= self.policy.missed_pings {
            self.end(Cause::Silent, now);
            return None;
        }
        // One that still waits for a boundary is not missed.
        if self.down.say(|frame| write_control(Opcode::Ping, b"", None, frame)) {
            self.pings += 1;
        }
        self.silent_since = now;
        None
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, next: Instant) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
        // One that is armed for too early is not touched: it finds out itself.
        if self.armed.is_none_or(|armed| next < armed) {
            timer.as_mut().reset(next);
            self.armed = Some(next);
        }
        let fired = timer.as_mut().poll(cx);
        if fired.is_ready() {
            self.armed = None;
        }
        fired
    }

    /// Whether it holds any buffer.
    #[cfg(test)]
    pub(super) fn holds_memory(&self) -> bool {
        self.up.holds_memory() || self.down.holds_memory()
    }
}
