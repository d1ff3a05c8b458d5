//! Tables for people: as wide as the terminal, wrapped and never cut; in a pipe a line for each row.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, Width};

use super::Page;
use super::text::visible;

/// Columns between two columns.
const GAP: u16 = 2;

/// Longer words (a job's name can have 128 characters) may be broken.
const LONGEST_WHOLE: usize = 16;

/// What a text means, and so its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing of note.
    Plain,
    /// As it should be.
    Good,
    /// Goes on.
    Busy,
    /// Worth a look.
    Warn,
    /// Broken.
    Bad,
    /// Of little interest.
    Faint,
}

impl Tone {
    fn ansi(self) -> anstyle::Style {
        use anstyle::{AnsiColor, Style};
        match self {
            Tone::Plain => Style::new(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Busy => AnsiColor::Cyan.on_default(),
            Tone::Warn => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
            Tone::Faint => Style::new().dimmed(),
        }
    }

    fn paint_cell(self, cell: Cell) -> Cell {
        match self {
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::DarkGreen),
            Tone::Busy => cell.fg(Color::DarkCyan),
            Tone::Warn => cell.fg(Color::DarkYellow),
            Tone::Bad => cell.fg(Color::DarkRed).add_attribute(Attribute::Bold),
            Tone::Faint => cell.add_attribute(Attribute::Dim),
        }
    }
}

