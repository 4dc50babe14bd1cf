//! Any sequence of what moves money or ends passes answers as a model of it
//! does, and leaves the books in order (G-74).
//!
//! `TOLLGATE_MODEL_CASES` sets how many sequences (`make races`: more than CI).

mod model;
mod real;

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use tollgate::domain::pass::RefundPolicy;

use self::{
    model::{Act, Model, Step, VOUCHERS},
    real::Real,
};

const CASES: u32 = 500;
const STEPS: usize = 25;
/// Passes that are aimed at; in most cases fewer are made.
const PASSES: usize = 6;

const POLICIES: [(&str, RefundPolicy); 3] = [
    ("never", RefundPolicy::Never),
    ("unused", RefundPolicy::Unused),
    ("pro_rata", RefundPolicy::ProRata),
];

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => select(vec![1, 2, 12, 24, 168]).prop_map(|hours| Act::Buy { hours }),
        4 => (0..PASSES).prop_map(|pass| Act::Refund { pass }),
        3 => (0..VOUCHERS.len()).prop_map(|voucher| Act::Redeem { voucher }),
        4 => select(vec![1, 700, 1001, 5000]).prop_map(|minor| Act::Credit { minor }),
        1 => (0..PASSES, any::<bool>()).prop_map(|(pass, by_admin)| Act::Revoke { pass, by_admin }),
        4 => (0..PASSES).prop_map(|pass| Act::Activate { pass }),
    ]
}

/// Few keys, so that they come again, for the same and for something else.
fn key() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![1 => Just(None), 1 => (0u8..4).prop_map(Some)]
}

fn step() -> impl Strategy<Value = Step> {
    // Around the ends of hours and of passes.
    let wait = select(vec![1, 59, 60, 61, 120, 11 * 60, 12 * 60, 23 * 60, 24 * 60]);
    prop_oneof![
        6 => (0..2usize, act(), key()).prop_map(|(user, act, key)| Step::Act { user, act, key }),
        1 => wait.prop_map(|minutes| Step::Wait { minutes }),
    ]
}

/// Requests are also sent again, at once or later.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let again = (any::<prop::sample::Index>(), any::<prop::sample::Index>());
    let again = prop::collection::vec(again, 0..5);
    (prop::collection::vec(step(), 1..STEPS), again).prop_map(|(mut steps, again)| {
        for (from, to) in again {
            let (from, to) = (from.index(steps.len()), to.index(steps.len() + 1));
            steps.insert(to, steps[from]);
        }
        steps
    })
}

async fn run(real: &mut Real, policy: RefundPolicy, steps: &[Step]) {
    let mut model = Model::new(policy);
    real.begin().await;
    for (at, step) in steps.iter().enumerate() {
        match *step {
            Step::Wait { minutes } => {
                model.wait(minutes);
                real.wait(minutes);
            }
            Step::Act { user, act, key } => {
                let expected = model.act(user, act, key);
                let answer = real.act(user, act, key).await;
                assert_eq!(answer, expected, "step {at}: {step:?}");
                for user in 0..2 {
                    assert_eq!(real.balance(user).await, model.balance(user), "step {at}");
                }
            }
        }
    }
    for user in 0..2 {
        assert_eq!(real.passes_of(user).await, model.passes_of(user));
        assert_eq!(real.statement(user).await, model.statements[user]);
    }
    real.books.check().await;
}

#[test]
fn any_sequence_answers_as_the_model_and_leaves_the_books_in_order() {
    let cases = std::env::var("TOLLGATE_MODEL_CASES")
        .map_or(CASES, |cases| cases.parse().expect("TOLLGATE_MODEL_CASES is a number"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Shared by all cases; each has users of its own.
    let reals = runtime.block_on(async {
        let mut reals = vec![];
        for (name, _) in POLICIES {
            reals.push(Real::start(name).await);
        }
        std::cell::RefCell::new(reals)
    });
    let kept = FileFailurePersistence::Direct("tests/it/money_model/regressions.txt");
    let config = Config { cases, failure_persistence: Some(Box::new(kept)), ..Config::default() };
    let result = TestRunner::new(config).run(&(0..POLICIES.len(), steps()), |(policy, steps)| {
        let mut reals = reals.borrow_mut();
        runtime.block_on(run(&mut reals[policy], POLICIES[policy].1, &steps));
        Ok(())
    });
    // What runs on the runtime ends on it.
    let _entered = runtime.enter();
    drop(reals);
    if let Err(error) = result {
        panic!("{error}");
    }
}
