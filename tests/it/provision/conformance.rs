//! What every provider must do, whichever it is: the rules of keys and fences,
//! and that a call about one box is about no other.

use rstest::rstest;
use sprag::provision::{ListedBox, Plugin, Provisioner};

use super::outside::{Kind, Outside};
use super::{REGISTRY, call, refused, running, spec, stale, stopped};

fn plugin(name: &str) -> Plugin {
    Plugin { name: name.to_owned(), version: None }
}

async fn listed(provider: &dyn Provisioner) -> Vec<String> {
    let boxes = provider.list().await.expect("a list");
    let named = |one: ListedBox| {
        assert_eq!(one.registry_id.as_deref(), Some(REGISTRY), "it carries the identity that it was given");
        format!("{}/{}", one.workspace_id, one.instance_id)
    };
    boxes.into_iter().map(named).collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_starts_runs_and_stops(#[values(Kind::Process, Kind::ControlPlane)] kind: Kind) {
    let outside = Outside::new(kind).await;
    let p = outside.provider();
    assert_eq!(p.status("w", "a").await, Ok(stopped("w", "a")), "never was");
    assert_eq!(p.start(&call("w", "1.1", "k1"), "a", &spec()).await, Ok(running("w", "a")));
    assert_eq!(p.status("w", "a").await, Ok(running("w", "a")));
    assert_eq!(listed(&*p).await, ["w/a"]);
    assert_eq!(p.stop(&call("w", "1.2", "k2"), "a").await, Ok(stopped("w", "a")));
    assert_eq!(p.status("w", "a").await, Ok(stopped("w", "a")));
    assert_eq!(p.stop(&call("w", "1.3", "k3"), "a").await, Ok(stopped("w", "a")), "stopped already");
    assert_eq!(listed(&*p).await, Vec::<String>::new());
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_key_is_answered_as_then_and_nothing_is_done(
    #[values(Kind::Process, Kind::ControlPlane)] kind: Kind,
) {
    let outside = Outside::new(kind).await;
    let p = outside.provider();
    let start = call("w", "1.1", "k1");
    p.start(&start, "a", &spec()).await.expect("a start");
    assert_eq!(p.start(&start, "a", &spec()).await, Ok(running("w", "a")), "a repeat");
    p.stop(&call("w", "1.2", "k2"), "a").await.expect("a stop");
    assert_eq!(p.start(&start, "a", &spec()).await, Ok(running("w", "a")), "as then");
    assert_eq!(p.status("w", "a").await, Ok(stopped("w", "a")), "but nothing was started");
    p.start(&call("w", "1.3", "k3"), "b", &spec()).await.expect("a start");
    assert_eq!(p.stop(&call("w", "1.2", "k2"), "a").await, Ok(stopped("w", "a")), "an old stop");
    assert_eq!(p.fence(&call("w", "2.0", "k4")).await, Ok(vec![running("w", "b")]));
    p.stop(&call("w", "2.1", "k5"), "b").await.expect("a stop");
    assert_eq!(p.fence(&call("w", "2.0", "k4")).await, Ok(vec![running("w", "b")]), "as then");
    assert_eq!(refused(p.stop(&call("w", "3.0", "k1"), "a").await), "key_reused");
    assert_eq!(p.fence(&call("w", "2.2", "k6")).await, Ok(vec![]), "a refused key accepts no fence");
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_overtaken_does_nothing(#[values(Kind::Process, Kind::ControlPlane)] kind: Kind) {
    let outside = Outside::new(kind).await;
    let p = outside.provider();
    p.start(&call("w", "2.1", "k1"), "a", &spec()).await.expect("a start");
    for (fence, key) in [("1.9", "older epoch"), ("2.0", "older number"), ("2.1", "equal")] {
        let late = call("w", fence, &key.replace(' ', "-"));
        assert_eq!(p.stop(&late, "a").await, stale("2.1"), "{key}");
        assert_eq!(p.fence(&late).await, stale("2.1"), "{key}");
        assert_eq!(p.deliver(&late, "a", &[plugin("x")]).await, stale("2.1"), "{key}");
        assert_eq!(p.start(&late, "a", &spec()).await, stale("2.1"), "{key}");
    }
    assert_eq!(p.status("w", "a").await, Ok(running("w", "a")));
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_comes_after_a_fence_starts_nothing(
    #[values(Kind::Process, Kind::ControlPlane)] kind: Kind,
) {
    let outside = Outside::new(kind).await;
    let (slow, quick) = (outside.provider(), outside.provider());
    assert_eq!(quick.fence(&call("w", "2.0", "k2")).await, Ok(vec![]));
    assert_eq!(slow.start(&call("w", "1.1", "k1"), "a", &spec()).await, stale("2.0"));
    assert_eq!(quick.fence(&call("w", "2.1", "k3")).await, Ok(vec![]));
    assert_eq!(quick.status("w", "a").await, Ok(stopped("w", "a")));
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_touches_no_other_box(#[values(Kind::Process, Kind::ControlPlane)] kind: Kind) {
    let outside = Outside::new(kind).await;
    let p = outside.provider();
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    p.start(&call("v", "1.1", "k1"), "a", &spec()).await.expect("a start");
    assert_eq!(p.stop(&call("w", "1.2", "k2"), "b").await, Ok(stopped("w", "b")), "never was");
    assert_eq!(p.status("w", "a").await, Ok(running("w", "a")));
    assert_eq!(p.stop(&call("w", "1.3", "k3"), "a").await, Ok(stopped("w", "a")));
    assert_eq!(p.status("v", "a").await, Ok(running("v", "a")), "another workspace's box of that name");
    assert_eq!(p.fence(&call("v", "1.2", "k2")).await, Ok(vec![running("v", "a")]));
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workspaces_have_fences_and_keys_of_their_own(
    #[values(Kind::Process, Kind::ControlPlane)] kind: Kind,
) {
    let outside = Outside::new(kind).await;
    let p = outside.provider();
    assert_eq!(p.fence(&call("w", "9.0", "k")).await, Ok(vec![]));
    assert_eq!(p.start(&call("v", "1.0", "k"), "a", &spec()).await, Ok(running("v", "a")));
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_that_ended_by_itself_is_stopped(#[values(Kind::Process, Kind::ControlPlane)] kind: Kind) {
    let outside = Outside::new(kind).await;
    let p = outside.provider();
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    outside.end("w", "a").await;
    assert_eq!(listed(&*p).await, Vec::<String>::new());
    assert_eq!(p.fence(&call("w", "1.2", "k2")).await, Ok(vec![]));
    assert_eq!(p.stop(&call("w", "1.3", "k3"), "a").await, Ok(stopped("w", "a")));
    assert_eq!(p.start(&call("w", "1.4", "k4"), "b", &spec()).await, Ok(running("w", "b")));
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_box_is_started_already(#[values(Kind::Process, Kind::ControlPlane)] kind: Kind) {
    let outside = Outside::new(kind).await;
    let p = outside.provider();
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    assert_eq!(p.start(&call("w", "1.2", "k2"), "a", &spec()).await, Ok(running("w", "a")));
    assert_eq!(p.fence(&call("w", "1.3", "k3")).await, Ok(vec![running("w", "a")]));
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_are_replaced_and_need_a_running_box(
    #[values(Kind::Process, Kind::ControlPlane)] kind: Kind,
) {
    let outside = Outside::new(kind).await;
    let p = outside.provider();
    assert_eq!(refused(p.deliver(&call("w", "1.0", "k0"), "a", &[]).await), "not_running");
    p.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    let (first, second) = ([plugin("one"), plugin("two")], [plugin("three")]);
    assert_eq!(p.deliver(&call("w", "1.2", "k2"), "a", &first).await, Ok(()));
    assert_eq!(outside.plugins("w", "a"), ["one", "two"]);
    assert_eq!(p.deliver(&call("w", "1.3", "k3"), "a", &second).await, Ok(()));
    assert_eq!(outside.plugins("w", "a"), ["three"]);
    assert_eq!(p.deliver(&call("w", "1.2", "k2"), "a", &first).await, Ok(()), "as then");
    assert_eq!(outside.plugins("w", "a"), ["three"], "and nothing was delivered");
}

/// Two hosts on one outside: each sees what the other did, and its fences hold for both.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_see_the_same(#[values(Kind::Process, Kind::ControlPlane)] kind: Kind) {
    let outside = Outside::new(kind).await;
    let (one, two) = (outside.provider(), outside.provider());
    one.start(&call("w", "1.1", "k1"), "a", &spec()).await.expect("a start");
    assert_eq!(two.start(&call("w", "1.1", "k1"), "a", &spec()).await, Ok(running("w", "a")), "a repeat");
    assert_eq!(two.fence(&call("w", "2.0", "k2")).await, Ok(vec![running("w", "a")]));
    assert_eq!(one.stop(&call("w", "1.2", "k3"), "a").await, stale("2.0"));
    assert_eq!(two.stop(&call("w", "2.1", "k4"), "a").await, Ok(stopped("w", "a")));
    drop((one, two));
    let third = outside.provider();
    assert_eq!(third.stop(&call("w", "1.2", "k3"), "a").await, stale("2.1"), "a restart forgets nothing");
    assert_eq!(third.stop(&call("w", "2.1", "k4"), "a").await, Ok(stopped("w", "a")));
}

/// However calls race, at most one box of the workspace is left, and it is the newest accepted.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fence_that_races_starts_knows_what_runs(#[values(Kind::Process, Kind::ControlPlane)] kind: Kind) {
    let outside = Outside::new(kind).await;
    for round in 0..5_u64 {
        let workspace = format!("w{round}");
        let (starter, fencer) = (outside.provider(), outside.provider());
        let start_call = call(&workspace, "1.1", "k1");
        let (fence_call, spec) = (call(&workspace, "2.0", "k2"), spec());
        let start = starter.start(&start_call, "a", &spec);
        let fence = async {
            tokio::time::sleep(std::time::Duration::from_millis(round * 8)).await;
            fencer.fence(&fence_call).await.expect("a fence")
        };
        let (started, seen) = futures::join!(start, fence);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let runs = fencer.status(&workspace, "a").await.expect("a status") == running(&workspace, "a");
        if runs {
            assert_eq!(seen, [running(&workspace, "a")], "round {round}: a box that the fence did not see");
        }
        if started == stale("2.0") {
            assert!(!runs, "round {round}: an overtaken start started something");
        }
    }
}
