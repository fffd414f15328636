//! The signature, by the example of the standard's own libraries.

use super::{key_of, signature};

/// From the reference implementations of Standard Webhooks.
#[test]
fn signs_as_the_standard_does() {
    let key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
    let body = r#"{"test": 2432232314}"#;
    let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
    assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn a_secret_has_the_standards_form() {
    for bad in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_!!!"] {
        assert!(key_of(bad).is_none(), "{bad}");
    }
}
