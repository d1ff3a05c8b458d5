//! The night as `joblock history`, `show`, `status` and `check` tell it.

use std::process::Output;

use serde_json::Value;

use super::machine::Machine;
use super::stage::{KILLED, SYNC, Stage};

/// Why the operator runs the sync again.
pub const REASON: &str = "duplicates in the list of people";

/// joblock on a host, with the exit code that it must have.
pub fn joblock(machine: &Machine, args: &[&str], exit_code: i32) -> String {
    let out = machine
        .command("joblock")
        .args(args)
        .output()
        .expect("nsenter of util-linux");
    let Output {
        status,
        stdout,
        stderr,
    } = out;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert_eq!(
        status.code(),
        Some(exit_code),
        "joblock {}: {stdout}{stderr}",
        args.join(" ")
    );
    stdout.into_owned()
}

fn json(machine: &Machine, args: &[&str]) -> Value {
    let text = joblock(machine, args, 0);
    serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("joblock {}: {e}: {text}", args.join(" ")))
}

/// All attempts, oldest first, as this host tells them.
pub fn attempts(machine: &Machine) -> Vec<Value> {
    let history = json(machine, &["history", "--json", "--limit", "0"]);
    let mut runs = history["runs"].as_array().expect("runs").clone();
    runs.reverse();
    runs
}

/// The attempts of one job, each as `TRIGGER HOST OUTCOME`.
fn of_job(attempts: &[Value], job: &str) -> Vec<String> {
    let words = |run: &Value| {
        ["trigger", "host", "outcome"]
            .map(|field| run[field].as_str().unwrap_or("-").to_owned())
            .join(" ")
    };
    attempts
        .iter()
        .filter(|run| run["job"] == job)
        .map(words)
        .collect()
}

/// 00:21: joblock itself lived to write down what became of the job. Green knows at once.
pub fn tells_of_the_death(stage: &Stage) {
    let attempts = attempts(&stage.green);
    assert_eq!(of_job(&attempts, KILLED), ["schedule blue oom-killed"]);
}

/// 00:21: nobody lived to write anything down, and blue stays down. Its silence is noticed on green.
pub fn notices_the_silence(stage: &Stage) {
    stage.comes(
        "check is critical about the silence of a dead host",
        |stage| {
            let out = stage
                .green
                .command("joblock")
                .args(["check", KILLED])
                .output()
                .expect("nsenter");
            out.status.code() == Some(2)
        },
    );
    let attempts = attempts(&stage.green);
    assert_eq!(of_job(&attempts, KILLED), ["schedule blue abandoned"]);
}

/// 00:30, not 08:21: a check that anyone's monitoring can run is critical, although the job runs again by now.
pub fn check_is_critical(stage: &Stage) {
    for host in [&stage.green, &stage.blue] {
        let line = joblock(host, &["check"], 2);
        assert!(
            line.contains("CRITICAL") && line.contains(KILLED) && line.contains("blue"),
            "{line}"
        );
        joblock(host, &["check", KILLED], 2);
        joblock(host, &["check", "person-owner-rebuild"], 0);
    }
}

/// 01:33: both hosts see that green has the person sync, and since when.
pub fn status_names_green(stage: &Stage) {
    for host in [&stage.green, &stage.blue] {
        let status = json(host, &["status", "--json", SYNC]);
        let job = &status["jobs"][0];
        assert_eq!(job["state"], "running", "{status:#}");
        assert_eq!(job["lock"]["holder"]["host"], "green", "{status:#}");
        assert_eq!(job["lock"]["holder"]["trigger"], "schedule", "{status:#}");
    }
}

/// What the incident's record lacked, on either server.
pub fn tells_the_night(stage: &Stage) {
    let on_green = attempts(&stage.green);
    let on_blue = attempts(&stage.blue);
    assert_eq!(on_green, on_blue, "the hosts tell different stories");

    // what had succeeded that night is skipped; what was killed runs again
    assert_eq!(
        of_job(&on_green, "person-owner-rebuild"),
        ["schedule blue succeeded", "startup blue fresh"]
    );
    assert_eq!(
        of_job(&on_green, KILLED),
        ["schedule blue oom-killed", "startup blue succeeded"]
    );
    let sync = [
        "schedule green succeeded",
        "startup blue refused",
        "operator green succeeded",
    ];
    assert_eq!(of_job(&on_green, SYNC), sync);
    for job in [
        "person-placement-training-body-trust",
        "person-record-status",
        "post-employing-body-trust",
    ] {
        assert_eq!(of_job(&on_green, job), ["startup blue succeeded"], "{job}");
    }
    for job in ["reval-current-pm", "post-funding-status-sync"] {
        assert_eq!(
            of_job(&on_green, job),
            ["startup blue succeeded", "schedule blue fresh"],
            "{job}"
        );
    }
    for job in ["reval-current-placement", "post-elasticsearch-sync"] {
        assert_eq!(of_job(&on_green, job), ["schedule blue succeeded"], "{job}");
    }

    let rows = |job: &str| {
        on_green
            .iter()
            .filter(|run| run["job"] == job)
            .collect::<Vec<_>>()
    };
    let killed = rows(KILLED);
    assert_eq!(killed[0]["out_of_memory"], "yes", "{:#}", killed[0]);
    assert_eq!(
        (&killed[0]["token"], &killed[1]["token"]),
        (&1.into(), &2.into())
    );

    let [green, refused, rerun] = rows(SYNC)[..] else {
        panic!("three attempts of the sync")
    };
    assert_eq!(
        (&green["token"], &refused["token"], &rerun["token"]),
        (&1.into(), &Value::Null, &2.into())
    );
    let holder = &refused["held_by"];
    assert_eq!(
        (&holder["run_id"], &holder["host"]),
        (&green["run_id"], &"green".into()),
        "{refused:#}"
    );
    assert_eq!(holder["trigger"], "schedule", "{refused:#}");
    assert!(
        holder["since"]
            .as_str()
            .is_some_and(|since| since >= text(green, "started")),
        "{refused:#}"
    );
    // green was protected for as long as it took
    assert!(
        text(green, "started") < text(refused, "started")
            && text(refused, "started") < text(green, "ended")
    );

    assert_eq!(rerun["reason"], REASON, "{rerun:#}");
    assert_eq!(rerun["who"]["user"], "root", "{rerun:#}");
    assert_eq!(rerun["who"]["sudo_user"], "ann", "{rerun:#}");
    assert!(
        rerun["who"]["terminal"]
            .as_str()
            .is_some_and(|name| name.starts_with("pts/")),
        "{rerun:#}"
    );

    // one run in full, and the page for people
    let shown = json(&stage.blue, &["show", SYNC, "--json"]);
    assert_eq!(shown["run"]["run_id"], rerun["run_id"], "{shown:#}");
    let page = joblock(&stage.green, &["show", &text(refused, "run_id")[..6]], 0);
    assert!(page.contains("held by green"), "{page}");
    let page = joblock(&stage.blue, &["show", text(killed[0], "run_id")], 0);
    assert!(
        page.contains("oom-killed") && page.contains("blue"),
        "{page}"
    );

    for host in [&stage.green, &stage.blue] {
        let line = joblock(host, &["check"], 0);
        assert!(line.contains("OK"), "{line}");
    }
}

fn text<'a>(run: &'a Value, field: &str) -> &'a str {
    run[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field}: {run:#}"))
}
