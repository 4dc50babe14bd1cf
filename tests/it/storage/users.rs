use tollgate::{
    domain::{
        id::UserId,
        page::PageRequest,
        principal::Account,
        user::{Role, Roles, User},
    },
    repositories::{Repositories, UserFilter},
};

use super::{Store, at, user};
use crate::support::epoch;

#[tokio::test]
async fn what_is_written_is_what_is_read() {
    let store = Store::fresh().await;
    let alice = store.user("Älice").await;
    let mut session = store.db.session().await.unwrap();
    let mut users = session.users();
    assert_eq!(users.find(alice.id).await.unwrap().as_ref(), Some(&alice));
    assert_eq!(users.password_hash(alice.id).await.unwrap().as_deref(), Some("hash"));
    let account = Account {
        id: alice.id,
        username: alice.username,
        roles: Roles::USER,
        is_active: true,
        version: 1,
    };
    assert_eq!(users.account(alice.id).await.unwrap(), Some(account));

    let nobody = UserId::new(epoch());
    assert_eq!(users.find(nobody).await.unwrap(), None);
    assert_eq!(users.password_hash(nobody).await.unwrap(), None);
    assert_eq!(users.account(nobody).await.unwrap(), None);
}

#[tokio::test]
async fn one_signs_in_by_name_or_mail_in_any_case() {
    let store = Store::fresh().await;
    let alice = store.user("Älice").await;
    store.user("bob").await;
    let mut session = store.db.session().await.unwrap();
    let mut users = session.users();
    for login in ["älice", "älice@example.com"] {
        let found = users.find_by_login(login).await.unwrap();
        assert_eq!(found, Some((alice.clone(), "hash".to_owned())), "{login}");
    }
    assert_eq!(users.find_by_login("carol").await.unwrap(), None);
}

#[tokio::test]
async fn a_name_wins_over_an_equal_address_of_somebody_else() {
    let store = Store::fresh().await;
    let mail = User { email: "x@y".to_owned(), ..user("alice") };
    let name = User { email: "b@y".to_owned(), ..user("x@y") };
    let mut tx = store.begin().await;
    for user in [&mail, &name] {
        tx.users().insert(user, "hash").await.unwrap();
    }
    let (found, _) = tx.users().find_by_login("x@y").await.unwrap().unwrap();
    assert_eq!(found.id, name.id);
}

#[tokio::test]
async fn a_changed_profile_is_returned_and_found_by_its_new_address() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    store.user("bob").await;
    let mut tx = store.begin().await;
    let changed =
        tx.users().update_profile(alice.id, None, "A@New.example", at(1)).await.unwrap().unwrap();
    let expected = User {
        full_name: None,
        email: "A@New.example".to_owned(),
        updated_at: at(1),
        ..alice.clone()
    };
    assert_eq!(changed, expected);
    let found = tx.users().find_by_login("a@new.example").await.unwrap();
    assert_eq!(found.unwrap().0, expected);
    let nobody = UserId::new(epoch());
    assert_eq!(tx.users().update_profile(nobody, None, "n@x", at(1)).await.unwrap(), None);

    let taken = tx.users().update_profile(alice.id, None, "BOB@example.com", at(2)).await;
    assert!(taken.unwrap_err().violates("users_email_key"));
}

