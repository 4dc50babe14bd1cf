//! kill -9 while money moves (RELIABILITY G-02, G-03).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate::failpoint;

use super::{Answer, PATIENCE, Process, Setup, alone, attempt};
use crate::{
    money_races::rounds,
    support::{books::Books, unique},
};

const PRICE: i64 = 2400;
/// Kills at random points, in CI.
const KILLS: usize = 5;

impl Setup {
    /// On Postgres and Redis where the tests have them, else on SQLite; sells a
    /// day.
    async fn of_a_shop() -> Self {
        let setup = match std::env::var_os("TEST_DATABASE_URL") {
            Some(_) => Self::shared().await,
            None => Self::sqlite(),
        };
        setup.set("TOKEN_PRICE_24H", &PRICE.to_string())
    }

    async fn books(&self) -> Books {
        if let Some(database) = &self.database {
            return Books::open(database.config().url.expose_secret()).await;
        }
        let file = self.path().join("data/tollgate.db");
        Books::open(&format!("sqlite://{}", file.display())).await
    }
}

/// Somebody with money, and what they and the admin need to ask.
#[derive(Clone)]
struct Customer {
    base: String,
    id: String,
    bearer: String,
    admin: String,
}

/// A request that moves money; sent again with the same key it is the same.
#[derive(Clone, Debug)]
struct Deed {
    path: String,
    by_admin: bool,
    body: Value,
    key: String,
}

impl Customer {
    async fn new(process: &Process) -> Self {
        let name = unique("customer");
        let email = format!("{name}@example.com");
        let body = json!({ "username": name, "email": email, "password": super::PASSWORD });
        let made = process.client().post("/api/v1/auth/register", body).await.expect(201);
        let mut customer = Self {
            base: String::new(),
            id: made.text("id").to_owned(),
            bearer: String::new(),
            admin: String::new(),
        };
        customer.log_in(process, &name).await;
        customer.must(&customer.credit(3 * PRICE)).await;
        customer
    }

    /// Logins survive a restart; where it listens does not.
    async fn log_in(&mut self, process: &Process, name: &str) {
        self.bearer = format!("Bearer {}", process.token(name, super::PASSWORD).await);
        self.admin = format!("Bearer {}", process.token("admin", super::PASSWORD).await);
        self.base.clone_from(&process.base);
    }

    fn at(&self, process: &Process) -> Self {
        Self { base: process.base.clone(), ..self.clone() }
    }

    /// `None` if no whole answer comes.
    async fn ask(&self, deed: &Deed) -> Option<Answer> {
        let url = format!("{}/api/v1{}", self.base, deed.path);
        let bearer = if deed.by_admin { &self.admin } else { &self.bearer };
        let fields = [
            ("authorization", &**bearer),
            ("content-type", "application/json"),
            ("idempotency-key", &deed.key),
        ];
        attempt("POST", &url, &fields, &deed.body.to_string()).await
    }

    async fn must(&self, deed: &Deed) -> Answer {
        let answer = self.ask(deed).await.expect("an answer");
        assert!(answer.status.is_success(), "{deed:?}: {answer:?}");
        answer
    }

    async fn refund(&self) -> Deed {
        let bought = self.must(&purchase()).await;
        deed(format!("/tokens/{}/refund", bought.text("token_id")), json!({}))
    }

    fn credit(&self, minor: i64) -> Deed {
        let body = json!({ "amount_minor": minor, "reason": "thanks" });
        let path = format!("/admin/users/{}/wallet/credit", self.id);
        Deed { by_admin: true, ..deed(path, body) }
    }

    /// Of a voucher that gives `what` and may be used again.
    async fn redeem(&self, what: &str, much: i64) -> Deed {
        let body = json!({ what: much, "max_uses": 9, "max_uses_per_user": 9 });
        let batch = Deed { by_admin: true, ..deed("/admin/vouchers".to_owned(), body) };
        let made = self.must(&batch).await;
        let code = made.json["items"][0]["code"].as_str().expect("a code");
        deed("/wallet/redeem".to_owned(), json!({ "code": code }))
    }

    /// Balance, transactions and passes.
    async fn state(&self) -> (i64, usize, usize) {
        let get = async |path: &str| {
            let url = format!("{}/api/v1{path}", self.base);
            let fields = [("authorization", &*self.bearer)];
            attempt("GET", &url, &fields, "").await.expect("an answer").expect(200).json
        };
        let items = |list: Value| list["items"].as_array().expect("items").len();
        let balance = get("/wallet").await["balance_minor"].as_i64().expect("a balance");
        let booked = items(get("/wallet/transactions?limit=200").await);
        (balance, booked, items(get("/tokens/my-tokens?limit=200").await))
    }
}

fn purchase() -> Deed {
    deed("/tokens/purchase".to_owned(), json!({ "duration_hours": 24 }))
}

fn deed(path: String, body: Value) -> Deed {
    Deed { path, by_admin: false, body, key: unique("key-") }
}

/// Whatever the process was doing, the request has its whole effect or none;
/// sent again it has it once, and is answered as it always would have been.
#[tokio::test]
async fn a_kill_at_any_point_of_a_change_of_money_leaves_all_or_nothing() {
    let _alone = alone().await;
    let setup = Setup::of_a_shop().await;
    for name in failpoint::ALL {
        let operation = name.split('.').next().unwrap();
        let process = setup.serve().await;
        let customer = Customer::new(&process).await;
        let deeds = match operation {
            "purchase" => vec![(purchase(), (-PRICE, 1, 1))],
            "refund" => vec![(customer.refund().await, (PRICE, 1, 0))],
            "credit" => vec![(customer.credit(500), (500, 1, 0))],
            "redeem" => vec![
                (customer.redeem("amount_minor", 300).await, (300, 1, 0)),
                (customer.redeem("duration_hours", 24).await, (0, 0, 1)),
            ],
            other => panic!("nothing drives {other}"),
        };
        drop(process);
        for (deed, (money, booked, passes)) in deeds {
            kill_at(&setup, &customer, name, &deed, |before| {
                (before.0 + money, before.1 + booked, before.2 + passes)
            })
            .await;
        }
    }
}

