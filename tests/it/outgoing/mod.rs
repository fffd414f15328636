//! What the host, its command line and its agent call: certificates and proxies,
//! by real servers of both on this machine.

mod lists;
mod proxies;
mod tls;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use tokio::net::TcpListener;

/// Somebody who answers everything with an empty list, and keeps what was asked.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    /// On a free port; its address.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().expect("what was asked").clone()
    }
}

async fn answer(State(recorder): State<Recorder>, request: Request) -> axum::Json<Vec<()>> {
    let line = format!("{} {}", request.method(), request.uri());
    recorder.0.lock().expect("what was asked").push(line);
    axum::Json(Vec::new())
}

/// `sprag` with these arguments and variables and none of this process's own.
async fn sprag(args: &[&str], env: &[(&str, &str)]) -> (bool, String) {
    let mut command = tokio::process::Command::new(crate::support::sprag_bin());
    command.args(args).env_clear().env("SPRAG_ADMIN_TOKEN", "a-token").envs(env.iter().copied());
    let ran = command.output().await.expect("running sprag");
    let text = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
    (ran.status.success(), text.concat())
}
