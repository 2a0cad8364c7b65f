//! Groups and users, in every engine.

use futures_util::future::join_all;
use shoprelay::ids::{MessageId, Name};
use shoprelay::message::{Audience, Entry, Membership, MembershipChange, MembershipStep, Role};
use shoprelay::store::{Connect, FeedEvent, Forget, MembershipChanged, Publish, Published, Store};

use super::suite::{Bench, conformance, connect, device, ids, login, message, read, shop, shop_ref, stored};

conformance! {
    a_login_sets_groups_and_user_where_it_names_them_and_keeps_them_else,
    a_change_is_told_through_the_log_and_its_repeat_tells_nothing,
    a_device_is_unbound_from_the_user_it_has_and_no_other,
    a_change_for_every_device_is_one_entry,
    a_device_is_in_no_more_groups_than_it_may_be,
    a_change_is_taken_with_a_full_log_and_refused_for_a_stranger,
    what_a_login_finds_holds_as_of_the_head_it_finds,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn join(group: &str) -> MembershipStep {
    MembershipStep::Join(name(group))
}

fn leave(group: &str) -> MembershipStep {
    MembershipStep::Leave(name(group))
}

async fn change(store: &dyn Store, who: Option<&str>, step: MembershipStep) -> MembershipChanged {
    let change = MembershipChange { device: who.map(device), step };
    store.change_membership(&shop(), &change).await.unwrap()
}

fn changed(outcome: MembershipChanged) -> MessageId {
    let MembershipChanged::Changed(id) = outcome else { panic!("{outcome:?}") };
    id
}

async fn membership(store: &dyn Store, who: &str) -> Membership {
    store.device(&shop(), &device(who)).await.unwrap().unwrap().membership
}

fn member(groups: &[&str], user: Option<&str>) -> Membership {
    Membership { groups: groups.iter().map(|group| name(group)).collect(), user: user.map(name) }
}

async fn a_login_sets_groups_and_user_where_it_names_them_and_keeps_them_else(bench: &mut Bench) {
    let store = &*bench.store;
    let log_in = async |groups: Option<&[&str]>, user: Option<&str>| {
        let groups = groups.map(|groups| member(groups, None).groups);
        let connect = Connect { groups, user: user.map(name), ..login("hand", Role::Sub, "c1") };
        let found = store.connect(&shop(), &connect).await.unwrap().admitted().unwrap().membership;
        assert_eq!(membership(store, "hand").await, found);
        found
    };
    assert_eq!(log_in(None, None).await, member(&[], None));
    assert_eq!(log_in(Some(&["a", "店 1"]), None).await, member(&["a", "店 1"], None));
    assert_eq!(log_in(None, Some("ann")).await, member(&["a", "店 1"], Some("ann")));
    assert_eq!(log_in(Some(&["1"]), Some("bob")).await, member(&["1"], Some("bob")));
    assert_eq!(log_in(Some(&[]), None).await, member(&[], Some("bob")));
    assert_eq!(log_in(None, None).await, member(&[], Some("bob")));
    changed(change(store, Some("hand"), join("b")).await);
    assert_eq!(log_in(None, None).await, member(&["b"], Some("bob")), "what the API changed stays");
    let many: Vec<String> = (0..12_000).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(log_in(Some(&many), None).await.groups.len(), 12_000, "as many as a token has room for");
    assert_eq!(store.log_len(&shop()).await.unwrap(), 1, "a login tells nobody");
}

async fn a_change_is_told_through_the_log_and_its_repeat_tells_nothing(bench: &mut Bench) {
    bench.store.subscribe(&shop()).await.unwrap();
    let store = &*bench.store;
    connect(store, "hand", Role::Sub, "c1").await;
    connect(store, "other", Role::Sub, "c2").await;
    let first = stored(store).await;
    let steps = [
        (join("a"), member(&["a"], None)),
        (join("b"), member(&["a", "b"], None)),
        (MembershipStep::Bind(name("ann")), member(&["a", "b"], Some("ann"))),
        (MembershipStep::Bind(name("bob")), member(&["a", "b"], Some("bob"))),
        (leave("a"), member(&["b"], Some("bob"))),
        (MembershipStep::Unbind(None), member(&["b"], None)),
        (leave("b"), member(&[], None)),
        (join("b"), member(&["b"], None)),
    ];
    let mut told = vec![first];
    for (step, now) in &steps {
        told.push(changed(change(store, Some("hand"), step.clone()).await));
        assert_eq!(change(store, Some("hand"), step.clone()).await, MembershipChanged::Unchanged, "{step:?}");
        assert_eq!(membership(store, "hand").await, *now, "{step:?}");
    }
    assert_eq!(membership(store, "other").await, member(&[], None));
    assert_eq!(connect(store, "hand", Role::Sub, "c1").await.membership, member(&["b"], None));

    let page = read(store, MessageId::ZERO, 20).await;
    assert_eq!(ids(&page), told);
    assert_eq!(store.head(&shop()).await.unwrap(), told[8]);
    assert!(matches!(bench.next().await, FeedEvent::Entry { .. }));
    for (index, (step, _)) in steps.iter().enumerate() {
        let expected = MembershipChange { device: Some(device("hand")), step: step.clone() };
        let Entry::Membership(read) = &page.entries[index + 1].entry else { panic!() };
        assert_eq!(*read, expected);
        let FeedEvent::Entry { prev, stored, publisher, .. } = bench.next().await else { panic!() };
        assert_eq!((prev, stored.id, publisher.as_ref()), (told[index], told[index + 1], Some(&bench.node)));
        assert!(matches!(stored.entry, Entry::Membership(heard) if heard == expected));
    }
}

async fn a_device_is_unbound_from_the_user_it_has_and_no_other(bench: &mut Bench) {
    let store = &*bench.store;
    connect(store, "hand", Role::Sub, "c1").await;
    let unbind = async |user: Option<&str>| change(store, Some("hand"), MembershipStep::Unbind(user.map(name))).await;
    assert_eq!(unbind(None).await, MembershipChanged::Unchanged);
    assert_eq!(unbind(Some("ann")).await, MembershipChanged::Unchanged);
    changed(change(store, Some("hand"), MembershipStep::Bind(name("ann"))).await);
    assert_eq!(unbind(Some("bob")).await, MembershipChanged::Unchanged);
    assert_eq!(membership(store, "hand").await, member(&[], Some("ann")));
    changed(unbind(Some("ann")).await);
    assert_eq!(membership(store, "hand").await, member(&[], None));
}

async fn a_change_for_every_device_is_one_entry(bench: &mut Bench) {
    let store = &*bench.store;
    assert_eq!(change(store, None, leave("g")).await, MembershipChanged::Unchanged, "nobody is there");
    let groups: [(&str, &[&str]); 4] = [("a", &["g"]), ("b", &["f", "g", "h"]), ("c", &["f"]), ("d", &[])];
    for (who, groups) in groups {
        let connect = Connect { groups: Some(member(groups, None).groups), ..login(who, Role::Sub, "c") };
        store.connect(&shop(), &connect).await.unwrap();
        // The neighbours are not to be touched.
        store.connect(&"shop 10".parse().unwrap(), &connect).await.unwrap();
    }
    let id = changed(change(store, None, leave("g")).await);
    assert_eq!(change(store, None, leave("g")).await, MembershipChanged::Unchanged);
    let left: [(&str, &[&str]); 4] = [("a", &[]), ("b", &["f", "h"]), ("c", &["f"]), ("d", &[])];
    for (who, groups) in left {
        assert_eq!(membership(store, who).await, member(groups, None), "{who}");
    }
    let elsewhere = store.device(&"shop 10".parse().unwrap(), &device("a")).await.unwrap().unwrap();
    assert_eq!(elsewhere.membership, member(&["g"], None));
    let page = read(store, MessageId::ZERO, 10).await;
    assert_eq!(ids(&page), [id]);
    let Entry::Membership(entry) = &page.entries[0].entry else { panic!() };
    assert_eq!(*entry, MembershipChange { device: None, step: leave("g") });
}

async fn a_device_is_in_no_more_groups_than_it_may_be(bench: &mut Bench) {
    let store = &*bench.store;
    connect(store, "hand", Role::Sub, "c1").await;
    connect(store, "other", Role::Sub, "c2").await;
    for group in ["a", "b", "c"] {
        changed(change(store, Some("hand"), join(group)).await);
    }
    assert_eq!(change(store, Some("hand"), join("d")).await, MembershipChanged::TooManyGroups);
    assert_eq!(change(store, Some("hand"), join("c")).await, MembershipChanged::Unchanged, "it is in it");
    assert_eq!(change(store, None, join("d")).await, MembershipChanged::TooManyGroups);
    assert_eq!(membership(store, "other").await, member(&[], None), "one that cannot join keeps all from it");
    assert_eq!(store.log_len(&shop()).await.unwrap(), 3, "a refusal tells nobody");
    changed(change(store, Some("hand"), leave("b")).await);
    changed(change(store, Some("hand"), join("d")).await);
    assert_eq!(membership(store, "hand").await, member(&["a", "c", "d"], None));
    // A token may name more; leaving is always possible.
    let groups = Some(member(&["a", "b", "c", "d", "e"], None).groups);
    store.connect(&shop(), &Connect { groups, ..login("hand", Role::Sub, "c1") }).await.unwrap();
    changed(change(store, Some("hand"), leave("b")).await);
    assert_eq!(membership(store, "hand").await, member(&["a", "c", "d", "e"], None));
}

async fn a_change_is_taken_with_a_full_log_and_refused_for_a_stranger(bench: &mut Bench) {
    let store = &*bench.store;
    connect(store, "hand", Role::Sub, "c1").await;
    let messages: Vec<Publish> = (0..1000).map(|_| message(Audience::All)).collect();
    join_all(messages.iter().map(|message| store.publish(shop_ref(), message))).await;
    assert_eq!(store.publish(&shop(), &message(Audience::All)).await.unwrap(), Published::BacklogFull);
    changed(change(store, Some("hand"), join("a")).await);
    assert_eq!(change(store, Some("nobody"), join("a")).await, MembershipChanged::NoSuchDevice);
    assert_eq!(change(store, Some("nobody"), leave("a")).await, MembershipChanged::NoSuchDevice);
    assert_eq!(store.log_len(&shop()).await.unwrap(), 1001);
    assert!(store.forget(&shop(), &device("hand"), Forget::ByOperator).await.unwrap());
    assert_eq!(change(store, Some("hand"), leave("a")).await, MembershipChanged::NoSuchDevice);
}

/// A session counts the changes from the head it logged in at: one that was counted by neither, or by
/// both, would leave it with the wrong groups for as long as it lasts.
async fn what_a_login_finds_holds_as_of_the_head_it_finds(bench: &mut Bench) {
    let store = &*bench.store;
    connect(store, "hand", Role::Sub, "c0").await;
    for round in 0..100 {
        let is_in = round % 2 == 0;
        let step = if is_in { join("g") } else { leave("g") };
        let change = change(store, Some("hand"), step);
        let connect = connect(store, "hand", Role::Sub, "c1");
        let (outcome, found) = if round % 4 < 2 {
            tokio::join!(change, connect)
        } else {
            let (found, outcome) = tokio::join!(connect, change);
            (outcome, found)
        };
        let is_counted = found.head >= changed(outcome);
        assert_eq!(found.membership.groups.is_empty(), is_counted != is_in, "round {round}");
    }
}
