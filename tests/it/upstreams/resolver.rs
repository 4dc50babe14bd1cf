//! Names that mean what a test says.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use tollgate::services::upstreams::resolver::{Lookup, Resolver};

/// Answers look-ups in turn; the last answer stays.
pub struct Names {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    /// Each answer: addresses, separated by spaces.
    pub fn answering(answers: &[&str]) -> Arc<Self> {
        let addresses = |answer: &&str| {
            answer.split_whitespace().map(|address| address.parse().unwrap()).collect()
        };
        let answers = Mutex::new(answers.iter().map(addresses).collect());
        Arc::new(Self { answers, asked: Mutex::default() })
    }

    /// The names that were looked up.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Resolver for Names {
    fn resolve<'r>(&'r self, host: &'r str, port: u16) -> Lookup<'r> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(host.to_owned());
            let mut answers = self.answers.lock().unwrap();
            let answer =
                if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
            let answer = answer.ok_or_else(|| io::Error::other("NXDOMAIN inner.example"))?;
            Ok(answer.into_iter().map(|address| SocketAddr::new(address, port)).collect())
        })
    }
}
