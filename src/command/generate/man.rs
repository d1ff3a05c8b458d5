//! Man pages: one for joblock, one for each command, one for the jobs file. Options come from the
//! command line's own types, keys from the table of keys.

use std::io;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::cli::Cli;
use crate::config::{DEFAULT_PATH, keys};
use crate::exit;
use crate::plan::SYSTEM_FOLDER;

/// A page.
pub struct Page {
    /// 1 for commands, 5 for files.
    pub section: u8,
    /// `joblock-run.1`.
    pub file: String,
    /// Its text.
    pub roff: Vec<u8>,
}

/// All pages, joblock(1) first.
pub fn pages() -> io::Result<Vec<Page>> {
    let mut root = Cli::command();
    root.build();
    let mut pages = vec![Page {
        section: 1,
        file: "joblock.1".to_owned(),
        roff: main_page(&root)?,
    }];
    for verb in root.get_subcommands().filter(|c| !c.is_hide_set()) {
        let file = format!("joblock-{}.1", verb.get_name());
        pages.push(Page {
            section: 1,
            file,
            roff: verb_page(verb)?,
        });
    }
    pages.push(Page {
        section: 5,
        file: "joblock.toml.5".to_owned(),
        roff: file_page().into_bytes(),
    });
    Ok(pages)
}

fn source() -> String {
    format!("joblock {}", env!("CARGO_PKG_VERSION"))
}

/// No hyphens into URLs and names, no blanks between words: man(7)'s defaults suit novels.
const PLAIN_LINES: &str = ".nh\n.ad l\n";

fn head(command: &Command, title: &str) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(title)
        .section("1")
        .date("")
        .source(source())
        .manual("joblock");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    out.extend(PLAIN_LINES.as_bytes());
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if command.get_subcommands().any(|c| !c.is_hide_set()) {
        out.extend(commands(command).into_bytes());
    }
    man.render_options_section(&mut out)?;
    Ok(out)
}

fn main_page(root: &Command) -> io::Result<Vec<u8>> {
    let mut out = head(root, "joblock")?;
    let text = [exit_status(), environment(), files(), examples()].concat();
    out.extend(text.into_bytes());
    let mut others: Vec<_> = root
        .get_subcommands()
        .map(|c| format!("joblock-{}(1)", c.get_name()))
        .collect();
    others.extend(["joblock.toml(5)", "flock(1)", "timeout(1)", "crontab(5)"].map(String::from));
    out.extend(see_also(&others).into_bytes());
    Ok(out)
}

fn verb_page(verb: &Command) -> io::Result<Vec<u8>> {
    let title = format!("joblock-{}", verb.get_name());
    let command = verb.clone().display_name(title.clone());
    let mut out = head(&command, &title)?;
    let after = verb
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let (examples, notes): (Vec<_>, Vec<_>) =
        after.split("\n\n").partition(|p| p.starts_with("Example"));
    let mut text = String::new();
    let mut under = "";
    for note in notes.iter().filter(|n| !n.is_empty()) {
        let (section, note) = match note.strip_prefix("Exit code: ") {
            Some(codes) => ("EXIT STATUS", codes),
            None => ("NOTES", *note),
        };
        if section != under {
            text += &heading(section);
            under = section;
        }
        text += &paragraph(&note.replace('\n', " "));
    }
    if !notes.iter().any(|note| note.starts_with("Exit code: ")) {
        text += &heading("EXIT STATUS");
        text += &paragraph(&format!(
            "0 it was done; {} the store can't be used; {} a mistake in the call. All codes: joblock(1).",
            exit::STORE_UNUSABLE,
            exit::OWN_FAILURE
        ));
    }
    for example in examples {
        let (_, lines) = example.split_once(':').unwrap_or(("", example));
        let lines: Vec<_> = lines
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .collect();
        text += &heading("EXAMPLES");
        text += &verbatim(&lines);
    }
    for sub in verb.get_subcommands().filter(|c| !c.is_hide_set()) {
        text += &sub_command(sub);
    }
    text += &see_also(&["joblock(1)".to_owned(), "joblock.toml(5)".to_owned()]);
    out.extend(text.into_bytes());
    Ok(out)
}

