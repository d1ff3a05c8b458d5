//! Parses the command line, and answers the mistakes that people coming from flock(1), timeout(1)
//! and plain crontabs make with the line as it should be. clap alone would say "unexpected argument".

use std::ffi::{OsStr, OsString};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};

use super::foreign::{LONG, SHORT};
use super::{Cli, StartArgs, Verb};
use crate::duration::Span;
use crate::exit;
use crate::name::JobName;

/// Why there is nothing to dispatch.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// `--help`, `--version`: goes to stdout, exit code 0.
    Answer(String),
    /// A mistake: goes to stderr.
    Mistake {
        /// The whole text, its prefix included.
        text: String,
        /// What to exit with.
        code: u8,
    },
}

impl Stop {
    fn mistake(verb: &str, text: impl AsRef<str>) -> Self {
        Stop::Mistake {
            text: format!("joblock: {}\n", text.as_ref().trim_end()),
            code: code_of_mistakes(verb),
        }
    }
}

/// What a command exits with after a failure of joblock itself. Monitoring reads 3 as "unknown" and a
/// script reads `assert`'s 69 as "can't be told"; both must hold for mistakes in the call too.
pub fn code_of_mistakes(verb: &str) -> u8 {
    match verb {
        "check" => exit::CHECK_UNKNOWN,
        "assert" => exit::STORE_UNUSABLE,
        _ => exit::OWN_FAILURE,
    }
}

/// The command line, `args[0]` being the program's name.
pub fn parse(args: &[OsString]) -> Result<Cli, Stop> {
    let mut command = Cli::command();
    command.build();
    let seen = Seen::walk(&command, args);
    if let Some(text) = seen.mistake(args) {
        return Err(Stop::mistake(&seen.verb, text));
    }
    let parsed = command
        .try_get_matches_from(args)
        .and_then(|m| Cli::from_arg_matches(&m));
    let cli = parsed.map_err(|e| from_clap(&seen.verb, &e))?;
    let start = match &cli.verb {
        Verb::Run(run) => Some(&run.start),
        Verb::Rerun(rerun) => Some(&rerun.start),
        _ => None,
    };
    match start.and_then(contradiction) {
        Some(text) => Err(Stop::mistake(&seen.verb, text)),
        None => Ok(cli),
    }
}

fn from_clap(verb: &str, error: &clap::Error) -> Stop {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Answer(text),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Stop::Mistake {
            text,
            code: code_of_mistakes(verb),
        },
        _ => {
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            // clap's tip to put a `-- ` before it is wrong wherever it gives it.
            let lines: Vec<_> = text
                .lines()
                .filter(|l| !l.contains("tip: to pass '"))
                .collect();
            Stop::mistake(verb, lines.join("\n"))
        }
    }
}

fn contradiction(start: &StartArgs) -> Option<&'static str> {
    let waits = start
        .wait
        .is_some_and(|w| w != Span::For(std::time::Duration::ZERO));
    (start.nonblock && waits)
        .then_some("-n says not to wait and -w says to wait: leave one of them out")
}

/// What stands where on the command line, found without judging values.
struct Seen {
    /// The command's name; empty if there is none.
    verb: String,
    /// Indexes of arguments that are neither options nor their values, before any `--`.
    plain: Vec<usize>,
    /// Index of the first `--`.
    dashes: Option<usize>,
    /// The first option that the command doesn't have, and that other tools do.
    foreign: Option<&'static str>,
    /// An option that nobody knows: what stands behind it may be its value, so clap has the word.
    unknown: bool,
    /// The first option that has no value, and what it wants: another option or -- stands in its place.
    valueless: Option<String>,
    /// Asks for help or the version: no mistake is worth an answer then.
    asks: bool,
}

impl Seen {
    fn walk(root: &Command, args: &[OsString]) -> Self {
        let mut seen = Seen {
            verb: String::new(),
            plain: Vec::new(),
            dashes: None,
            foreign: None,
            unknown: false,
            valueless: None,
            asks: false,
        };
        let mut command = root;
        let mut at = 1;
        while at < args.len() && !seen.unknown && seen.valueless.is_none() {
            let arg = args[at].as_encoded_bytes();
            if arg == b"--" {
                seen.dashes = Some(at);
                break;
            }
            if let Some(long) = arg.strip_prefix(b"--") {
                let known = seen.long(command, long);
                at += seen.value(known, args.get(at + 1));
            } else if arg.len() > 1 && arg[0] == b'-' {
                let known = seen.short(command, &arg[1..]);
                at += seen.value(known, args.get(at + 1));
            } else if seen.verb.is_empty() {
                let Some(verb) = args[at]
                    .to_str()
                    .and_then(|name| root.find_subcommand(name))
                else {
                    break;
                };
                verb.get_name().clone_into(&mut seen.verb);
                command = verb;
            } else {
                seen.plain.push(at);
                // From here on, `-x` belongs to the command that lacks its `--`.
                if seen.verb == "run" && seen.plain.len() > 1 {
                    break;
                }
            }
            at += 1;
        }
        seen
    }

