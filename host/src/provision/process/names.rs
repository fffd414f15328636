//! Identifiers as file names, and back: what could mean something to a file
//! system is written `%XX`, so that two identifiers never share a name.

/// The longest file name that we make, in bytes; most file systems allow 255.
const MOST: usize = 200;

/// The file name of an identifier. None: it is empty, or too long for one.
pub fn encode(id: &str) -> Option<String> {
    let mut name = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    (!name.is_empty() && name.len() <= MOST).then_some(name)
}

/// The identifier of a file name. None: [`encode`] did not make it.
pub fn decode(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        if first == '%' {
            bytes.push(u8::from_str_radix(rest.get(1..3)?, 16).ok()?);
            rest = &rest[3..];
        } else {
            bytes.extend_from_slice(&rest.as_bytes()[..first.len_utf8()]);
            rest = &rest[first.len_utf8()..];
        }
    }
    let id = String::from_utf8(bytes).ok()?;
    (encode(&id).as_deref() == Some(name)).then_some(id)
}
