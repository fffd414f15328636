//! An error in one line, with all that caused it: `to_string` says only what
//! stands outermost ("error sending request"), which helps nobody.

use std::error::Error;

/// `ERROR: CAUSE: ITS CAUSE`. A cause whose words stand there already is left out.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !words.contains(&said) {
            words = format!("{words}: {said}");
        }
        cause = inner.source();
    }
    words
}

#[cfg(test)]
mod tests;
