//! How much may be under way at once, by what it is.
//!
//! Each class has places of its own, so that none can take another's: while the
//! gateway is full, our own routes and the probes of a balancer still get in,
//! and a flood of those takes nothing from proxied requests.
//!
//! A [`Place`] is held until the answer's last byte was handed over. A proxied
//! exchange that turns out to be a stream gives its place back when it enters
//! the list of streams (see [`super::streams`]), which has a limit of its own:
//! what may go on for hours takes no room from what is over in moments.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// What a request is, as far as room for it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Goes to an upstream.
    Proxied,
    /// A route of ours: logins, the API, administration, forward-auth.
    Ours,
    /// Health and metrics.
    Probe,
    /// Conversations of visitors, who are not to keep others from logging in.
    Chat,
}

impl Class {
    pub const ALL: [Self; 4] = [Self::Proxied, Self::Ours, Self::Probe, Self::Chat];

    /// By where it goes.
    pub fn of(proxied: bool, path: &str) -> Self {
        match path {
            _ if proxied => Self::Proxied,
            "/health" | "/health/live" | "/health/ready" | "/metrics" => Self::Probe,
            _ if path.starts_with("/api/chat/") || path.starts_with("/api/v1/chat/") => Self::Chat,
            _ => Self::Ours,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proxied => "proxied",
            Self::Ours => "ours",
            Self::Probe => "probe",
            Self::Chat => "chat",
        }
    }
}

/// Requests under way, counted.
#[derive(Debug)]
pub struct Room([Count; Class::ALL.len()]);

#[derive(Debug)]
struct Count {
    used: AtomicUsize,
    most: usize,
}

/// One request's; given back when dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub struct Place {
    room: Arc<Room>,
    class: Class,
}

/// Probes are few and cheap; more of them at once are no probes.
const PROBES: usize = 64;
/// So many requests of ours may be under way however small the whole is.
const LEAST_OURS: usize = 16;

impl Room {
    /// `proxied` is four fifths of the whole; the last fifth is for our own
    /// routes.
    pub fn new(proxied: usize) -> Arc<Self> {
        let ours = (proxied / 4).max(LEAST_OURS);
        let most = [proxied, ours, PROBES, ours];
        Arc::new(Self(most.map(|most| Count { used: AtomicUsize::new(0), most })))
    }

    /// A place, if there is one.
    pub fn enter(self: &Arc<Self>, class: Class) -> Option<Place> {
        let Count { used, most } = &self.0[class as usize];
        // Given back by the place that is made in any case.
        let before = used.fetch_add(1, Relaxed);
        let place = Place { room: Arc::clone(self), class };
        (before < *most).then_some(place)
    }

    /// One in any case: for what is under way already.
    pub fn take(self: &Arc<Self>, class: Class) -> Place {
        self.0[class as usize].used.fetch_add(1, Relaxed);
        Place { room: Arc::clone(self), class }
    }

    pub fn used(&self, class: Class) -> usize {
        self.0[class as usize].used.load(Relaxed)
    }

    pub fn most(&self, class: Class) -> usize {
        self.0[class as usize].most
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.0[self.class as usize].used.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_class_takes_the_places_of_another() {
        let room = Room::new(2);
        for class in Class::ALL {
            let most = room.most(class);
            let held: Vec<Place> = (0..most).map(|_| room.enter(class).unwrap()).collect();
            assert!(room.enter(class).is_none());
            assert_eq!(room.used(class), most, "a refusal leaves nothing behind");
            let others = Class::ALL.into_iter().filter(|other| *other != class);
            others.for_each(|other| assert!(room.enter(other).is_some()));
            drop(held);
            assert_eq!(room.used(class), 0);
        }
    }

    #[test]
    fn a_fifth_of_the_whole_is_ours() {
        for (proxied, ours) in [(8000, 2000), (1, 16)] {
            assert_eq!(Room::new(proxied).most(Class::Ours), ours);
        }
    }
}
