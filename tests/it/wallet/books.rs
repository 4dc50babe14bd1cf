//! Honest books, and ways to make them dishonest.

use serde_json::json;
use tollgate::{
    domain::{
        id::{PassId, TransactionId, UserId},
        ledger::{Account, Kind, Movement, Transaction},
        pass::{Origin, Pass, Sealed},
        token::PlainToken,
    },
    repositories::Repositories as _,
    services::wallet::Difference,
};

use super::{PRICED, buy, credit, id_of, refund};
use crate::support::{TestApp, TestDatabase, epoch};

/// ada: a credit of 1000, a day for 300, an hour for 100, the day refunded, so
/// 900. grace: a credit and an hour.
pub struct Books {
    pub app: TestApp,
    pub ada: UserId,
    pub grace: UserId,
    /// ada's transactions by their numbers.
    pub chain: Vec<Transaction>,
    pub day: PassId,
    pub hour: PassId,
}

impl Books {
    pub async fn kept() -> Self {
        let app = TestApp::configured(PRICED).await;
        let (admin, ada, grace) =
            (app.admin().await, app.user("ada").await, app.user("grace").await);
        let (ada, grace) = (id_of(&ada).await, id_of(&grace).await);
        for id in [&ada, &grace] {
            credit(&admin, id, json!(1000), "cash").await.expect(201);
        }
        let day = buy(&app, &ada, 24).await;
        let hour = buy(&app, &ada, 1).await;
        refund(&app, &ada, &day).await;
        buy(&app, &grace, 1).await;
        let (ada, grace) = (ada.parse().unwrap(), grace.parse().unwrap());
        let chain = app.app.db.session().await.unwrap().ledger().chain(ada, 0, 10).await.unwrap();
        assert_eq!(chain.len(), 4);
        let books = Self { app, ada, grace, chain, day: day.pass.id, hour: hour.pass.id };
        assert_eq!(books.verify().await, []);
        books
    }

    pub async fn verify(&self) -> Vec<Difference> {
        let mut found = vec![];
        self.app.app.services.wallet.verify(|difference| found.push(difference)).await.unwrap();
        found
    }

    /// Takes away what keeps the tables honest, and changes them.
    pub async fn corrupt(&self, change: &str) {
        let database = &self.app.database;
        for (table, names) in [
            ("ledger_transactions", ["no_update", "no_delete"]),
            ("ledger_entries", ["no_update", "no_delete"]),
        ] {
            match **database {
                TestDatabase::Sqlite(_) => {
                    for name in names {
                        let sql = format!("DROP TRIGGER IF EXISTS {table}_{name}");
                        database.execute(sql).await;
                    }
                }
                TestDatabase::Postgres { .. } => {
                    let sql = format!("DROP TRIGGER IF EXISTS {table}_append_only ON {table}");
                    database.execute(sql).await;
                }
            }
        }
        for index in ["ledger_transactions_pass_id_key", "ledger_transactions_reverses_id_key"] {
            database.execute(format!("DROP INDEX IF EXISTS {index}")).await;
        }
        match **database {
            TestDatabase::Sqlite(_) => {
                let lax = "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;";
                database.execute(format!("{lax} {change}")).await;
            }
            TestDatabase::Postgres { .. } => {
                for (table, constraint) in [
                    ("ledger_accounts", "balance_check"),
                    ("ledger_transactions", "balance_check"),
                    ("ledger_transactions", "kind_check"),
                    ("ledger_transactions", "amount_check"),
                    ("ledger_transactions", "reverses_id_fkey"),
                    ("ledger_entries", "transaction_id_fkey"),
                    ("passes", "refunded_check"),
                    ("passes", "price_check"),
                ] {
                    let sql = format!(
                        "ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_{constraint}"
                    );
                    database.execute(sql).await;
                }
                database.execute(change).await;
            }
        }
    }

    /// The value of an id in SQL.
    pub fn sql(&self, id: uuid::Uuid) -> String {
        match *self.app.database {
            TestDatabase::Sqlite(_) => format!("x'{}'", id.simple()),
            TestDatabase::Postgres { .. } => format!("'{id}'::uuid"),
        }
    }

    pub fn bytes(&self, bytes: &[u8]) -> String {
        match *self.app.database {
            TestDatabase::Sqlite(_) => format!("x'{}'", hex::encode(bytes)),
            TestDatabase::Postgres { .. } => format!("'\\x{}'::bytea", hex::encode(bytes)),
        }
    }

    /// Books something honestly that must not be.
    pub async fn book(
        &self,
        amount_minor: i64,
        change: impl FnOnce(&mut Movement),
    ) -> TransactionId {
        // Its own guards away first.
        self.corrupt("UPDATE passes SET version = version").await;
        let mut movement = Movement {
            id: TransactionId::new(epoch()),
            user_id: self.ada,
            kind: Kind::Refund,
            amount_minor,
            counter: Account::Revenue,
            pass_id: Some(self.day),
            voucher_id: None,
            reverses_id: Some(self.chain[1].id),
            reason: None,
            actor_id: None,
            at: epoch(),
        };
        change(&mut movement);
        let mut tx = self.app.app.db.begin().await.unwrap();
        let balance = tx.ledger().change_balance(movement.user_id, amount_minor).await.unwrap();
        let booked = tx.ledger().book(movement, balance.unwrap()).await.unwrap();
        tx.commit().await.unwrap();
        booked.id
    }

    /// A pass of ada's that says of itself that it was bought.
    pub async fn unpaid(&self) -> PassId {
        let token = PlainToken::pass(&mut rand::rng());
        let pass = Pass {
            id: PassId::new(epoch()),
            user_id: self.ada,
            prefix: token.display_prefix(),
            duration_hours: 1,
            upstream: None,
            origin: Origin::Purchase,
            price_minor: 100,
            refunded_minor: None,
            created_at: epoch(),
            activated_at: None,
            revoked_at: None,
            version: 1,
        };
        let sealed = Sealed { key: "k".to_owned(), bytes: vec![1] };
        let mut tx = self.app.app.db.begin().await.unwrap();
        tx.passes().insert(&pass, &token.hash(), &sealed).await.unwrap();
        tx.commit().await.unwrap();
        pass.id
    }
}
