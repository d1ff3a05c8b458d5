//! Completion scripts: clap's own for commands and options, and what they can't know, the names of jobs.
//!
//! The scripts ask `joblock generate jobs`, which reads the jobs file and the store.

use clap::CommandFactory;
use clap_complete::aot::{Shell as Generator, generate};

use crate::cli::{Cli, Shell};

/// The commands that take jobs.
const TAKE_JOBS: &[&str] = &[
    "run", "status", "history", "show", "logs", "rerun", "stop", "unlock", "assert", "check",
    "prune",
];

/// The script for `shell`.
pub fn script(shell: Shell) -> String {
    let generator = match shell {
        Shell::Bash => Generator::Bash,
        Shell::Zsh => Generator::Zsh,
        Shell::Fish => Generator::Fish,
    };
    let mut bytes = Vec::new();
    generate(generator, &mut Cli::command(), "joblock", &mut bytes);
    let script = String::from_utf8_lossy(&bytes).into_owned();
    match shell {
        Shell::Bash => bash(&script),
        Shell::Zsh => zsh(&script),
        Shell::Fish => fish(&script),
    }
}

/// clap's function is called first, then a second one adds the jobs where a job can stand.
fn bash(script: &str) -> String {
    let end = script
        .rfind("if [[ \"${BASH_VERSINFO")
        .unwrap_or(script.len());
    let jobs = BASH_JOBS.replace("VERBS", &TAKE_JOBS.join("|"));
    format!("{}{jobs}", &script[..end])
}

const BASH_JOBS: &str = r#"# Adds the names of jobs to what _joblock offers, and hands over to the command behind `--`.
_joblock_with_jobs() {
    local cur="${COMP_WORDS[COMP_CWORD]}" verb="" jobs="" word i
    local -a where=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        case "$word" in
            --)
                COMPREPLY=( $(compgen -c -f -- "$cur") )
                return 0
                ;;
            --store|--config)
                # readline makes words of their own of `=` and `:`; only values without them are passed on.
                where+=("$word" "${COMP_WORDS[i + 1]}")
                ;;
            VERBS)
                [[ -z "$verb" ]] && verb="$word"
                ;;
        esac
    done
    _joblock "$@"
    case "${COMP_WORDS[COMP_CWORD - 1]}" in
        -[wtksE]|--wait|--time-limit|--kill-after|--signal|--conflict-exit-code|--max-waiters|--ttl|--lock|--reason|--tag|--trigger) return 0 ;;
        --unless-succeeded-within|--keep|--redact|--since|--until|--outcome|--host|--limit|--store|--config) return 0 ;;
    esac
    if [[ -n "$verb" && "$cur" != -* ]]; then
        jobs="$(joblock generate jobs "${where[@]}" 2>/dev/null)"
        COMPREPLY=( $(compgen -W "$jobs" -- "$cur") )
    fi
    return 0
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _joblock_with_jobs -o nosort -o bashdefault -o default joblock
else
    complete -F _joblock_with_jobs -o bashdefault -o default joblock
fi
"#;

/// The specification of each argument that is a job ends in the function that offers jobs.
fn zsh(script: &str) -> String {
    let is_job = |line: &str| {
        let name = line.trim_start_matches(['\'', '"', ':', '*']);
        line.starts_with(['\'', '"'])
            && ["job -- ", "jobs -- ", "target -- "]
                .iter()
                .any(|arg| name.starts_with(arg))
    };
    let lines = script.lines().map(|line| {
        if is_job(line) {
            line.replace(":_default", ":_joblock_job_names")
        } else {
            line.to_owned()
        }
    });
    let script: String = lines.map(|line| line + "\n").collect();
    let last = script
        .rfind("if [ \"$funcstack[1]\"")
        .unwrap_or(script.len());
    format!("{}{ZSH_JOBS}{}", &script[..last], &script[last..])
}

const ZSH_JOBS: &str = r#"(( $+functions[_joblock_job_names] )) ||
_joblock_job_names() {
    local -a names
    names=(${(f)"$(_call_program jobs joblock generate jobs 2>/dev/null)"})
    compadd -a names
}

"#;

/// fish asks every rule that holds: one more says where jobs stand.
fn fish(script: &str) -> String {
    let jobs = TAKE_JOBS.iter().map(|verb| {
        format!(
            "complete -c joblock -n \"__fish_joblock_using_subcommand {verb}; and not contains -- -- (commandline -opc)\" \
             -f -a \"(joblock generate jobs 2>/dev/null)\"\n"
        )
    });
    let heading =
        "\n# The names of jobs, from the jobs file and the store, up to the `--` of a command.\n";
    let shells = "complete -c joblock -n \"__fish_seen_subcommand_from completions\" -f -a \"bash zsh fish\"\n";
    [script, heading]
        .into_iter()
        .map(str::to_owned)
        .chain(jobs)
        .chain([shells.to_owned()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_asks_for_job_names() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            assert!(script(shell).contains("joblock generate jobs"), "{shell:?}");
        }
    }

    #[test]
    fn each_command_that_takes_jobs_offers_them() {
        let zsh = script(Shell::Zsh);
        assert_eq!(
            zsh.matches(":_joblock_job_names").count(),
            TAKE_JOBS.len(),
            "{zsh}"
        );
        let bash = script(Shell::Bash);
        assert_eq!(
            bash.matches("complete -F _joblock ").count(),
            0,
            "clap's own registration is replaced: {bash}"
        );
    }

    #[test]
    fn the_commands_that_take_jobs_are_all_known() {
        let root = Cli::command();
        for verb in root.get_subcommands() {
            let takes = verb
                .get_positionals()
                .any(|a| matches!(a.get_id().as_str(), "job" | "jobs" | "target"));
            assert_eq!(
                takes,
                TAKE_JOBS.contains(&verb.get_name()),
                "{}",
                verb.get_name()
            );
        }
    }
}