/// `text` in the colour of `tone`, if the page has colours.
pub fn paint(page: &Page, tone: Tone, text: &str) -> String {
    let style = tone.ansi();
    if page.colour && tone != Tone::Plain {
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}

/// One cell: lines (one below the other on a terminal, joined by commas in a pipe) and what they mean.
#[derive(Debug, Clone)]
pub struct Words {
    lines: Vec<String>,
    tone: Tone,
}

impl Words {
    /// A cell of several lines.
    pub fn lines(lines: Vec<String>, tone: Tone) -> Self {
        Words { lines, tone }
    }

    /// A cell of one line with a meaning.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Words {
            lines: vec![text.into()],
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Words {
    fn from(text: T) -> Self {
        Words::toned(text, Tone::Plain)
    }
}

/// `rows` under `header`, with a line feed at the end.
pub fn table(page: &Page, header: &[&str], rows: Vec<Vec<Words>>) -> String {
    let mut table = Table::new();
    // The page knows whether stdout is a terminal; the library must not find out on its own.
    table.force_no_tty().load_style(NOTHING);
    if page.colour {
        table.enforce_styling();
    }
    if let Some(width) = page.width {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
    }
    table.set_header(
        header
            .iter()
            .map(|h| Cell::new(h).add_attribute(Attribute::Bold)),
    );
    for row in rows {
        table.add_row(row.into_iter().map(|words| {
            let lines: Vec<_> = words.lines.iter().map(|l| visible(l)).collect();
            let text = lines.join(if page.width.is_some() { "\n" } else { ", " });
            words.tone.paint_cell(Cell::new(text))
        }));
    }
    let last = header.len() - 1;
    let whole = page
        .width
        .map(|width| whole_words(&table, width))
        .unwrap_or_default();
    for (i, column) in table.column_iter_mut().enumerate() {
        let padding = if i == last { 0 } else { GAP };
        column.set_padding((0, padding));
        if let Some(&longest) = whole.get(i) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(
                longest + padding,
            )));
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// How wide each column of `table` must be for its words to stay whole. Nothing if that is more than `width`:
/// then some are broken.
fn whole_words(table: &Table, width: u16) -> Vec<u16> {
    let longest = |text: String| {
        text.split_whitespace()
            .map(|word| word.chars().count())
            .max()
            .unwrap_or(0)
    };
    let column = |i| {
        let cells = table.column_cells_with_header_iter(i).flatten();
        let words = cells.map(|cell| longest(cell.content())).max().unwrap_or(0);
        u16::try_from(words.min(LONGEST_WHOLE)).unwrap_or(u16::MAX)
    };
    let columns: Vec<u16> = (0..table.column_iter().len()).map(column).collect();
    let all: u16 = columns.iter().map(|w| w + GAP).sum();
    if all <= width { columns } else { Vec::new() }
}

/// `name   value` lines: names in a column of their own, further lines of a value below its first.
pub fn list(page: &Page, rows: &[(&str, Words)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let mut out = String::new();
    for (name, words) in rows {
        for (i, line) in words.lines.iter().enumerate() {
            let name = if i == 0 { *name } else { "" };
            out.push_str(&paint(page, Tone::Faint, &format!("{name:width$}")));
            out.push_str(&paint(page, words.tone, &visible(line)));
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::schedule::Zone;

    fn page(width: Option<u16>, colour: bool) -> Page {
        Page {
            now: Wall(0),
            width,
            colour,
            zone: Zone::Named(chrono_tz::UTC),
        }
    }

    fn sample(page: &Page) -> String {
        let long =
            "a reason that goes on for much longer than any terminal of forty columns is wide";
        table(
            page,
            &["run", "outcome", "why"],
            vec![vec![
                "abc123".into(),
                Words::toned("exit 3", Tone::Bad),
                long.into(),
            ]],
        )
    }

    #[test]
    fn a_table_fits_its_terminal_and_loses_no_word() {
        let text = sample(&page(Some(40), false));
        assert!(text.lines().all(|l| l.chars().count() <= 40), "{text}");
        for word in ["abc123", "exit", "goes", "forty", "wide"] {
            assert!(text.contains(word), "{word} is missing:\n{text}");
        }
    }

    #[test]
    fn words_stay_whole_where_there_is_room() {
        let page = page(Some(60), false);
        let long = "a very long reason ".repeat(10);
        let row = vec!["succeeded".into(), "not-started".into(), long.into()];
        let text = table(&page, &["one", "two", "three"], vec![row]);
        assert!(text.contains("succeeded  not-started  a very"), "{text}");
    }

    #[test]
    fn in_a_pipe_a_row_is_a_line() {
        let text = sample(&page(None, false));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.lines().all(|l| l == l.trim_end()));
    }

    #[test]
    fn colour_only_where_it_is_wanted() {
        assert!(!sample(&page(Some(80), false)).contains('\x1b'));
        assert!(sample(&page(Some(80), true)).contains('\x1b'));
        assert!(
            !list(
                &page(Some(80), false),
                &[("a", Words::toned("b", Tone::Bad))]
            )
            .contains('\x1b')
        );
        assert!(
            list(
                &page(Some(80), true),
                &[("a", Words::toned("b", Tone::Bad))]
            )
            .contains('\x1b')
        );
    }

    #[test]
    fn colour_does_not_change_the_layout() {
        let plain = sample(&page(Some(60), false));
        let coloured = anstream::adapter::strip_str(&sample(&page(Some(60), true))).to_string();
        let lines = |t: &str| {
            t.lines()
                .map(|l| l.trim_end().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(&coloured), lines(&plain));
    }

    #[test]
    fn what_stands_in_the_store_moves_no_cursor() {
        let text = table(
            &page(None, false),
            &["why"],
            vec![vec!["\x1b[2J\nx".into()]],
        );
        assert_eq!(text, "why\n\\x1b[2J\\nx\n");
        assert_eq!(
            list(&page(None, false), &[("why", "\x1bc".into())]),
            "why  \\x1bc\n"
        );
    }

    #[test]
    fn lists_line_up() {
        let rows = [
            ("run", Words::from("abc")),
            (
                "command",
                Words::lines(vec!["a".into(), "b".into()], Tone::Plain),
            ),
        ];
        assert_eq!(
            list(&page(None, false), &rows),
            "run      abc\ncommand  a\n         b\n"
        );
    }
}
