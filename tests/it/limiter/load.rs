//! Requests to several limiters at a given rate, and what became of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tollgate::{
    cache::Limiter,
    domain::limit::{Decision, Tier},
};

/// As a service decides: without waiting where that is possible.
pub async fn decide(limiter: &Limiter, tiers: &[Tier], cost: u64) -> Decision {
    match limiter.decide_in_memory(tiers, cost, None) {
        Some(decision) => decision,
        None => limiter.decide(tiers, cost, None).await,
    }
}

pub async fn admits(limiter: &Limiter, tiers: &[Tier], cost: u64) -> bool {
    matches!(decide(limiter, tiers, cost).await, Decision::Admitted(_))
}

/// Between what instants each admitted request was decided, and how many were
/// asked for.
#[derive(Default)]
pub struct Outcome {
    pub admitted: Vec<(Instant, Instant)>,
    pub asked: u64,
    pub slowest: Duration,
}

impl Outcome {
    /// Whether one more request is admitted.
    pub async fn ask(&mut self, limiter: &Limiter, tiers: &[Tier]) -> bool {
        let sent = Instant::now();
        let admitted = admits(limiter, tiers, 1).await;
        self.note(sent, admitted)
    }

    pub fn ask_without_waiting(&mut self, limiter: &Limiter, tiers: &[Tier]) -> bool {
        let sent = Instant::now();
        let decision = limiter.decide_in_memory(tiers, 1, None);
        self.note(sent, matches!(decision, Some(Decision::Admitted(_))))
    }

    fn note(&mut self, sent: Instant, admitted: bool) -> bool {
        let done = Instant::now();
        self.asked += 1;
        self.slowest = self.slowest.max(done - sent);
        if admitted {
            self.admitted.push((sent, done));
        }
        admitted
    }

    pub fn add(&mut self, other: Outcome) {
        self.admitted.extend(other.admitted);
        self.asked += other.asked;
        self.slowest = self.slowest.max(other.slowest);
    }

    /// The most that some rolling window surely held: those decided after its
    /// beginning and before its end. One whose decision took longer than the
    /// window itself would be missed.
    pub fn most_within(&self, window: Duration) -> usize {
        let mut sent: Vec<Instant> = self.admitted.iter().map(|(sent, _)| *sent).collect();
        let mut done: Vec<Instant> = self.admitted.iter().map(|(_, done)| *done).collect();
        sent.sort_unstable();
        done.sort_unstable();
        let within = |(before, from): (usize, &Instant)| {
            done.partition_point(|done| *done < *from + window).saturating_sub(before)
        };
        sent.iter().enumerate().map(within).max().unwrap_or(0)
    }

    pub fn first(&self) -> Instant {
        self.admitted.iter().map(|(_, done)| *done).min().expect("some were admitted")
    }
}

/// One after another, as many at a time as `burst` says, until it says `None`.
/// It is told how long this has gone on.
pub async fn drive(
    limiter: Limiter,
    tiers: Arc<[Tier]>,
    mut burst: impl FnMut(Duration) -> Option<u64>,
) -> Outcome {
    let (start, mut outcome) = (Instant::now(), Outcome::default());
    while let Some(requests) = burst(start.elapsed()) {
        for _ in 0..requests {
            outcome.ask(&limiter, &tiers).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    outcome
}

/// `per_second` requests, evenly, for so long; late ones are made up for.
pub fn steady(per_second: u64, span: Duration) -> impl FnMut(Duration) -> Option<u64> {
    let mut made = 0;
    move |passed| {
        let due = u64::try_from(passed.as_micros()).unwrap() * per_second / 1_000_000;
        let now = due - made;
        made = due;
        (passed < span).then_some(now)
    }
}
