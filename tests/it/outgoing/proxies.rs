//! Proxies of the environment are for the command line and the agent, and never
//! for this machine; the host's calls know only what is configured.

use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use sprag::store::Backend;

use super::{Recorder, sprag};
use crate::support::db::TestDb;
use crate::support::process::Launch;

/// A name that no resolver knows (RFC 6761).
const ELSEWHERE: &str = "http://registry.invalid:7171";

const VARIABLES: [&str; 6] =
    ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_to_this_machine_goes_past_every_proxy() {
    let (host, proxy) = (Recorder::default(), Recorder::default());
    let (address, through) = (host.start().await, format!("http://{}", proxy.start().await));
    let env = VARIABLES.map(|name| (name, through.as_str()));
    let port = address.rsplit(':').next().expect("a port");
    for name in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1"] {
        let (done, said) =
            sprag(&["workspace", "list", "--url", &format!("http://{name}:{port}")], &env).await;
        assert!(done, "{name}: {said}");
    }
    assert_eq!(host.asked().len(), 4);
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_elsewhere_follows_the_environment_and_names_the_proxy() {
    let proxy = Recorder::default();
    let through = proxy.start().await;
    let args = ["workspace", "list", "--url", ELSEWHERE];
    let (done, said) = sprag(&args, &[("http_proxy", &format!("http://eddie:hunter2@{through}"))]).await;
    assert!(done, "{said}");
    assert_eq!(proxy.asked(), [format!("GET {ELSEWHERE}/workspaces?limit=500")]);
    let (done, said) = sprag(&args, &[("all_proxy", "http://eddie:hunter2@127.0.0.1:1")]).await;
    assert!(!done && said.contains("(through the proxy http://127.0.0.1:1)"), "{said}");
    assert!(said.contains("Connection refused") && !said.contains("hunter2"), "{said}");
    let (done, said) = sprag(&args, &[("http_proxy", "http://127.0.0.1:1"), ("no_proxy", ".invalid")]).await;
    assert!(!done && !said.contains("through the proxy"), "{said}");
}

/// A box's start, which carries the provider's token and the box's own.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_uses_a_proxy_only_where_one_is_configured(#[values(false, true)] configured: bool) {
    let proxy = Recorder::default();
    let through = format!("http://{}", proxy.start().await);
    let env: Vec<_> =
        VARIABLES.map(|name| (name, through.as_str())).into_iter().chain([("CP", "t")]).collect();
    let mut config = "[provisioning]\nattempts = 1\nstop_attempts = 1\n".to_owned();
    if configured {
        config += &format!("proxy = {through:?}\n");
    }
    config +=
        &format!("[providers.cloud]\ntype = \"control-plane\"\nurl = {ELSEWHERE:?}\ntoken_env = \"CP\"\n");
    let db = TestDb::new(Backend::Sqlite).await;
    let state = tempfile::tempdir().expect("a directory");
    let host = Launch { config: &config, env: &env, ..Launch::of(&db.url, state.path()) }.start().await;
    let made =
        host.admin(Method::POST, "workspaces", Some(json!({ "name": "w", "provider": "cloud" }))).await;
    let claim = format!("claims/{}", made["claim_id"].as_str().expect("a claim"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    loop {
        let claim = host.admin(Method::GET, &claim, None).await;
        let asked = claim["steps"].as_array().into_iter().flatten().any(|step| step["state"] != "begun");
        if asked || !proxy.asked().is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "nobody was asked: {claim}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(!proxy.asked().is_empty(), configured, "{:?}", proxy.asked());
    host.kill().await;
}
