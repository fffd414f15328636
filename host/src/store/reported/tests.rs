//! What is packed comes out again, and what is not said stays.

use super::{Reported, unpacked};
use crate::facts::Readiness;

/// As the statement has it.
fn stored(before: i64, now: Reported) -> i64 {
    before & now.keep | now.said
}

#[test]
fn what_is_said_is_read_and_the_rest_stays() {
    for tools in [None, Some(0), Some(1), Some(u32::MAX)] {
        for flag in [None, Some(false), Some(true)] {
            let readiness =
                Readiness { mcp_server_present: flag, model_present: Some(true), loaded_mcp_tools: tools };
            let all = stored(-1, Reported::from(&readiness).native_status(Some(flag)));
            assert_eq!(unpacked(all), (readiness.clone(), flag == Some(true)));
            assert_eq!(stored(all, Reported::default()), all);
            let other = stored(all, Reported::default().model_present(Some(Some(false))));
            assert_eq!(unpacked(other).0, Readiness { model_present: Some(false), ..readiness.clone() });
            let cleared = stored(all, Reported::default().model_present(Some(None)));
            assert_eq!(unpacked(cleared).0, Readiness { model_present: None, ..readiness });
        }
    }
}
