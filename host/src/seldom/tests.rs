//! How often a line is written, and what it counts.

use super::*;

#[test]
fn it_is_written_at_once_and_then_once_a_minute_with_what_was_left_out() {
    let (line, start) = (Seldom::new(), Instant::now());
    let after = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(line.due_at(3, start), Some(3));
    for second in 1..60 {
        assert_eq!(line.due_at(2, after(second)), None);
    }
    assert_eq!(line.due_at(1, after(60)), Some(2 * 59 + 1));
    assert_eq!(line.due_at(1, after(61)), None);
    assert_eq!(line.due_at(1, after(3_600)), Some(2));
}
