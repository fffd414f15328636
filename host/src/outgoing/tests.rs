//! Addresses and proxies as tables; calls to real servers are in `tests/it/outgoing`.

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, LINK};

use super::{Elsewhere, How, Outgoing, OutgoingError, Proxy, base, is_loopback, next_page};

fn url(text: &str) -> Url {
    text.parse().expect("a URL")
}

#[test]
fn this_machine_is_known_by_all_its_names() {
    for here in [
        "http://127.0.0.1:7171",
        "http://127.8.9.10",
        "http://127.1",
        "http://0x7f000001",
        "http://2130706433",
        "http://[::1]:80",
        "http://[::ffff:127.0.0.1]",
        "http://0.0.0.0:1",
        "http://[::]:1",
        "https://localhost",
        "https://LOCALHOST.:1",
        "http://a.localhost",
    ] {
        assert!(is_loopback(&url(here)), "{here}");
    }
    for elsewhere in [
        "http://128.0.0.1",
        "http://10.0.0.1",
        "http://localhost.example.com",
        "http://notlocalhost",
        "http://[fe80::1]",
    ] {
        assert!(!is_loopback(&url(elsewhere)), "{elsewhere}");
    }
}

#[test]
fn a_base_has_no_more_than_an_address() {
    for good in ["http://cp", "https://cp:8443/base/"] {
        assert!(base(good).is_ok(), "{good}");
    }
    for bad in ["", "cp", "cp:80", "localhost:7171", "ftp://cp", "http://", "/x"] {
        assert!(matches!(base(bad), Err(OutgoingError::Base(_))), "{bad}");
    }
    for secret in
        ["http://u:hunter2@cp", "https://hunter2@cp", "http://cp?token=hunter2", "http://cp#hunter2"]
    {
        let error = base(secret).expect_err(secret);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

fn through(to: &str, proxy: &str) -> Result<Option<String>, OutgoingError> {
    let how = How { ca_file: None, proxy: Proxy::Configured(Some(proxy)), timeout: None };
    Outgoing::to(&url(to), &how).map(|client| client.proxy)
}

#[test]
fn a_proxy_is_shown_without_its_password_and_never_used_for_this_machine() {
    let proxy = "http://eddie:hunter2@proxy:3128";
    assert_eq!(through("http://cp", proxy).expect("a client").as_deref(), Some("http://proxy:3128"));
    assert_eq!(through("http://cp", "proxy:3128").expect("a client").as_deref(), Some("http://proxy:3128"));
    assert_eq!(through("http://127.0.0.1", proxy).expect("a client"), None);
    assert!(matches!(through("http://cp", ""), Err(OutgoingError::NoProxy)));
    assert!(matches!(through("http://cp", "gopher://proxy"), Err(OutgoingError::NoProxy)));
    let socks = through("http://cp", "socks5h://eddie:hunter2@proxy:1080").expect_err("no such proxy");
    assert_eq!(
        socks.to_string(),
        "the proxy socks5h://proxy:1080 speaks neither http nor https, and we nothing else"
    );
}

#[test]
fn a_file_that_holds_no_certificate_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let said = |text: &str| {
        std::fs::write(file.path(), text).expect("writing");
        let how = How { ca_file: Some(file.path()), proxy: Proxy::Configured(None), timeout: None };
        let error = Outgoing::to(&url("http://cp"), &how).expect_err("no client");
        assert!(error.to_string().contains(file.path().to_str().expect("a path")), "{error}");
        error
    };
    assert!(matches!(said(""), OutgoingError::NoCertificate { .. }));
    assert!(matches!(said("hello"), OutgoingError::NoCertificate { .. }));
    let broken = "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
    assert!(matches!(said(broken), OutgoingError::BadCertificate { .. }));
}

#[test]
fn the_next_page_is_here_or_nowhere() {
    let here = url("http://cp:8080/base/v1/boxes?limit=2");
    let next = |link: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(LINK, HeaderValue::from_str(link).expect("a header"));
        next_page(&here, &headers).map(|url| url.map(String::from))
    };
    let second = "http://cp:8080/base/v1/boxes?cursor=2";
    for link in [
        "</base/v1/boxes?cursor=2>; rel=\"next\"",
        "<?cursor=2>; rel=next",
        "</x>; rel=\"prev\", <http://cp:8080/base/v1/boxes?cursor=2>; title=\"t\"; rel=\"next\"",
    ] {
        assert_eq!(next(link), Ok(Some(second.to_owned())), "{link}");
    }
    assert_eq!(next("</x>; rel=\"prev\""), Ok(None));
    for elsewhere in ["<http://evil/>; rel=\"next\"", "<//evil/>; rel=next", "<http://cp:8081/>; rel=next"] {
        assert_eq!(next(elsewhere), Err(Elsewhere), "{elsewhere}");
    }
    assert_eq!(next_page(&here, &HeaderMap::new()), Ok(None));
}
