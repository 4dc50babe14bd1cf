//! What purchases, refunds and the rest must answer, worked out in memory.
//!
//! Time is whole minutes since the beginning of the case.

use std::collections::HashMap;

use tollgate::domain::{
    ledger::Kind,
    pass::{NotRefundable, RefundPolicy, Status},
};

/// What is sold: hours and price. 2 hours are not.
pub const PRICES: [(u32, i64); 4] = [(1, 0), (12, 700), (24, 1001), (168, 4999)];

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Buy {
        hours: u32,
    },
    Refund {
        pass: usize,
    },
    Redeem {
        voucher: usize,
    },
    /// By an admin, whose keys those of users have nothing to do with.
    Credit {
        minor: i64,
    },
    Revoke {
        pass: usize,
        by_admin: bool,
    },
    Activate {
        pass: usize,
    },
}

/// One step of a case.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Act { user: usize, act: Act, key: Option<u8> },
    Wait { minutes: i64 },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Pass(PassSeen),
    Booked(Booked),
    /// Nobody began it and nobody can.
    Ended,
    NotFound,
    NotOffered,
    TooLow {
        balance: i64,
        missing: i64,
    },
    NotRefundable(NotRefundable),
    KeyReused,
    VoucherExpired,
    VoucherUsedUp,
    VoucherRevoked,
    VoucherRedeemed,
}

/// A pass as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassSeen {
    /// In the order of their making.
    pub number: usize,
    pub owner: usize,
    pub hours: u32,
    pub price: i64,
    pub made: i64,
    pub began: Option<i64>,
    pub ended: Option<i64>,
    pub refunded: Option<i64>,
    pub status: Status,
}

/// A line of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booked {
    pub kind: Kind,
    pub amount: i64,
    pub balance: i64,
    pub number: i64,
}

/// What vouchers there are in every case.
#[derive(Clone, Copy, Debug)]
pub struct Voucher {
    /// Minor units, or hours of a pass.
    pub money: Option<i64>,
    pub hours: u32,
    pub uses: u32,
    pub per_user: u32,
    pub expires: Option<i64>,
    pub revoked: bool,
}

pub const VOUCHERS: [Voucher; 5] = [
    Voucher { money: Some(900), hours: 0, uses: 1, per_user: 1, expires: None, revoked: false },
    Voucher { money: Some(50), hours: 0, uses: 3, per_user: 2, expires: None, revoked: false },
    Voucher { money: None, hours: 24, uses: 2, per_user: 1, expires: None, revoked: false },
    Voucher { money: Some(40), hours: 0, uses: 9, per_user: 9, expires: Some(60), revoked: false },
    Voucher { money: Some(30), hours: 0, uses: 9, per_user: 9, expires: None, revoked: true },
];

/// Whose keys they are: an admin's, or a user's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Asker {
    Admin,
    User(usize),
}

pub struct Model {
    policy: RefundPolicy,
    now: i64,
    passes: Vec<PassSeen>,
    pub statements: [Vec<Booked>; 2],
    /// By voucher: by whom it was redeemed.
    redeemed: [Vec<usize>; VOUCHERS.len()],
    /// What was done under a key: by whom, what, and the first answer.
    done: HashMap<(Asker, u8), (usize, Act, Answer)>,
}

impl Model {
    pub fn new(policy: RefundPolicy) -> Self {
        Self {
            policy,
            now: 0,
            passes: vec![],
            statements: [vec![], vec![]],
            redeemed: Default::default(),
            done: HashMap::new(),
        }
    }

    pub fn wait(&mut self, minutes: i64) {
        self.now += minutes;
    }

    pub fn balance(&self, user: usize) -> i64 {
        self.statements[user].iter().map(|line| line.amount).sum()
    }

    /// The user's passes, newest first.
    pub fn passes_of(&self, user: usize) -> Vec<PassSeen> {
        let own = self.passes.iter().rev().filter(|pass| pass.owner == user);
        own.map(|pass| PassSeen { status: self.status(pass), ..*pass }).collect()
    }

    pub fn act(&mut self, user: usize, act: Act, key: Option<u8>) -> Answer {
        let asker = match act {
            // These take no key: done again they change nothing.
            Act::Revoke { pass, by_admin } => return self.revoke(user, pass, by_admin),
            Act::Activate { pass } => return self.activate(pass),
            Act::Credit { .. } => Asker::Admin,
            Act::Buy { .. } | Act::Refund { .. } | Act::Redeem { .. } => Asker::User(user),
        };
        if let Act::Refund { pass } = act
            && self.passes.get(pass).is_none_or(|pass| pass.owner != user)
        {
            return Answer::NotFound;
        }
        let name = key.map(|key| (asker, key));
        if let Some(before) = name.and_then(|name| self.done.get(&name)) {
            return match before {
                (by, what, answer) if (*by, *what) == (user, act) => answer.clone(),
                _ => Answer::KeyReused,
            };
        }
        let answer = match act {
            Act::Buy { hours } => self.buy(user, hours),
            Act::Refund { pass } => self.refund(pass),
            Act::Redeem { voucher } => self.redeem(user, voucher),
            Act::Credit { minor } => Answer::Booked(self.book(user, Kind::Credit, minor)),
            Act::Revoke { .. } | Act::Activate { .. } => unreachable!("answered above"),
        };
        if let (Some(name), Answer::Pass(_) | Answer::Booked(_)) = (name, &answer) {
            self.done.insert(name, (user, act, answer.clone()));
        }
        answer
    }

