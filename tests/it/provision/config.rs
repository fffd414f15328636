//! `[providers.NAME]` as an operator writes it.

use std::path::Path;

use rstest::rstest;
use sprag::config::Config;
use sprag::provision::{Dispatcher, ProviderConfig};

/// Every section that the operators' page shows, but the variable's and the file's places.
#[test]
fn the_documented_providers_are_providers() {
    let page = include_str!("../../../docs/operating.md");
    let block = page.split("```toml\n").find(|block| block.starts_with("[providers.")).expect("a block");
    let text = block.split("```").next().expect("its end");
    let config: Config = toml::from_str(text).expect("a configuration");
    config.providers.check(&config.provisioning).expect("which holds");
    assert_eq!(config.providers.0.keys().collect::<Vec<_>>(), ["cloud", "local"]);
    let Some(ProviderConfig::Process(local)) = config.providers.0.get("local") else {
        panic!("local is no process");
    };
    assert_eq!((local.stop_grace_ms, local.kept_boxes), (5_000, 8), "the documented defaults");
    assert_eq!(local.pass_env, ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"]);
}

fn built(text: &str) -> Result<Dispatcher, String> {
    let config: Config = toml::from_str(text).map_err(|e| e.to_string())?;
    config.providers.check(&config.provisioning).map_err(|e| e.to_string())?;
    let built = config.providers.build(&config.provisioning, Path::new("/proc/self/exe"));
    let providers = built.map_err(|error| sprag::errors::chain(&error))?;
    Ok(Dispatcher::new(providers, config.provisioning))
}

#[test]
fn providers_are_built_by_name() {
    let dispatcher = built(
        "[providers.b]\ntype = \"process\"\ndir = \"boxes\"\n\
         [providers.a]\ntype = \"control-plane\"\nurl = \"http://127.0.0.1:9\"\ntoken_env = \"PATH\"\n",
    );
    let dispatcher = dispatcher.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(dispatcher.names(), ["a", "b"]);
    assert!(dispatcher.check("c").expect_err("no c").to_string().ends_with("configured: a, b"));
    assert_eq!(built("").unwrap_or_else(|e| panic!("{e}")).names(), Vec::<String>::new());
}

#[rstest]
#[case::no_type("[providers.a]\ndir = \"x\"", "type")]
#[case::another_type("[providers.a]\ntype = \"docker\"", "docker")]
#[case::a_misspelt_key("[providers.a]\ntype = \"process\"\ndir = \"x\"\nkept = 1", "kept")]
#[case::a_misspelt_bound("[provisioning]\nattempt = 1", "attempt")]
#[case::a_bad_name("[providers.\"A b\"]\ntype = \"process\"\ndir = \"x\"", "A b")]
#[case::no_attempts("[provisioning]\nattempts = 0", "provisioning.attempts")]
#[case::too_much_grace(
    "[providers.a]\ntype = \"process\"\ndir = \"x\"\nstop_grace_ms = 15000",
    "call_timeout_ms"
)]
#[case::no_token("[providers.a]\ntype = \"control-plane\"\nurl = \"http://x\"", "token_file")]
#[case::two_tokens(
    "[providers.a]\ntype = \"control-plane\"\nurl = \"http://x\"\ntoken_file = \"f\"\ntoken_env = \"E\"",
    "one of"
)]
#[case::an_unset_variable(
    "[providers.a]\ntype = \"control-plane\"\nurl = \"http://x\"\ntoken_env = \"SPRAG_NO_SUCH\"",
    "SPRAG_NO_SUCH"
)]
#[case::no_such_file(
    "[providers.a]\ntype = \"control-plane\"\nurl = \"http://x\"\ntoken_file = \"/nowhere/token\"",
    "/nowhere/token"
)]
#[case::no_certificates(
    "[providers.a]\ntype = \"control-plane\"\nurl = \"https://x\"\ntoken_env = \"PATH\"\nca_file = \"/nowhere/ca\"",
    "/nowhere/ca"
)]
#[case::no_certificates_for_all(
    "[provisioning]\nca_file = \"/nowhere/ca\"\n\
     [providers.a]\ntype = \"control-plane\"\nurl = \"https://x\"\ntoken_env = \"PATH\"",
    "/nowhere/ca"
)]
#[case::no_proxy(
    "[provisioning]\nproxy = \"gopher://x\"\n\
     [providers.a]\ntype = \"control-plane\"\nurl = \"https://x\"\ntoken_env = \"PATH\"",
    "proxy"
)]
#[case::no_url("[providers.a]\ntype = \"control-plane\"\nurl = \"x\"\ntoken_env = \"PATH\"", "URL")]
fn what_is_wrong_is_named(#[case] text: &str, #[case] says: &str) {
    let error = built(text).err().expect("an error");
    assert!(error.contains(says), "{error}");
}