    /// The long option, if its value is the next argument.
    fn long<'c>(&mut self, command: &'c Command, text: &[u8]) -> Option<&'c Arg> {
        let mut halves = text.splitn(2, |&b| b == b'=');
        let (name, value) = (halves.next().unwrap_or_default(), halves.next());
        self.asks |= name == b"help" || name == b"version";
        let known = command
            .get_arguments()
            .find(|a| a.get_long().is_some_and(|l| l.as_bytes() == name));
        if known.is_none() {
            self.note_foreign(name, LONG);
        }
        known.filter(|known| value.is_none() && takes_value(known))
    }

    /// The last of a cluster of short options, if its value is the next argument.
    fn short<'c>(&mut self, command: &'c Command, cluster: &[u8]) -> Option<&'c Arg> {
        for (i, &byte) in cluster.iter().enumerate() {
            self.asks |= byte == b'h' || byte == b'V';
            match command
                .get_arguments()
                .find(|a| a.get_short() == Some(char::from(byte)))
            {
                Some(known) if takes_value(known) => {
                    return Some(known).filter(|_| i + 1 == cluster.len());
                }
                Some(_) => {}
                None => {
                    self.note_foreign(&[byte], SHORT);
                    return None;
                }
            }
        }
        None
    }

    /// How many arguments are the option's value. clap takes nothing for one that looks like an option.
    fn value(&mut self, option: Option<&Arg>, next: Option<&OsString>) -> usize {
        let Some(option) = option else { return 0 };
        let like_option =
            next.is_some_and(|n| n.len() > 1 && n.as_encoded_bytes().starts_with(b"-"));
        if like_option && !option.is_allow_hyphen_values_set() {
            let names = [
                option.get_short().map(|short| format!("-{short}")),
                option.get_long().map(|long| format!("--{long}")),
            ];
            let wants = option
                .get_value_names()
                .map_or_else(|| "VALUE".into(), |names| names.join(" "));
            self.valueless = Some(format!(
                "{} has no value: give it a {wants}",
                names.into_iter().flatten().collect::<Vec<_>>().join(", ")
            ));
            return 0;
        }
        1
    }

    fn note_foreign(&mut self, name: &[u8], table: &'static [(&str, &str)]) {
        self.unknown = true;
        if matches!(self.verb.as_str(), "run" | "rerun") {
            self.foreign = table
                .iter()
                .find(|(n, _)| n.as_bytes() == name)
                .map(|&(_, text)| text);
        }
    }

    fn mistake(&self, args: &[OsString]) -> Option<String> {
        if self.asks || self.unknown {
            return self.foreign.filter(|_| !self.asks).map(str::to_owned);
        }
        if self.valueless.is_some() {
            return self.valueless.clone();
        }
        if self.verb == "run" {
            self.mistaken_dashes(args)
        } else {
            self.needless_dashes(args)
        }
    }

    fn mistaken_dashes(&self, args: &[OsString]) -> Option<String> {
        if let Some(&command) = self.plain.get(1) {
            let corrected = [&args[..command], &["--".into()], &args[command..]].concat();
            return Some(with_line("the command stands after --", &corrected));
        }
        let dashes = self.dashes?;
        let (before, after) = (&args[..dashes], &args[dashes + 1..]);
        if self.plain.is_empty() {
            return Some(no_job(before, after));
        }
        match after {
            [] => Some(format!(
                "no command stands after --. With the jobs file's command:\n  {}\nor with one of your own:\n  {}",
                line(before),
                line(&[before, &example(&["--", "COMMAND", "ARG..."])].concat())
            )),
            [first, ..] if first == "--" => Some(format!(
                "one -- is enough, like this:\n  {}",
                line(&[before, after].concat())
            )),
            [first, ..] if first.is_empty() => {
                Some("the command after -- is empty: give a program's name there".to_owned())
            }
            _ => None,
        }
    }

    fn needless_dashes(&self, args: &[OsString]) -> Option<String> {
        let dashes = self.dashes.filter(|_| !self.verb.is_empty())?;
        let without = if self.verb == "rerun" && !self.plain.is_empty() {
            &args[..dashes]
        } else {
            &[&args[..dashes], &args[dashes + 1..]].concat()[..]
        };
        Some(with_line(&format!("{} takes no --", self.verb), without))
    }
}