type State = (i64, usize, usize);

async fn kill_at(
    setup: &Setup,
    customer: &Customer,
    name: &str,
    deed: &Deed,
    effect: impl Fn(State) -> State,
) {
    let mut process = setup.clone().set("TOLLGATE_FAILPOINT", name).serve().await;
    let asking = customer.at(&process);
    let before = asking.state().await;
    let after = effect(before);
    let request = {
        let (asking, deed) = (asking.clone(), deed.clone());
        tokio::spawn(async move { asking.ask(&deed).await })
    };
    let line = format!("failpoint {name}\n");
    process.until(name, PATIENCE, async || process.stderr.so_far().contains(&line)).await;
    process.kill();
    assert!(request.await.unwrap().is_none(), "{name}: it was answered");

    let process = setup.serve().await;
    let mut books = setup.books().await;
    books.check().await;
    let customer = customer.at(&process);
    let left = customer.state().await;
    let committed = name.ends_with(".committed");
    assert_eq!(left, if committed { after } else { before }, "{name}: {deed:?}");
    let answer = customer.must(deed).await;
    assert_eq!(customer.state().await, after, "{name}: {deed:?}");
    let again = customer.must(deed).await;
    assert_eq!((again.status, &again.json), (answer.status, &answer.json), "{name}");
    assert_eq!(customer.state().await, after, "{name}: {deed:?}");
    books.check().await;
}

/// A status and a body.
type Reply = (StatusCode, Value);

/// What was asked for and what was answered, if anything was.
#[derive(Default)]
struct Told {
    deeds: Mutex<Vec<(Deed, Option<Reply>)>>,
    answered: AtomicUsize,
    dead: AtomicBool,
}

/// At a point that nobody chose, with many under way (G-02).
#[tokio::test]
async fn a_kill_at_any_moment_loses_and_doubles_no_money() {
    const AT_ONCE: usize = 4;
    let _alone = alone().await;
    let setup = Setup::of_a_shop().await;
    let (mut unanswered, mut all) = (0, 0);
    for round in 0..rounds(KILLS).min(200) {
        let mut process = setup.serve().await;
        let customer = Customer::new(&process).await;
        customer.must(&customer.credit(100 * PRICE)).await;
        let told = Arc::new(Told::default());
        let mut clients = JoinSet::new();
        for client in 0..AT_ONCE {
            clients.spawn(keep_asking(customer.clone(), told.clone(), client));
        }
        let enough = 3 + round * 7 % 40;
        process.until("busy", PATIENCE, async || told.answered.load(SeqCst) >= enough).await;
        tokio::time::sleep(Duration::from_micros(rand::random_range(0..5000))).await;
        process.kill();
        told.dead.store(true, SeqCst);
        clients.join_all().await;

        let process = setup.serve().await;
        let mut books = setup.books().await;
        books.check().await;
        let customer = customer.at(&process);
        let deeds = std::mem::take(&mut *told.deeds.lock().unwrap());
        let (mut balance, mut booked, mut passes) = (103 * PRICE, 2, 0);
        all += deeds.len();
        for (deed, before) in deeds {
            let answer = customer.must(&deed).await;
            match before {
                // Told is done: it is answered as before.
                Some(before) => assert_eq!((answer.status, answer.json), before, "{deed:?}"),
                None => unanswered += 1,
            }
            booked += 1;
            if deed.path.ends_with("/credit") {
                balance += 500;
            } else if deed.path.ends_with("/purchase") {
                balance -= PRICE;
                passes += 1;
            } else {
                balance += PRICE;
            }
        }
        assert_eq!(customer.state().await, (balance, booked, passes), "round {round}");
        books.check().await;
    }
    println!("{all} requests, {unanswered} of them cut off");
    assert!(unanswered > 0, "no kill hit anything");
}

/// Buys, gives back and credits until the process is gone.
async fn keep_asking(customer: Customer, told: Arc<Told>, client: usize) {
    for number in 0..20 {
        let deed =
            if (number + client).is_multiple_of(3) { customer.credit(500) } else { purchase() };
        let Some(bought) = tell(&customer, &told, deed.clone()).await else { return };
        if !deed.by_admin && number % 2 == 0 {
            let path = format!("/tokens/{}/refund", bought.text("token_id"));
            let refund = self::deed(path, json!({}));
            if tell(&customer, &told, refund).await.is_none() {
                return;
            }
        }
    }
}

async fn tell(customer: &Customer, told: &Told, deed: Deed) -> Option<Answer> {
    let answer = customer.ask(&deed).await;
    if let Some(answer) = &answer {
        assert!(answer.status.is_success(), "{deed:?}: {answer:?}");
        told.answered.fetch_add(1, SeqCst);
    } else {
        // Not for another reason than the kill.
        let start = Instant::now();
        while !told.dead.load(SeqCst) {
            assert!(start.elapsed() < PATIENCE, "{deed:?} was not answered");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut deeds = told.deeds.lock().unwrap();
    deeds.push((deed, answer.as_ref().map(|answer| (answer.status, answer.json.clone()))));
    answer
}
