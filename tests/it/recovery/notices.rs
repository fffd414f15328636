//! Notices to operators: signed, and known by their id when they come again.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rstest::rstest;
use serde_json::Value;
use sha2::Sha256;
use sprag::effects::{NotifyConfig, Webhook};
use sprag::facts::{Action, Reason};
use sprag::store::{Backend, Commit, EffectState, Owe, Step};

use super::Stage;
use crate::support::host::Setup;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A notice as it came.
#[derive(Clone)]
struct Notice {
    id: String,
    timestamp: String,
    signature: String,
    body: String,
}

impl Notice {
    /// As a receiver checks it.
    fn is_genuine(&self) -> bool {
        let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).expect("base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
        mac.update(format!("{}.{}.{}", self.id, self.timestamp, self.body).as_bytes());
        let given = STANDARD.decode(self.signature.trim_start_matches("v1,")).expect("base64");
        self.signature.starts_with("v1,") && mac.verify_slice(&given).is_ok()
    }
}

/// A receiver that refuses the first `refuses` notices.
#[derive(Clone)]
struct Receiver {
    url: String,
    came: Arc<Mutex<Vec<Notice>>>,
    refuses: usize,
}

impl Receiver {
    async fn start(refuses: usize) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let receiver = Self { url, came: Arc::default(), refuses };
        let router = Router::new().route("/hook", post(take)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    fn came(&self) -> Vec<Notice> {
        self.came.lock().expect("the notices").clone()
    }

    fn webhook(&self, dir: &std::path::Path) -> Webhook {
        let file = dir.join("secret");
        std::fs::write(&file, format!("{SECRET}\n")).expect("writing the secret");
        let config =
            NotifyConfig { url: Some(self.url.clone()), secret_file: Some(file), ..NotifyConfig::default() };
        Webhook::of(&config).expect("a webhook").expect("it has a URL")
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let (id, timestamp, signature) =
        (text("webhook-id"), text("webhook-timestamp"), text("webhook-signature"));
    let mut came = receiver.came.lock().expect("the notices");
    came.push(Notice { id, timestamp, signature, body });
    if came.len() > receiver.refuses { StatusCode::NO_CONTENT } else { StatusCode::INTERNAL_SERVER_ERROR }
}

/// A step that owes a notice, as a policy would have asked for it.
async fn owe(stage: &Stage, subject: &str) {
    let owe = Owe {
        action: Action::Notify(subject.to_owned()),
        reason: Reason::new("looks-odd", "somebody should look"),
        last_fired_at: None,
        fired: 1,
    };
    let step = Step { owes: vec![owe], ..Step::of("w", 1) };
    assert_eq!(stage.db.store.commit(&[step]).await.expect("committing"), Commit::Done);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_signed_and_keeps_its_id(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let receiver = Receiver::start(2).await;
    let dir = tempfile::tempdir().expect("a directory");
    let with = |setup| Setup { webhook: Some(receiver.webhook(dir.path())), ..setup };
    let stage = Stage::with(backend, 1, with).await;
    stage.db.workspace("w").await;
    owe(&stage, "cant-be-cured").await;
    stage.delivered().await;

    let came = receiver.came();
    assert_eq!(came.len(), 3, "refused twice");
    let effects =
        stage.db.store.effects(Some(EffectState::Done), Some("w"), None, 10).await.expect("reading");
    let [effect] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(effect.attempts, 3);
    for notice in &came {
        assert!(notice.is_genuine(), "{} {}", notice.signature, notice.body);
        assert_eq!((notice.id.as_str(), &notice.body), (effect.id.as_str(), &came[0].body));
    }
    let forged = Notice { body: came[0].body.replace("odd", "fine"), ..came[0].clone() };
    assert!(!forged.is_genuine());
    let body: Value = serde_json::from_str(&came[0].body).expect("JSON");
    assert_eq!(body["type"], "workspace.cant-be-cured");
    assert_eq!(body["data"]["workspace_id"], "w");
    assert_eq!(body["data"]["reason"]["code"], "looks-odd");
}

/// It is in the log; nothing is left to do.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn without_a_receiver_a_notice_is_logged(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    stage.db.workspace("w").await;
    owe(&stage, "cant-be-cured").await;
    stage.delivered().await;
    let effects = stage.db.store.effects(None, Some("w"), None, 10).await.expect("reading");
    assert_eq!((effects[0].state, effects[0].attempts), (EffectState::Done, 1));
    assert!(effects[0].last_error.as_deref().is_some_and(|note| note.contains("notify.url")), "{effects:?}");
}