/// Nothing stands before the --, and `after` behind it. Whether its first word is the job or the command
/// nobody can tell, unless another -- follows it.
fn no_job(before: &[OsString], after: &[OsString]) -> String {
    let named = |job: &[OsString]| [before, job].concat();
    let commanded = |job: &[OsString], command: &[OsString]| {
        line(&[&named(job), &example(&["--"]), command].concat())
    };
    let job = &example(&["JOB"]);
    match after {
        [] => format!(
            "no job is named, like this:\n  {}",
            commanded(job, &example(&["COMMAND"]))
        ),
        [first, dashes, ..] if dashes == "--" => with_line(
            "JOB stands before --",
            &[&named(std::slice::from_ref(first)), &after[1..]].concat(),
        ),
        [first, rest @ ..] => {
            let command_alone = commanded(job, after);
            let text = first.to_string_lossy();
            let is_option = rest
                .first()
                .is_some_and(|w| w.as_encoded_bytes().starts_with(b"-"));
            if text.parse::<JobName>().is_err() || is_option {
                return format!("JOB stands before --, like this:\n  {command_alone}");
            }
            let as_job = std::slice::from_ref(first);
            let with_job = if rest.is_empty() {
                line(&named(as_job))
            } else {
                commanded(as_job, rest)
            };
            format!(
                "JOB stands before --. If {text} is the job:\n  {with_job}\nif it is the command:\n  {command_alone}"
            )
        }
    }
}

