//! Rust source without its comments and literals, so that a rule that looks for
//! a name finds code and not prose.

/// A Rust file taken apart.
pub struct Source {
    /// The text with comments and the insides of literals blanked, line for line.
    pub code: String,
    /// String literals: line (from 1) and contents as written.
    pub strings: Vec<(usize, String)>,
}

impl Source {
    /// Takes `text` apart.
    pub fn of(text: &str) -> Self {
        let mut scan =
            Scan { rest: text, line: 1, code: String::with_capacity(text.len()), strings: Vec::new() };
        while !scan.rest.is_empty() {
            scan.step();
        }
        Self { code: scan.code, strings: scan.strings }
    }

    /// The code, line by line from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

struct Scan<'a> {
    rest: &'a str,
    line: usize,
    code: String,
    strings: Vec<(usize, String)>,
}

impl<'a> Scan<'a> {
    fn step(&mut self) {
        if self.rest.starts_with("//") {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.blank(end);
        } else if self.rest.starts_with("/*") {
            self.blank(block_comment(self.rest));
        } else if let Some((before, hashes)) = raw_string(self.rest).filter(|_| !self.in_word()) {
            let close = format!("\"{}", "#".repeat(hashes));
            self.string(before, &close, |inside, close| inside.find(close));
        } else if self.rest.starts_with('"') {
            self.string(1, "\"", |inside, _| unescaped(inside, '"'));
        } else if let Some(length) = char_literal(self.rest) {
            self.blank(length);
        } else {
            let length = self.rest.chars().next().map_or(0, char::len_utf8);
            let taken = self.take(length);
            self.code.push_str(taken);
        }
    }

    /// Whether what was read last belongs to a name: the `r` of `for"` starts no raw string.
    fn in_word(&self) -> bool {
        self.code.chars().next_back().is_some_and(is_word)
    }

    fn string(&mut self, before: usize, close: &str, find: impl Fn(&str, &str) -> Option<usize>) {
        let line = self.line;
        self.blank(before);
        let end = find(self.rest, close).unwrap_or(self.rest.len());
        self.strings.push((line, self.rest[..end].to_owned()));
        self.blank((end + close.len()).min(self.rest.len()));
    }

    fn blank(&mut self, length: usize) {
        let taken = self.take(length);
        self.code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }
}

/// Whether `c` can be part of a name.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Of `r##"…`, `br"…` and `cr"…`: the length up to the first quote, and the number of hashes.
fn raw_string(text: &str) -> Option<(usize, usize)> {
    let after =
        text.strip_prefix('r').or_else(|| text.strip_prefix("br")).or_else(|| text.strip_prefix("cr"))?;
    let unhashed = after.trim_start_matches('#');
    let hashes = after.len() - unhashed.len();
    unhashed.starts_with('"').then(|| (text.len() - unhashed.len() + 1, hashes))
}

fn unescaped(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let found = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        found.then_some(at)
    })
}

/// The length of `'x'`, `'\n'` and their like; a lifetime is none.
fn char_literal(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let first = inside.chars().next()?;
    if first == '\\' {
        return unescaped(inside, '\'').map(|end| end + 2);
    }
    inside[first.len_utf8()..].starts_with('\'').then(|| first.len_utf8() + 2)
}
