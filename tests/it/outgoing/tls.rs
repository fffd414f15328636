//! `https`: the right certificate is trusted, and of a wrong one is said why.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rstest::rstest;
use sprag::effects::{NotifyConfig, Webhook};
use sprag::outgoing::{How, Proxy};
use sprag::provision::Provisioner as _;
use sprag::provision::control_plane::{ControlPlane, Secret};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::server::TlsStream;

use super::{Recorder, sprag};

/// An authority, and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn signs(&self, name: &str, last_year: i32) -> ServerConfig {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = tokio_rustls::rustls::crypto::ring::default_provider();
        ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(signed.der().to_vec())], key.into())
            .expect("a server")
    }
}

struct Encrypted {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.expect("a caller");
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A server, and a file with the authority that its callers trust.
struct Stage {
    url: String,
    ca_file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Stage {
    async fn new(trusted: &Authority, server: ServerConfig) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, &trusted.pem).expect("writing");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let encrypted = Encrypted { listener, acceptor: TlsAcceptor::from(Arc::new(server)) };
        let router = Recorder::default().router();
        tokio::spawn(async move { axum::serve(encrypted, router).await });
        Self { url, ca_file, _dir: dir }
    }

    /// What the command line, the control plane's client and the webhook say.
    async fn callers(&self) -> [(&'static str, Result<(), String>); 3] {
        let ca_file = self.ca_file.to_str().expect("a path");
        let (done, said) = sprag(&["workspace", "list", "--url", &self.url, "--ca-file", ca_file], &[]).await;
        let how = How { ca_file: Some(&self.ca_file), proxy: Proxy::Configured(None), timeout: None };
        let plane = ControlPlane::with(&self.url, Secret::Value("t".to_owned()), &how).expect("a client");
        let listed = plane.list().await.map(|_| ()).map_err(|error| error.to_string());
        let secret = self.ca_file.with_file_name("secret");
        std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("writing");
        let config = NotifyConfig {
            url: Some(format!("{}/hook?key=hunter2", self.url)),
            secret_file: Some(secret),
            ca_file: Some(self.ca_file.clone()),
            ..NotifyConfig::default()
        };
        let webhook = Webhook::of(&config).expect("a webhook").expect("it has a URL");
        let notified = webhook.send("id", &serde_json::json!({})).await;
        [
            ("the command line", if done { Ok(()) } else { Err(said) }),
            ("the plane", listed),
            ("the webhook", notified),
        ]
    }
}

#[rstest]
#[case::right("127.0.0.1", 4000, true, "")]
#[case::of_another_authority("127.0.0.1", 4000, false, "UnknownIssuer (trusted certificates: /")]
#[case::for_another_name("example.com", 4000, true, "certificate not valid for name")]
#[case::expired("127.0.0.1", 2001, true, "certificate expired")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_checked_and_the_error_says_why(
    #[case] name: &str,
    #[case] last_year: i32,
    #[case] trusted: bool,
    #[case] says: &str,
) {
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    let server = authority.signs(name, last_year);
    let stage = Stage::new(if trusted { &authority } else { &other }, server).await;
    for (caller, answer) in stage.callers().await {
        match answer {
            Ok(()) => assert_eq!(says, "", "{caller} was content"),
            Err(why) => {
                assert!(!says.is_empty() && why.contains(says), "{caller}: {why}");
                assert!(!why.contains("hunter2"), "{caller}: {why}");
            }
        }
    }
}

/// The system's store, wherever it says that it lies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file_the_systems_certificates_count() {
    let authority = Authority::new("ours");
    let stage = Stage::new(&authority, authority.signs("127.0.0.1", 4000)).await;
    let args = ["workspace", "list", "--url", &stage.url];
    let store = stage.ca_file.to_str().expect("a path");
    let (done, said) = sprag(&args, &[("SSL_CERT_FILE", store)]).await;
    assert!(done, "{said}");
    let other = Stage::new(&Authority::new("another"), authority.signs("127.0.0.1", 4000)).await;
    let (done, said) = sprag(&args, &[("SSL_CERT_FILE", other.ca_file.to_str().expect("a path"))]).await;
    assert!(!done && said.contains("UnknownIssuer (trusted certificates: the system's)"), "{said}");
}