    fn buy(&mut self, user: usize, hours: u32) -> Answer {
        let Some((_, price)) = PRICES.into_iter().find(|(sold, _)| *sold == hours) else {
            return Answer::NotOffered;
        };
        let balance = self.balance(user);
        if balance < price {
            return Answer::TooLow { balance, missing: price - balance };
        }
        if price > 0 {
            self.book(user, Kind::Purchase, -price);
        }
        Answer::Pass(self.make(user, hours, price))
    }

    fn refund(&mut self, number: usize) -> Answer {
        let pass = self.passes[number];
        let back = match (self.status(&pass), self.policy) {
            (Status::Refunded, _) => Err(NotRefundable::Refunded),
            (Status::Revoked, _) => Err(NotRefundable::Revoked),
            (Status::Expired, _) => Err(NotRefundable::Expired),
            (_, RefundPolicy::Never) => Err(NotRefundable::Never),
            (Status::Unused, _) => Ok(pass.price),
            (Status::Active, RefundPolicy::Unused) => Err(NotRefundable::InUse),
            (Status::Active, RefundPolicy::ProRata) => {
                let minutes = self.now - pass.began.unwrap();
                // An hour that has begun is gone, the first from the first use.
                let gone = ((minutes + 59) / 60).max(1);
                let hours = i64::from(pass.hours);
                Ok(pass.price * (hours - gone) / hours)
            }
        };
        match back {
            Err(why) => Answer::NotRefundable(why),
            Ok(back) => {
                if back > 0 {
                    self.book(pass.owner, Kind::Refund, back);
                }
                let (ended, refunded) = (Some(self.now), Some(back));
                self.passes[number] = PassSeen { ended, refunded, ..pass };
                Answer::Pass(self.seen(number))
            }
        }
    }

    fn redeem(&mut self, user: usize, number: usize) -> Answer {
        let voucher = VOUCHERS[number];
        let takers = &mut self.redeemed[number];
        if voucher.revoked {
            return Answer::VoucherRevoked;
        } else if takers.len() >= voucher.uses as usize {
            return Answer::VoucherUsedUp;
        } else if voucher.expires.is_some_and(|end| end <= self.now) {
            return Answer::VoucherExpired;
        } else if takers.iter().filter(|by| **by == user).count() >= voucher.per_user as usize {
            return Answer::VoucherRedeemed;
        }
        takers.push(user);
        match voucher.money {
            Some(minor) => Answer::Booked(self.book(user, Kind::Credit, minor)),
            None => Answer::Pass(self.make(user, voucher.hours, 0)),
        }
    }

    fn revoke(&mut self, user: usize, number: usize, by_admin: bool) -> Answer {
        match self.passes.get(number) {
            Some(pass) if by_admin || pass.owner == user => {
                if self.status(pass).is_usable() {
                    self.passes[number].ended = Some(self.now);
                }
                Answer::Pass(self.seen(number))
            }
            _ => Answer::NotFound,
        }
    }

    fn activate(&mut self, number: usize) -> Answer {
        let Some(pass) = self.passes.get(number) else { return Answer::NotFound };
        match self.status(pass) {
            Status::Unused => self.passes[number].began = Some(self.now),
            Status::Active => {}
            Status::Expired | Status::Revoked | Status::Refunded => return Answer::Ended,
        }
        Answer::Pass(self.seen(number))
    }

    fn make(&mut self, owner: usize, hours: u32, price: i64) -> PassSeen {
        let pass = PassSeen {
            number: self.passes.len(),
            owner,
            hours,
            price,
            made: self.now,
            began: None,
            ended: None,
            refunded: None,
            status: Status::Unused,
        };
        self.passes.push(pass);
        pass
    }

    fn book(&mut self, user: usize, kind: Kind, amount: i64) -> Booked {
        let balance = self.balance(user) + amount;
        let statement = &mut self.statements[user];
        let number = i64::try_from(statement.len()).unwrap() + 1;
        let booked = Booked { kind, amount, balance, number };
        statement.push(booked);
        booked
    }

    fn seen(&self, number: usize) -> PassSeen {
        let pass = &self.passes[number];
        PassSeen { status: self.status(pass), ..*pass }
    }

    fn status(&self, pass: &PassSeen) -> Status {
        match (pass.refunded, pass.ended, pass.began) {
            (Some(_), ..) => Status::Refunded,
            (None, Some(_), _) => Status::Revoked,
            (None, None, None) => Status::Unused,
            (None, None, Some(began)) if self.now >= began + i64::from(pass.hours) * 60 => {
                Status::Expired
            }
            (None, None, Some(_)) => Status::Active,
        }
    }
}