/// `generate`'s own commands: their arguments stand on its page.
fn sub_command(command: &Command) -> String {
    let name = command.get_name();
    let mut text = heading(&name.to_uppercase());
    text += &escaped(
        &command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default(),
    );
    text.push('\n');
    for arg in command
        .get_arguments()
        .filter(|a| a.get_help_heading().is_none() && a.get_id() != "help")
    {
        let term = arg
            .get_long()
            .map_or_else(|| arg.to_string(), |long| format!("--{long}"));
        text += &entry(
            &term,
            &arg.get_help().map(ToString::to_string).unwrap_or_default(),
        );
    }
    text
}

fn commands(command: &Command) -> String {
    let mut text = heading("COMMANDS");
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        text += &entry(
            &format!("{} {}", command.get_name(), sub.get_name()),
            &about,
        );
    }
    text
}

fn exit_status() -> String {
    let codes = [
        (
            "the job's own".to_owned(),
            "It ran. 128+n if signal n ended it.",
        ),
        (
            exit::OK.to_string(),
            "Also: it was skipped, because it succeeded within the window.",
        ),
        (
            exit::STORE_UNUSABLE.to_string(),
            "The store can't be used: the job was not started.",
        ),
        (
            exit::LOCK_HELD.to_string(),
            "The lock is held (or the code that --conflict-exit-code names).",
        ),
        (
            exit::LOCK_LOST.to_string(),
            "The lock was lost, or revoked, and the job was killed.",
        ),
        (
            exit::TIMED_OUT.to_string(),
            "The job was over its time limit, also when it took KILL to end it.",
        ),
        (
            exit::OWN_FAILURE.to_string(),
            "joblock's own failure, or a mistake in the call.",
        ),
        (
            exit::CANNOT_EXECUTE.to_string(),
            "The command can't be executed.",
        ),
        (exit::NOT_FOUND.to_string(), "The command is not found."),
    ];
    let mut text = heading("EXIT STATUS");
    for (code, what) in codes {
        text += &entry(&code, what);
    }
    text += &paragraph(
        "joblock check exits as monitoring plugins do: 0 ok, 1 warning, 2 critical, 3 unknown. joblock assert: 0 under a live lock, 1 not, 69 unknown.",
    );
    text += &paragraph(
        "Where the store lies on a mount that does not answer, every command names it and ends with 69 (check with 3) after 30 seconds without an answer, \
         joblock run after its --wait and 30 seconds; with `-w forever` it says so then, and waits on. A process that hangs in the kernel is left behind, \
         and gone when the mount answers again.",
    );
    text
}

fn environment() -> String {
    let read = [
        (
            "JOBLOCK_STORE",
            "The store, if neither --store nor the jobs file names one. If it and the jobs file name different ones, nothing is started.",
        ),
        (
            "JOBLOCK_CONFIG",
            "The jobs file, if --config doesn't name it.",
        ),
        (
            "JOBLOCK_TRIGGER",
            "What asks for the start: schedule, startup, operator or other.",
        ),
        ("NO_COLOR", "If set and not empty: no colour."),
        (
            "XDG_STATE_HOME",
            "The folder of the user's own store, below joblock. Default: ~/.local/state.",
        ),
    ];
    let given = [
        ("JOBLOCK_JOB", "The job's name."),
        ("JOBLOCK_RUN_ID", "The run's id, 16 hexadecimal digits."),
        (
            "JOBLOCK_TOKEN",
            "The fencing token: a number that is greater with every grant of the lock. Hand it to what the job writes to.",
        ),
        ("JOBLOCK_TRIGGER", "What asked for the run."),
        ("JOBLOCK_STORE", "The store's URL."),
    ];
    let mut text = heading("ENVIRONMENT");
    for (name, what) in read {
        text += &entry(name, what);
    }
    text += ".PP\nThe job sees:\n";
    for (name, what) in given {
        text += &entry(name, what);
    }
    text
}

