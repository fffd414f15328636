//! A directory that doesn't answer, as far as a test can have one.

use std::io::{Error, ErrorKind};
use std::sync::mpsc;
use std::time::Instant;

use super::*;

#[tokio::test]
async fn a_file_system_that_hangs_is_left_to_hang() {
    let (end, ended) = mpsc::channel::<()>();
    let began = Instant::now();
    let hangs = move || {
        let _ = ended.recv();
        Ok(())
    };
    assert!(!answers_within(Duration::from_millis(50), hangs).await.expect("nothing is known of it"));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    drop(end);
    assert!(answers_within(Duration::from_secs(60), || Ok(())).await.expect("it is there"));
    let none = || Err(Error::from(ErrorKind::NotFound));
    let refused = answers_within(Duration::from_secs(60), none).await.expect_err("there is none");
    assert_eq!(refused.kind(), ErrorKind::NotFound);
}
