//! Calls to others. Every HTTP client of the host, its command line and its
//! sample agent is made here, so that all trust the same certificates, use a
//! proxy only where they should, follow no redirect (it would take a token to
//! who knows whom), and say the whole cause where a call fails.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use reqwest::header::{HeaderMap, LINK};
use reqwest::{Certificate, Method, RequestBuilder, Url, redirect};

use crate::errors;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// Which proxy calls go through. Never to this machine itself.
#[derive(Clone, Copy, Debug)]
pub enum Proxy<'a> {
    /// This one, or none: the host's calls, whatever its environment says.
    Configured(Option<&'a str>),
    /// `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`, as curl has them.
    Environment,
}

/// How calls to one address are made.
#[derive(Clone, Copy, Debug)]
pub struct How<'a> {
    /// PEM certificates to trust instead of the system's.
    pub ca_file: Option<&'a Path>,
    pub proxy: Proxy<'a>,
    /// How long a call may take, its answer included. None: whoever calls cuts it off.
    pub timeout: Option<Duration>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    #[error("{0:?} is no base of a URL; expected http://HOST[:PORT][/PATH] or https://…")]
    Base(String),
    #[error("the URL has more than scheme, host, port and path; a secret in it would be shown with it")]
    TooMuch,
    #[error("the CA file {} can't be read", path.display())]
    CaFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the CA file {} holds no certificate; expected PEM, -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate { path: PathBuf },
    #[error("the CA file {} holds a certificate that can't be read", path.display())]
    BadCertificate {
        path: PathBuf,
        #[source]
        source: reqwest::Error,
    },
    #[error("the configured proxy is none; expected http://[USER:PASSWORD@]HOST[:PORT] or https://…")]
    NoProxy,
    #[error("the proxy {0} speaks neither http nor https, and we nothing else")]
    ProxyScheme(String),
    #[error("the HTTP client can't be made")]
    Client(#[source] reqwest::Error),
}

/// A client for one address.
#[derive(Clone, Debug)]
pub struct Outgoing {
    client: reqwest::Client,
    /// The proxy, without its password.
    proxy: Option<String>,
    trusted: String,
}

impl Outgoing {
    /// # Errors
    /// A CA file or a proxy that is none.
    #[allow(clippy::disallowed_methods, reason = "the one place where clients are made")]
    pub fn to(url: &Url, how: &How<'_>) -> Result<Self, OutgoingError> {
        let proxy = proxy_to(url, how.proxy)?;
        let certificates = how.ca_file.map(certificates).transpose()?;
        let encrypted = url.scheme() == "https"
            || proxy.as_ref().is_some_and(|proxy| proxy.uri().scheme_str() == Some("https"));
        let trusted = how.ca_file.map_or("the system's".to_owned(), |path| path.display().to_string());
        // One provider of cryptography for all of the process; it may be there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder =
            reqwest::Client::builder().redirect(redirect::Policy::none()).connect_timeout(CONNECT).no_proxy();
        builder = match (certificates, encrypted) {
            (Some(only), _) => builder.tls_certs_only(only),
            (None, true) => builder,
            // The system's roots take time to read, and there may be none.
            (None, false) => builder.tls_certs_only([]),
        };
        if let Some(timeout) = how.timeout {
            builder = builder.timeout(timeout);
        }
        if let Some(proxy) = &proxy {
            let mut through = reqwest::Proxy::all(proxy.uri().to_string()).map_err(OutgoingError::Client)?;
            if let Some(auth) = proxy.basic_auth() {
                through = through.custom_http_auth(auth.clone());
            }
            builder = builder.proxy(through);
        }
        let client = builder.build().map_err(OutgoingError::Client)?;
        Ok(Self { client, proxy: proxy.map(|proxy| shown(&proxy)), trusted })
    }

    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// Why a call came to nothing, with every cause and the proxy that it went
    /// through; without the URL, which may hold a secret.
    pub fn why(&self, error: reqwest::Error) -> String {
        let mut why = errors::chain(&error.without_url());
        if why.contains("UnknownIssuer") {
            why += &format!(" (trusted certificates: {})", self.trusted);
        }
        if let Some(proxy) = &self.proxy {
            why += &format!(" (through the proxy {proxy})");
        }
        why
    }
}

/// What stands before the paths of a service: `http` or `https`, a host, and at
/// most a port and a path.
///
/// # Errors
/// It is none, or has more than that.
pub fn base(text: &str) -> Result<Url, OutgoingError> {
    let url: Url = text.parse().map_err(|_| OutgoingError::Base(text.to_owned()))?;
    // A secret in a URL would be shown with it.
    let plain = url.username().is_empty() && url.password().is_none();
    if !plain || url.query().is_some() || url.fragment().is_some() {
        return Err(OutgoingError::TooMuch);
    }
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(OutgoingError::Base(text.to_owned())),
    }
}

/// Whether calls to it stay on this machine.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse::<std::net::IpAddr>() {
        // An address that is not specified is this machine's own.
        Ok(address) => address.to_canonical().is_loopback() || address.to_canonical().is_unspecified(),
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// A next page that is elsewhere: the token is not for there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a next page that is elsewhere")]
pub struct Elsewhere;

/// The next page's address, as `Link` has it (RFC 8288).
///
/// # Errors
/// It is of another origin.
pub fn next_page(here: &Url, headers: &HeaderMap) -> Result<Option<Url>, Elsewhere> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let Some(target) = links.flat_map(|value| value.split(',')).find_map(next) else { return Ok(None) };
    match here.join(target) {
        Ok(url) if url.origin() == here.origin() => Ok(Some(url)),
        _ => Err(Elsewhere),
    }
}

/// The target of one link, where it is the next.
fn next(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = |p: &str| matches!(p.trim(), "rel=\"next\"" | "rel=next");
    parameters.split(';').any(is_next).then_some(target)
}

fn proxy_to(url: &Url, proxy: Proxy<'_>) -> Result<Option<Intercept>, OutgoingError> {
    if is_loopback(url) {
        return Ok(None);
    }
    let Ok(to) = url.as_str().parse::<Uri>() else { return Ok(None) };
    let found = match proxy {
        Proxy::Configured(None) => None,
        Proxy::Configured(Some(proxy)) => {
            let matcher = Matcher::builder().all(proxy.to_owned()).build();
            Some(matcher.intercept(&to).ok_or(OutgoingError::NoProxy)?)
        }
        Proxy::Environment => Matcher::from_env().intercept(&to),
    };
    match found {
        Some(proxy) if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) => {
            Err(OutgoingError::ProxyScheme(shown(&proxy)))
        }
        found => Ok(found),
    }
}

fn shown(proxy: &Intercept) -> String {
    proxy.uri().to_string().trim_end_matches('/').to_owned()
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, OutgoingError> {
    let path = path.to_owned();
    let pem = match std::fs::read(&path) {
        Ok(pem) => pem,
        Err(source) => return Err(OutgoingError::CaFile { path, source }),
    };
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if found.is_empty() => Err(OutgoingError::NoCertificate { path }),
        Ok(found) => Ok(found),
        Err(source) => Err(OutgoingError::BadCertificate { path, source }),
    }
}

#[cfg(test)]
mod tests;
