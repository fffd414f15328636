//! Addresses that are taken, and that are not.

use super::checked;

#[test]
fn what_can_be_called_is_taken() {
    let urls = ["http://agent:8000", "https://10.0.0.7/a?b", "HTTP://[fd00::7]:1/", "http://127.0.0.1:9", ""];
    for url in urls {
        assert!(checked(url.to_owned(), false).is_ok(), "{url}");
    }
}

#[test]
fn what_cannot_is_refused() {
    let no_url = ["file:///etc/passwd", "agent:8000", "gopher://a/", "http://", "http:///", "u", "//a/"];
    for url in no_url {
        assert!(checked(url.to_owned(), true).is_err(), "{url}");
    }
    for text in ["http://a/\0", "http://a/b\0c?d", "http://a\n.b/", "http://a/\t", "http://a/\u{7f}"] {
        assert!(checked(text.to_owned(), true).is_err(), "{text:?}");
    }
    let long = format!("http://a/{}", "x".repeat(2_048));
    assert!(checked(long, true).is_err());
}

#[test]
fn link_local_ones_only_where_they_are_allowed() {
    let urls = [
        "http://169.254.169.254/latest/meta-data",
        "http://0xa9fea9fe/",
        "http://2852039166/",
        "http://169.254.1.1:80",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd00:ec2::254]/",
        "http://100.100.100.200/",
        "http://Metadata.Google.Internal./",
    ];
    for url in urls {
        assert!(checked(url.to_owned(), false).is_err(), "{url}");
        assert!(checked(url.to_owned(), true).is_ok(), "{url}");
    }
}