#[tokio::test]
async fn changes_that_caches_must_see_raise_the_version() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let admin = Roles::USER.with(Role::Admin);
    let mut tx = store.begin().await;
    let mut users = tx.users();
    assert_eq!(users.set_password(alice.id, "new", at(1)).await.unwrap(), Some(2));
    assert_eq!(users.set_active(alice.id, false, at(2)).await.unwrap(), Some(3));
    assert_eq!(users.set_roles(alice.id, admin, at(3)).await.unwrap(), Some(4));
    assert_eq!(users.password_hash(alice.id).await.unwrap().as_deref(), Some("new"));
    let found = users.find(alice.id).await.unwrap().unwrap();
    let expected =
        User { roles: admin, is_active: false, version: 4, updated_at: at(3), ..alice.clone() };
    assert_eq!(found, expected);

    let nobody = UserId::new(epoch());
    assert_eq!(users.set_password(nobody, "new", at(1)).await.unwrap(), None);
    assert_eq!(users.set_active(nobody, true, at(1)).await.unwrap(), None);
    assert_eq!(users.set_roles(nobody, admin, at(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_hash_is_replaced_only_while_it_is_the_one_seen() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let mut tx = store.begin().await;
    let mut users = tx.users();
    assert!(!users.replace_hash(alice.id, "other", "stronger").await.unwrap());
    assert!(users.replace_hash(alice.id, "hash", "stronger").await.unwrap());
    assert_eq!(users.password_hash(alice.id).await.unwrap().as_deref(), Some("stronger"));
    assert_eq!(users.find(alice.id).await.unwrap().unwrap().version, 1);
}

#[tokio::test]
async fn an_account_goes_with_its_sessions_and_keys() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let login = store.session(alice.id, epoch()).await;
    let (key, hash) = store.key(alice.id, "ci").await;
    let mut tx = store.begin().await;
    assert_eq!(tx.users().delete(alice.id).await.unwrap(), Some(1));
    assert_eq!(tx.users().delete(alice.id).await.unwrap(), None);
    assert_eq!(tx.login_sessions().find(login.id).await.unwrap(), None);
    assert_eq!(tx.api_keys().find(key.id).await.unwrap(), None);
    assert_eq!(tx.api_keys().find_by_hash(&hash, epoch()).await.unwrap(), None);
}

#[tokio::test]
async fn lists_are_filtered_and_paged_newest_first() {
    let store = Store::fresh().await;
    let mut ids = vec![];
    let mut tx = store.begin().await;
    for (number, name) in ["ANNA", "b_b", "bob", "Änne", "carl%"].into_iter().enumerate() {
        let mut user = user(name);
        user.id = UserId::new(at(i64::try_from(number).unwrap()));
        user.is_active = number != 2;
        user.roles = if number == 0 { Roles::USER.with(Role::Moderator) } else { Roles::USER };
        tx.users().insert(&user, "hash").await.unwrap();
        ids.push(user.id);
    }
    let all = UserFilter::default();
    let search = |q: &str| UserFilter { q: Some(q.to_owned()), ..UserFilter::default() };
    for (filter, expected) in [
        (all.clone(), vec![4, 3, 2, 1, 0]),
        (search("ANN"), vec![0]),
        (search("ÄNNE"), vec![3]),
        (search("b_b"), vec![1]),
        (search("%"), vec![4]),
        (search(r"\"), vec![]),
        (search("@example.COM"), vec![4, 3, 2, 1, 0]),
        (UserFilter { is_active: Some(false), ..all.clone() }, vec![2]),
        (UserFilter { role: Some(Role::Moderator), ..all.clone() }, vec![0]),
        (UserFilter { role: Some(Role::User), is_active: Some(true), ..search("b") }, vec![1]),
    ] {
        let page = tx.users().list(&filter, PageRequest::FIRST).await.unwrap();
        let found: Vec<_> = page.items.iter().map(|user| user.id).collect();
        let expected: Vec<_> = expected.into_iter().map(|at: usize| ids[at]).collect();
        assert_eq!(found, expected, "{filter:?}");
        assert_eq!(page.next, None);
    }

    let (mut seen, mut after) = (vec![], None);
    loop {
        let page = tx.users().list(&all, PageRequest { limit: 2, after }).await.unwrap();
        seen.extend(page.items.iter().map(|user| user.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    ids.reverse();
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn an_admin_is_noticed() {
    let store = Store::fresh().await;
    let alice = store.user("alice").await;
    let mut tx = store.begin().await;
    assert!(!tx.users().any_admin().await.unwrap());
    tx.users().set_roles(alice.id, Roles::USER.with(Role::Admin), at(1)).await.unwrap();
    assert!(tx.users().any_admin().await.unwrap());
    assert_eq!(tx.users().count_admins().await.unwrap(), 1);
}