/// `text` with the line as it should be, if it would be accepted.
fn with_line(text: &str, corrected: &[OsString]) -> String {
    match Cli::command().try_get_matches_from(corrected) {
        Ok(_) => format!("{text}, like this:\n  {}", line(corrected)),
        Err(error) => {
            let also = from_clap("", &error);
            let (Stop::Mistake { text: also, .. } | Stop::Answer(also)) = also;
            format!("{text}; and {}", also.trim_start_matches("joblock: "))
        }
    }
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn example(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// The arguments as a line that a shell reads back; the program under its usual name.
fn line(args: &[OsString]) -> String {
    let words = args.iter().skip(1).map(|a| quoted(a));
    std::iter::once("joblock".to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// One word for a POSIX shell. Bytes that are no UTF-8 become U+FFFD: the line is for reading.
pub fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let harmless = |c: char| c.is_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(harmless) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parse_line(line: &[&str]) -> Result<Cli, Stop> {
        let args: Vec<OsString> = std::iter::once("joblock")
            .chain(line.iter().copied())
            .map(OsString::from)
            .collect();
        parse(&args)
    }

    fn mistake(line: &[&str]) -> (String, u8) {
        match parse_line(line) {
            Err(Stop::Mistake { text, code }) => (text, code),
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn clap_finds_no_fault_with_its_own_tree() {
        Cli::command().debug_assert();
    }

    #[rstest]
    #[case::missing(&["run", "job", "echo", "hi"], "joblock run job -- echo hi")]
    #[case::missing_with_options(&["run", "-w", "5m", "job", "ls", "-l", "a b"], "joblock run -w 5m job -- ls -l 'a b'")]
    #[case::missing_with_cluster(&["run", "-vw5m", "job", "ls"], "joblock run -vw5m job -- ls")]
    #[case::missing_with_later_dashes(&["run", "job", "git", "checkout", "--", "x"], "joblock run job -- git checkout -- x")]
    #[case::missing_after_global(&["--store", "sqlite:x", "run", "job", "ls", "-x"], "joblock --store sqlite:x run job -- ls -x")]
    #[case::empty(&["run", "job", "--"], "joblock run job\nor with one of your own:\n  joblock run job -- COMMAND ARG...")]
    #[case::nothing(&["run", "--"], "joblock run JOB -- COMMAND")]
    #[case::before_job(&["run", "--", "job"], "joblock run job\n")]
    #[case::before_command(&["run", "-n", "--", "true"], "joblock run -n JOB -- true")]
    #[case::before_command_with_options(&["run", "--", "ls", "-l"], "like this:\n  joblock run JOB -- ls -l")]
    #[case::before_path(&["run", "--", "/bin/true"], "like this:\n  joblock run JOB -- /bin/true")]
    #[case::dashes_for_a_value(&["run", "hello", "-t", "--", "true"], "-t, --time-limit has no value: give it a DURATION")]
    #[case::option_for_a_value(&["run", "hello", "--time-limit", "-n", "true"], "-t, --time-limit has no value: give it a DURATION")]
    #[case::two_mistakes(&["run", "-t", "5x", "job", "ls"], "stands after --; and invalid value '5x'")]
    #[case::status_of_an_option(&["status", "--", "--what"], "status takes no --; and unexpected argument '--what'")]
    #[case::before_job_and_command(&["run", "-n", "--", "job", "ls", "-l"], "joblock run -n job -- ls -l")]
    #[case::around_job(&["run", "--", "job", "--", "ls"], "joblock run job -- ls")]
    #[case::twice(&["run", "job", "--", "--", "ls"], "joblock run job -- ls")]
    #[case::empty_command(&["run", "job", "--", ""], "is empty")]
    #[case::status(&["status", "--", "job"], "joblock status job")]
    #[case::rerun(&["rerun", "job", "--", "ls"], "joblock rerun job\n")]
    fn dashes_at_fault_get_the_line_as_it_should_be(#[case] line: &[&str], #[case] says: &str) {
        let (text, code) = mistake(line);
        assert!(
            text.starts_with("joblock: ") && text.contains(says),
            "{text}"
        );
        assert_eq!(code, exit::OWN_FAILURE);
        // No line of ours is itself a mistake; those of these cases have no blanks in their words.
        for advice in text.lines().filter_map(|l| l.strip_prefix("  joblock ")) {
            let words: Vec<_> = advice.split(' ').collect();
            assert!(parse_line(&words).is_ok(), "{advice}");
        }
    }

    #[rstest]
    #[case(&["run", "--timeout", "5", "job", "--", "ls"], "--time-limit")]
    #[case(&["run", "job", "--timeout=5", "--", "ls"], "--wait")]
    #[case(&["run", "-x", "job", "--", "ls"], "exclusive")]
    #[case(&["run", "-nx", "job", "--", "ls"], "exclusive")]
    #[case(&["run", "-o", "job", "--", "ls"], "--wait-for-children")]
    #[case(&["run", "-u", "job"], "joblock unlock JOB")]
    #[case(&["run", "-F", "job", "--", "ls"], "-F")]
    #[case(&["run", "job", "-c", "ls -l"], "sh -c")]
    #[case(&["run", "--user", "www", "job"], "sudo -u")]
    fn options_of_other_tools_are_explained(#[case] line: &[&str], #[case] says: &str) {
        let (text, code) = mistake(line);
        assert!(text.contains(says), "{text}");
        assert_eq!(code, exit::OWN_FAILURE);
    }

    #[test]
    fn an_unknown_option_gets_a_guess_and_no_advice_about_dashes() {
        for line in [
            &["run", "--wiat", "5", "job", "--", "ls"][..],
            &["run", "job", "--wiat", "5", "--", "ls"],
        ] {
            let (text, _) = mistake(line);
            assert!(
                text.contains("'--wait'") && !text.contains("-- --wiat"),
                "{text}"
            );
        }
    }

    #[rstest]
    #[case(&["check", "--what"], exit::CHECK_UNKNOWN)]
    #[case(&["check", "a/b"], exit::CHECK_UNKNOWN)]
    #[case(&["assert", "a/b"], exit::STORE_UNUSABLE)]
    #[case(&["status", "--what"], exit::OWN_FAILURE)]
    #[case(&["--what"], exit::OWN_FAILURE)]
    #[case(&["what"], exit::OWN_FAILURE)]
    #[case(&[], exit::OWN_FAILURE)]
    #[case(&["generate"], exit::OWN_FAILURE)]
    fn a_mistake_has_the_code_that_its_command_promises(#[case] line: &[&str], #[case] code: u8) {
        assert_eq!(mistake(line).1, code);
    }

    #[rstest]
    #[case(&["-n", "-w", "5"], false)]
    #[case(&["-n", "-w", "forever"], false)]
    #[case(&["-n", "-w", "0"], true)]
    #[case(&["-n"], true)]
    #[case(&["-w", "5"], true)]
    fn not_waiting_contradicts_waiting(#[case] options: &[&str], #[case] fine: bool) {
        let line = [&["run", "job"], options, &["--", "ls"]].concat();
        assert_eq!(parse_line(&line).is_ok(), fine);
    }

    #[rstest]
    #[case(&["--help"])]
    #[case(&["run", "--help"])]
    #[case(&["run", "-h", "job", "ls"])]
    #[case(&["--version"])]
    fn help_is_an_answer(#[case] line: &[&str]) {
        assert!(matches!(parse_line(line), Err(Stop::Answer(_))));
    }

    #[test]
    fn options_stand_before_and_after_the_job() {
        let Verb::Run(run) = parse_line(&["run", "-t", "5", "job", "-k", "3", "--", "ls", "-n"])
            .unwrap()
            .verb
        else {
            panic!("not run");
        };
        assert_eq!(run.job.as_str(), "job");
        assert_eq!(run.command, ["ls", "-n"]);
        assert!(
            run.start.time_limit.is_some() && run.start.kill_after.is_some() && !run.start.nonblock
        );
    }

    #[test]
    fn arguments_need_not_be_utf8() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(vec![b'a', 0xff, b'b']);
        let args = [
            example(&["joblock", "run", "job", "--", "cat"]),
            vec![odd.clone()],
        ]
        .concat();
        let Verb::Run(run) = parse(&args).unwrap().verb else {
            panic!("not run")
        };
        assert_eq!(run.command[1], odd);
    }
}
