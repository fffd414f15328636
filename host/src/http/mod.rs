//! stub
use std::sync::Arc;
pub struct Registry {
    pub store: crate::store::Store,
    pub advance: crate::advance::Advance,
    pub heartbeats: crate::heartbeats::Heartbeats,
    pub metrics: Arc<crate::metrics::Metrics>,
}
pub struct Access {}
impl Access {
    pub fn new(_: &str, _: crate::config::Registration) -> Self {
        Self {}
    }
}
pub struct Api {
    pub registry: Arc<Registry>,
    pub revisions: Arc<crate::revisions::Revisions>,
    pub access: Arc<Access>,
}
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct HttpConfig {}
pub async fn serve(
    _: tokio::net::TcpListener,
    _: Api,
    _: &HttpConfig,
    _: tokio_util::sync::CancellationToken,
) -> anyhow::Result<()> {
    Ok(())
}
pub fn new_token() -> anyhow::Result<String> {
    Ok(String::new())
}