fn files() -> String {
    let mut text = heading("FILES");
    text += &entry(DEFAULT_PATH, "The jobs file, see joblock.toml(5).");
    text += &entry(
        &format!("{SYSTEM_FOLDER}/joblock.db"),
        "The machine's store: root's, and everybody's if the folder is there. joblock init --system --group GROUP makes it for a group.",
    );
    text += &entry(
        "~/.local/state/joblock/joblock.db",
        "A user's own store, if there is no other.",
    );
    text
}

fn examples() -> String {
    let mut text = heading("EXAMPLES");
    let examples: [(&str, &[&str]); 4] = [
        (
            "A line of a crontab, and the same by hand:",
            &[
                "29 1 * * * root joblock run person-sync -- /opt/sync person",
                "joblock run person-sync -- /opt/sync person",
            ],
        ),
        (
            "Wait for the lock for ten minutes, end the job after two hours:",
            &["joblock run -w 10m -t 2h backup -- pg_dump -f /backup/app.sql app"],
        ),
        (
            "What happened last night, and once more:",
            &[
                "joblock history --since yesterday",
                "joblock show person-sync",
                "joblock rerun person-sync --reason \"duplicates in the list of people\"",
            ],
        ),
        ("For a monitoring system:", &["joblock check"]),
    ];
    for (what, lines) in examples {
        text += &paragraph(what);
        text += &verbatim(lines);
    }
    text
}

fn file_page() -> String {
    let mut text = format!(
        ".TH joblock.toml 5 \"\" \"{}\" \"joblock\"\n{PLAIN_LINES}",
        source()
    );
    text += &heading("NAME");
    text += "joblock.toml \\- the jobs file of joblock\n";
    text += &heading("DESCRIPTION");
    for words in [
        "Names each job once, so that cron, an operator and a container's entrypoint say \"joblock run JOB\" and mean the same command under the same lock.",
        "It is the file that --config names, else $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml, which alone may be missing. The format is TOML. An unknown key or a wrong value anywhere is an error, and nothing is started.",
        "An option on the command line wins over the file. Root doesn't read a file that others can write, or that lies in a folder that others can write.",
        "Durations are written 90 (seconds), 0.5, \"90s\", \"15m\", \"26h\", \"7d\", \"1h30m\".",
    ] {
        text += &paragraph(words);
    }
    for (title, table) in [
        ("TOP OF THE FILE", keys::TOP),
        ("JOBS: [jobs.NAME]", keys::JOB),
        ("NOTIFY: [jobs.NAME.notify]", keys::NOTIFY),
    ] {
        text += &heading(title);
        for key in table {
            let mut kind = key.value.to_owned();
            kind[..1].make_ascii_uppercase();
            let term = format!("{} = {}", key.name, key.example);
            text += &entry(&term, &format!("{kind}. {}", key.help));
        }
    }
    text += &heading("EXAMPLES");
    text += &verbatim(&EXAMPLE_FILE.lines().collect::<Vec<_>>());
    text + &see_also(&[
        "joblock(1)".to_owned(),
        "joblock-run(1)".to_owned(),
        "crontab(5)".to_owned(),
    ])
}

/// Stands in joblock.toml(5); a test reads it as a jobs file.
const EXAMPLE_FILE: &str = r#"store = "sqlite:/var/lib/joblock/joblock.db"
only-named-jobs = true

[jobs.owner-sync]
command = ["java", "-jar", "/opt/sync.jar", "owner"]

