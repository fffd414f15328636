//! One table for all sources: what is trimmed, what is refused, what is named.

use super::{Secret, SecretError, Source};
use crate::errors::chain;

fn file(bytes: &[u8]) -> (tempfile::NamedTempFile, Source) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("writing");
    let source = Source::File(file.path().to_owned());
    (file, source)
}

fn shown(read: &Result<Secret, SecretError>) -> Result<&str, String> {
    read.as_ref().map(Secret::reveal).map_err(|error| chain(error))
}

#[test]
fn white_space_at_the_ends_goes_and_what_no_header_carries_is_refused() {
    let cases: [(&[u8], Option<&str>); 11] = [
        (b"hunter2", Some("hunter2")),
        (b"hunter2\n", Some("hunter2")),
        (b"hunter2\r\n", Some("hunter2")),
        (b" \t hunter2 \n\n", Some("hunter2")),
        (b"two words", Some("two words")),
        (b"hunter2\nhunter3", None),
        (b"hunter2\0", None),
        (b"hunter2\x1b[0m", None),
        ("hünter2".as_bytes(), None),
        (b"hunter2\xff", None),
        (b"\xef\xbb\xbfhunter2", None),
    ];
    for (bytes, expected) in cases {
        let (kept, from_file) = file(bytes);
        for source in [Source::Variable("NAME".to_owned()), Source::Stdin, Source::Given("--flag"), from_file]
        {
            let read = match &source {
                Source::File(_) => source.read(),
                _ => source.secret(bytes),
            };
            match (shown(&read), expected) {
                (Ok(found), Some(expected)) => assert_eq!(found, expected, "{bytes:?}"),
                (Err(said), None) => {
                    assert!(said.starts_with(&source.to_string()), "{said}");
                    assert!(said.contains("no header can carry") && !said.contains("nter"), "{said}");
                }
                (found, expected) => panic!("{bytes:?} from {source}: {found:?}, not {expected:?}"),
            }
        }
        drop(kept);
    }
}

#[test]
fn what_is_not_there_is_named() {
    let (_kept, empty) = file(b" \n");
    let nowhere = Source::File("/nowhere/token".into());
    let variable = Source::Variable("SPRAG_NO_SUCH_VARIABLE".to_owned());
    assert_eq!(shown(&empty.read()).expect_err("empty"), format!("{empty} is empty"));
    assert_eq!(
        shown(&variable.read()).expect_err("none"),
        "the variable SPRAG_NO_SUCH_VARIABLE is not set, or empty"
    );
    let said = shown(&nowhere.read()).expect_err("no file");
    assert!(said.starts_with("the file /nowhere/token can't be read: No such file"), "{said}");
}

#[test]
fn a_secret_has_an_end_and_is_not_shown() {
    let (_kept, long) = file(&vec![b'x'; 17 << 10]);
    assert!(matches!(long.read(), Err(SecretError::TooLong { .. })));
    assert!(matches!(Source::File("/dev/zero".into()).read(), Err(SecretError::TooLong { .. })));
    let secret = Source::Given("--flag").secret(b"hunter2").expect("a secret");
    assert_eq!(format!("{secret:?}"), "Secret(..)");
}
