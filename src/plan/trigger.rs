//! What asks for the attempt: the option, else `$JOBLOCK_TRIGGER`, else what the surroundings look like.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::environment::Environment;
use super::{PlanError, Source};
use crate::store::record::Trigger;

/// Names of daemons that start jobs by a crontab, as the kernel shows them (15 characters at most).
const CRONS: &[&str] = &[
    "cron",
    "crond",
    "anacron",
    "fcron",
    "dcron",
    "bcron-exec",
    "bcron-sched",
    "cronie",
    "supercronic",
];

/// Whether a process of this name is a cron.
pub fn is_cron(name: &str) -> bool {
    CRONS.contains(&name.to_ascii_lowercase().as_str())
}

/// The trigger and what it was told from.
pub fn trigger(
    option: Option<Trigger>,
    environment: &Environment,
) -> Result<(Trigger, Source), PlanError> {
    if let Some(given) = option {
        return Ok((given, Source::Option("--trigger")));
    }
    if let Some(text) = &environment.trigger {
        let parsed = text.to_string_lossy().parse();
        return match parsed {
            Ok(given) => Ok((given, Source::Variable("$JOBLOCK_TRIGGER"))),
            Err(why) => Err(PlanError::Trigger(why)),
        };
    }
    Ok(guess(environment))
}

fn guess(environment: &Environment) -> (Trigger, Source) {
    let found = |trigger, why: &str| (trigger, Source::Found(why.to_owned()));
    if let Some(cron) = environment.ancestors.iter().find(|name| is_cron(name)) {
        return found(Trigger::Schedule, &format!("{cron} is an ancestor process"));
    }
    if environment
        .trigger_unit
        .as_deref()
        .is_some_and(|unit: &OsStr| unit.as_bytes().ends_with(b".timer"))
    {
        return found(Trigger::Schedule, "a systemd timer, says $TRIGGER_UNIT");
    }
    if environment.timer_and_invocation {
        return found(
            Trigger::Schedule,
            "a systemd timer, says $TRIGGER_TIMER_REALTIME_USEC",
        );
    }
    if environment.is_pid_1 {
        return found(Trigger::Startup, "it is PID 1");
    }
    if environment.terminal {
        return found(Trigger::Operator, "there is a terminal");
    }
    found(Trigger::Other, "no cron, no timer, not PID 1, no terminal")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn chain(names: &[&str]) -> Vec<String> {
        names.iter().map(|&n| n.to_owned()).collect()
    }

    #[rstest]
    #[case::nothing(Environment::default(), Trigger::Other)]
    #[case::cron(Environment { ancestors: chain(&["sh", "cron", "cron", "systemd"]), ..Environment::default() }, Trigger::Schedule)]
    #[case::debian_child(Environment { ancestors: chain(&["sh", "CRON"]), ..Environment::default() }, Trigger::Schedule)]
    #[case::not_quite_cron(Environment { ancestors: chain(&["mycron", "crontab"]), ..Environment::default() }, Trigger::Other)]
    #[case::cron_with_terminal(Environment { ancestors: chain(&["crond"]), terminal: true, ..Environment::default() }, Trigger::Schedule)]
    #[case::timer_unit(Environment { trigger_unit: Some("sync.timer".into()), ..Environment::default() }, Trigger::Schedule)]
    #[case::path_unit(Environment { trigger_unit: Some("sync.path".into()), ..Environment::default() }, Trigger::Other)]
    #[case::timer_usec(Environment { timer_and_invocation: true, ..Environment::default() }, Trigger::Schedule)]
    #[case::pid_1(Environment { is_pid_1: true, ..Environment::default() }, Trigger::Startup)]
    #[case::pid_1_with_terminal(Environment { is_pid_1: true, terminal: true, ..Environment::default() }, Trigger::Startup)]
    #[case::terminal(Environment { terminal: true, ..Environment::default() }, Trigger::Operator)]
    #[case::variable(Environment { trigger: Some("startup".into()), terminal: true, ..Environment::default() }, Trigger::Startup)]
    fn triggers(#[case] environment: Environment, #[case] is: Trigger) {
        assert_eq!(trigger(None, &environment).unwrap().0, is);
        let (given, source) = trigger(Some(Trigger::Operator), &environment).unwrap();
        assert_eq!(
            (given, source),
            (Trigger::Operator, Source::Option("--trigger"))
        );
    }

    #[test]
    fn a_wrong_variable_is_an_error() {
        let environment = Environment {
            trigger: Some("cron".into()),
            ..Environment::default()
        };
        let message = trigger(None, &environment).unwrap_err().to_string();
        assert!(
            message.starts_with("$JOBLOCK_TRIGGER: \"cron\" is none of schedule"),
            "{message}"
        );
    }
}