[jobs.person-sync]
command  = ["java", "-jar", "/opt/sync.jar", "person"]
schedule = "29 1 * * *"
timezone = "Europe/London"
after    = ["owner-sync"]
time-limit = "3h"
unless-succeeded-within = "6h"
notify   = { on = ["failed", "lost"], webhook = "https://example.org/hook" }
"#;

fn heading(title: &str) -> String {
    format!(".SH \"{}\"\n", escaped(title))
}

fn entry(term: &str, text: &str) -> String {
    format!(".TP\n\\fB{}\\fR\n{}\n", escaped(term), escaped(text))
}

fn paragraph(text: &str) -> String {
    format!(".PP\n{}\n", escaped(text))
}

fn verbatim(lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|l| escaped(l) + "\n").collect();
    format!(".PP\n.RS 4\n.nf\n{lines}.fi\n.RE\n")
}

fn see_also(pages: &[String]) -> String {
    let pages: Vec<_> = pages
        .iter()
        .map(|page| match page.split_once('(') {
            Some((name, section)) => format!("\\fB{}\\fR({section}", escaped(name)),
            None => escaped(page),
        })
        .collect();
    format!("{}{}\n", heading("SEE ALSO"), pages.join(",\n"))
}

/// What roff(7) would read as its own: backslashes, dashes that must stay dashes, quotes that would end an argument,
/// and a dot or quote at a line's beginning.
fn escaped(text: &str) -> String {
    let text = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('"', "\\(dq")
        .replace('…', "\\&...");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JobsFile;
    use rstest::rstest;
    use std::path::Path;

    fn page(file: &str) -> String {
        let page = pages()
            .unwrap()
            .into_iter()
            .find(|p| p.file == file)
            .unwrap();
        String::from_utf8(page.roff).unwrap()
    }

    #[test]
    fn the_page_of_the_jobs_file_has_every_key() {
        let text = page("joblock.toml.5");
        for key in [keys::TOP, keys::JOB, keys::NOTIFY]
            .into_iter()
            .flat_map(keys::names)
        {
            assert!(text.contains(&format!("\\fB{} = ", escaped(key))), "{key}");
        }
    }

    #[test]
    fn the_example_of_the_page_is_a_jobs_file() {
        let file = JobsFile::parse(Path::new("/etc/joblock/joblock.toml"), EXAMPLE_FILE).unwrap();
        assert_eq!(file.jobs.len(), 2);
    }

    #[test]
    fn the_main_page_has_the_sections_that_people_look_for() {
        let text = page("joblock.1");
        for section in [
            "NAME",
            "SYNOPSIS",
            "COMMANDS",
            "EXIT STATUS",
            "ENVIRONMENT",
            "FILES",
            "EXAMPLES",
            "SEE ALSO",
        ] {
            assert!(
                text.contains(&format!(".SH \"{section}\""))
                    || text.contains(&format!(".SH {section}")),
                "{section}"
            );
        }
    }

    #[rstest]
    #[case("joblock-check.1", "Critical: a job's last run failed")]
    #[case("joblock-check.1", "Warning: somebody stopped it")]
    #[case("joblock-check.1", "more than 5 minutes ago")]
    #[case("joblock-check.1", "Unknown: a mistake in the call of check")]
    #[case("joblock-rerun.1", "--time-limit are not repeated from the history")]
    #[case("joblock-unlock.1", "75 the holder does not answer")]
    fn a_page_tells_what_can_be_known_from_nowhere_else(#[case] file: &str, #[case] says: &str) {
        let text = page(file);
        assert!(text.contains(&escaped(says)), "{text}");
        assert!(text.matches(".SH \"NOTES\"").count() <= 1, "{text}");
    }

    #[test]
    fn every_command_has_a_page_with_an_example() {
        for verb in Cli::command().get_subcommands() {
            let text = page(&format!("joblock-{}.1", verb.get_name()));
            assert!(
                text.contains(".SH \"EXAMPLES\"") || verb.has_subcommands(),
                "{}",
                verb.get_name()
            );
        }
    }
}
