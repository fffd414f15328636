//! The translation, by itself: nothing here runs a module.

use serde_json::Value;

use super::convert::{self, lift_status, lower_status};
use super::manifest::is_kebab;
use crate::facts::{Cause, Command, Heartbeat, Probe, Readiness};
use crate::machine::Status;

#[test]
fn every_status_survives_the_border() {
    for status in Status::ALL {
        assert_eq!(lift_status(lower_status(status)), status);
        assert_eq!(format!("{:?}", lower_status(status)), format!("Status::{status:?}"));
    }
}

/// An interest names a cause as a recorded decision does.
#[test]
fn causes_are_named_as_they_are_recorded() {
    let causes = [
        Cause::Registered(Readiness::default()),
        Cause::Heartbeat(Heartbeat::default()),
        Cause::Silence { for_: 1 },
        Cause::Probed(Probe { instance_id: "i-1".to_owned(), running: false }),
        Cause::ProvisioningFor { for_: 1 },
        Cause::IdleFor { for_: 1 },
        Cause::Commanded(Command::remove()),
    ];
    for cause in causes {
        let recorded = serde_json::to_value(&cause).expect("JSON");
        let name = convert::cause_name(convert::cause_kind(&cause));
        assert_eq!(recorded.get("kind"), Some(&Value::from(name)), "{recorded}");
    }
}

#[test]
fn kebab_case_is_what_it_is() {
    for right in ["a", "error-rate-high", "http2-down", "calls-1"] {
        assert!(is_kebab(right), "{right}");
    }
    for wrong in ["", "-", "a-", "-a", "a--b", "A", "a_b", "1a", "é", "a b", "a\n"] {
        assert!(!is_kebab(wrong), "{wrong}");
    }
}
