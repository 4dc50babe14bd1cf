//! How many passes are sold a second, of one wallet and of many (G-77).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tollgate::domain::audit::SYSTEM;

use super::{PRICE, Rig, day};

const BUYERS: usize = 50;
const TIME: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test: `make races` prints it"]
async fn purchases_a_second() {
    let rig = Arc::new(Rig::start("unused").await);
    for wallets in [1, BUYERS] {
        let mut users = vec![];
        for _ in 0..wallets {
            users.push(rig.user(PRICE * 1_000_000).await);
        }
        let start = Instant::now();
        let tasks: Vec<_> = (0..BUYERS)
            .map(|buyer| {
                let (user, services) = (users[buyer % wallets], rig.services());
                tokio::spawn(async move {
                    let (mut sold, mut slowest, mut failed) = (0u32, Duration::ZERO, 0u32);
                    while start.elapsed() < TIME {
                        let asked = Instant::now();
                        match services.passes.purchase(&SYSTEM, user, day(), None).await {
                            Ok(_) => sold += 1,
                            Err(_) => failed += 1,
                        }
                        slowest = slowest.max(asked.elapsed());
                    }
                    (sold, slowest, failed)
                })
            })
            .collect();
        let (mut sold, mut slowest, mut failed) = (0, Duration::ZERO, 0);
        for task in tasks {
            let of_one = task.await.unwrap();
            sold += of_one.0;
            slowest = slowest.max(of_one.1);
            failed += of_one.2;
        }
        let rate = f64::from(sold) / start.elapsed().as_secs_f64();
        println!(
            "{wallets} wallets, {BUYERS} buyers, {} instances: {rate:.0} purchases a second, \
             {failed} failed, the slowest took {slowest:?}",
            rig.apps.len()
        );
    }
    rig.books().await.check().await;
}
