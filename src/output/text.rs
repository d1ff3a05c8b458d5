//! Text from the store, made fit for a terminal: what a job's user wrote into a reason, a tag or an
//! argument must not move the reader's cursor.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

/// `text` with its control characters as `\x1b`, `\n` and so on.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(moves) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if moves(c) => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Whether a terminal would do something else than show it: control characters, and those that turn the direction of writing.
fn moves(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A message of several lines, its other control characters made visible.
pub fn message(text: &str) -> Cow<'_, str> {
    if !text.chars().any(moves) {
        return Cow::Borrowed(text);
    }
    let lines: Vec<_> = text.split('\n').map(visible).collect();
    Cow::Owned(lines.join("\n"))
}

/// JSON whose texts move nothing on a terminal: what `moves` and is not escaped already, as `\u009b`.
pub fn json(text: String) -> String {
    let raw = |c: char| c != '\n' && moves(c);
    if !text.contains(raw) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if raw(c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Output for a terminal: line feeds, tabs and carriage returns as they are, other control characters as `\x1b`.
pub fn harmless(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if "\n\t\r".contains(c) || !moves(c) {
                out.extend(c.encode_utf8(&mut [0; 4]).bytes());
            } else {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    out.extend(format!("\\x{byte:02x}").into_bytes());
                }
            }
        }
        // Not UTF-8: a terminal may take some of it for control characters, and the rest shows as nothing anyway.
        for byte in chunk.invalid() {
            out.extend(format!("\\x{byte:02x}").into_bytes());
        }
    }
    out
}

/// A command as a line that a POSIX shell (with `$'…'` for what is no printable UTF-8) would take apart again.
pub fn command_line(command: &[OsString]) -> String {
    command
        .iter()
        .map(|word| shell_word(word))
        .collect::<Vec<_>>()
        .join(" ")
}

fn shell_word(word: &OsStr) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(plain) => Cow::Borrowed(text),
        Some(text) if !text.chars().any(char::is_control) => {
            Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
        }
        _ => Cow::Owned(dollar_quoted(word.as_bytes())),
    }
}

fn dollar_quoted(bytes: &[u8]) -> String {
    let mut out = String::from("$'");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\'' | '\\' => out.extend(['\\', c]),
                c if c.is_control() => push_bytes(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => out.push(c),
            }
        }
        push_bytes(&mut out, chunk.invalid());
    }
    out.push('\'');
    out
}

fn push_bytes(out: &mut String, bytes: &[u8]) {
    // Three octal digits: unlike \xHH they can't swallow a digit that follows.
    for byte in bytes {
        let _ = write!(out, "\\{byte:03o}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::ffi::OsStringExt;

    #[rstest]
    #[case("plain", "plain")]
    #[case("späte Schicht", "späte Schicht")]
    #[case("a\x1b[2Jb", "a\\x1b[2Jb")]
    #[case("two\nlines\t.", "two\\nlines\\t.")]
    #[case("\u{9b}31m", "\\x9b31m")]
    #[case("a\u{202e}b", "a\\x202eb")]
    fn control_characters_become_visible(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(visible(text), shown);
    }

    #[test]
    fn output_keeps_its_lines_and_loses_its_power() {
        let shown = |bytes: &[u8]| String::from_utf8(harmless(bytes)).expect("text");
        assert_eq!(shown("ä\tb\r\n".as_bytes()), "ä\tb\r\n");
        assert_eq!(shown(b"\x1b[2J\x07\x7f"), "\\x1b[2J\\x07\\x7f");
        assert_eq!(harmless("\u{9b}1".as_bytes()), b"\\xc2\\x9b1");
        assert_eq!(harmless("\u{202e}x".as_bytes()), b"\\xe2\\x80\\xaex");
        assert_eq!(json("\"\u{9b}\u{202e}\"\n".into()), "\"\\u009b\\u202e\"\n");
        assert_eq!(harmless(b"a\xc2"), b"a\\xc2");
        assert_eq!(message("one\ntwo\x1b"), "one\ntwo\\x1b");
    }

    #[rstest]
    #[case(&["true"], "true")]
    #[case(&["echo", "a b", "it's"], r"echo 'a b' 'it'\''s'")]
    #[case(&["echo", ""], "echo ''")]
    #[case(&["printf", "a\nb"], r"printf $'a\nb'")]
    #[case(&["x", "\u{9b}1"], r"x $'\302\2331'")]
    fn command_lines_can_be_pasted(#[case] words: &[&str], #[case] line: &str) {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        assert_eq!(command_line(&words), line);
    }

    #[test]
    fn bytes_that_are_no_utf8_survive_in_a_command_line() {
        let words = vec![OsString::from_vec(vec![b'a', 0xff, b'1', b'\''])];
        assert_eq!(command_line(&words), r"$'a\3771\''");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
        #[test]
        fn bash_takes_a_command_line_apart_as_it_was(
            words in proptest::collection::vec(proptest::collection::vec(1_u8.., 0..12), 1..5),
        ) {
            let command: Vec<OsString> = words.iter().cloned().map(OsString::from_vec).collect();
            let script = format!("printf '%s\\0' {}", command_line(&command));
            let output = std::process::Command::new("bash").args(["-c", &script]).env("LC_ALL", "C.UTF-8").output();
            let expected: Vec<u8> = words.into_iter().flat_map(|w| [w, vec![0]].concat()).collect();
            proptest::prop_assert_eq!(output.expect("bash").stdout, expected);
        }
    }
}
