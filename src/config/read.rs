//! From TOML to [`JobsFile`], keeping the place of everything that can be wrong.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Key};
use super::values::{
    Fault, capture, command, exit_code, flag, keep, number_or_text, outcomes, patterns, span, tags,
    text_of, texts, uuid, waiters, webhook,
};
use super::{At, ConfigError, Job, JobsFile, Notify, Source};
use crate::cli;
use crate::duration::{self, Span};
use crate::guess;
use crate::name::JobName;
use crate::plan;
use crate::schedule::{self, Schedule, Zone};

type Value<'t> = Spanned<DeValue<'t>>;

/// A table of the file: its entries must be among `keys`.
struct Table<'a, 't> {
    source: &'a Source<'a>,
    /// As in `[jobs.person-sync]`; empty at the top.
    name: String,
    entries: &'a DeTable<'t>,
    keys: &'static [Key],
}

pub(super) fn jobs_file(path: &Path, text: &str) -> Result<JobsFile, ConfigError> {
    let source = Source { path, text };
    let document =
        DeTable::parse(text).map_err(|e| source.wrong(&e.span().unwrap_or(0..0), e.message()))?;
    let top = Table::new(&source, String::new(), document.get_ref(), keys::TOP)?;
    // of the whole path: the parent of a bare name is nothing, which is no folder
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    let mut file = JobsFile {
        path: path.to_owned(),
        store: top.get("store", |v| {
            Ok(plan::parse_store_url(text_of(v)?.as_ref(), folder)?)
        })?,
        store_id: top.get("store-id", uuid)?,
        keep: top.get("keep", keep)?,
        redact: top.all("redact", patterns)?,
        only_named_jobs: top.get("only-named-jobs", flag)?.is_some_and(|at| at.value),
        jobs: BTreeMap::new(),
    };
    let Some(jobs) = top.entry("jobs") else {
        return Ok(file);
    };
    for (name, value) in top.sub_table("jobs", jobs)? {
        let job: JobName = name
            .get_ref()
            .parse()
            .map_err(|e| source.wrong(&name.span(), e))?;
        let title = format!("jobs.{job}");
        let entries = top.sub_table(&title, value)?;
        let table = Table::new(&source, title, entries, keys::JOB)?;
        file.jobs.insert(job, table.job(source.line(&name.span()))?);
    }
    check_order(&source, &document, &file)?;
    Ok(file)
}

impl<'a, 't> Table<'a, 't> {
    fn new(
        source: &'a Source<'a>,
        name: String,
        entries: &'a DeTable<'t>,
        keys: &'static [Key],
    ) -> Result<Self, ConfigError> {
        for key in entries.keys() {
            let text = key.get_ref().as_ref();
            if keys::names(keys).any(|k| k == text) {
                continue;
            }
            let place = if name.is_empty() {
                String::new()
            } else {
                format!(" in [{name}]")
            };
            let instead = keys::NOT_KEYS
                .iter()
                .find(|(k, _)| *k == text && !name.is_empty());
            let advice = match (instead, elsewhere(text, keys)) {
                (Some((_, advice)), _) => format!(": {advice}"),
                (None, Some(advice)) => format!(": {advice}"),
                (None, None) => guess::did_you_mean(text, keys::names(keys)),
            };
            return Err(source.wrong(&key.span(), format!("unknown key {text:?}{place}{advice}")));
        }
        Ok(Table {
            source,
            name,
            entries,
            keys,
        })
    }

    fn entry(&self, key: &str) -> Option<&'a Value<'t>> {
        debug_assert!(
            keys::names(self.keys).any(|k| k == key),
            "{key} is missing from the table of keys"
        );
        self.entries.get(key)
    }

    fn get<T>(
        &self,
        key: &str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, Fault>,
    ) -> Result<Option<At<T>>, ConfigError> {
        let Some(value) = self.entry(key) else {
            return Ok(None);
        };
        match read(value.get_ref()) {
            Ok(read) => Ok(Some(At {
                value: read,
                line: self.source.line(&value.span()),
            })),
            Err(fault) => Err(self.fault(key, value, fault)),
        }
    }

    /// A list that may be missing.
    fn all<T>(
        &self,
        key: &str,
        read: impl FnOnce(&DeValue<'t>) -> Result<Vec<T>, Fault>,
    ) -> Result<Vec<T>, ConfigError> {
        Ok(self.get(key, read)?.map(|at| at.value).unwrap_or_default())
    }

    fn fault(&self, key: &str, value: &Value<'_>, fault: Fault) -> ConfigError {
        let place = if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        };
        let message = match (fault, self.keys.iter().find(|k| k.name == key)) {
            (Fault::Text(text), _) => format!("{place}: {text}"),
            (Fault::Part { part, kind }, Some(k)) => format!(
                "{place} wants {}, its {part} is of type {kind}: write {key} = {}",
                k.value, k.example
            ),
            (Fault::Kind, Some(k)) => {
                let found = value.get_ref().type_str();
                format!(
                    "{place} wants {}, this is of type {found}: write {key} = {}",
                    k.value, k.example
                )
            }
            (Fault::Kind | Fault::Part { .. }, None) => format!("{place} is of the wrong type"),
        };
        self.source.wrong(&value.span(), message)
    }

    fn sub_table(&self, key: &str, value: &'a Value<'t>) -> Result<&'a DeTable<'t>, ConfigError> {
        value.get_ref().as_table().ok_or_else(|| {
            let found = value.get_ref().type_str();
            self.source.wrong(
                &value.span(),
                format!("{key} wants a table, this is of type {found}: write [{key}]"),
            )
        })
    }

    /// Of two keys that contradict each other, at most one may be there (and be true, if it is a flag).
    fn one_of(&self, first: &str, second: &str) -> Result<(), ConfigError> {
        let given = |key| {
            self.entry(key)
                .filter(|v| v.get_ref().as_bool() != Some(false))
        };
        match (given(first), given(second)) {
            (Some(_), Some(value)) => {
                let message = format!("{first} and {second} contradict each other: leave one out");
                Err(self.source.wrong(&value.span(), message))
            }
            _ => Ok(()),
        }
    }

    fn job(&self, line: usize) -> Result<Job, ConfigError> {
        self.one_of("nonblock", "wait")?;
        self.one_of("capture", "no-capture")?;
        self.one_of("quiet", "verbose")?;
        let nonblock = self.get("nonblock", flag)?.filter(|at| at.value);
        let nonblock = nonblock.map(|at| At {
            value: Span::For(Duration::ZERO),
            line: at.line,
        });
        let no_capture = self.get("no-capture", flag)?.filter(|at| at.value);
        let no_capture = no_capture.map(|at| At {
            value: None,
            line: at.line,
        });
        let quiet = self.get("quiet", flag)?.filter(|at| at.value).map(|at| At {
            value: -1,
            line: at.line,
        });
        let verbose = self
            .get("verbose", flag)?
            .filter(|at| at.value)
            .map(|at| At {
                value: 1,
                line: at.line,
            });
        Ok(Job {
            line,
            command: self.get("command", command)?,
            lock: self.get("lock", |v| Ok(text_of(v)?.parse()?))?,
            ttl: self.get("ttl", |v| Ok(duration::ttl(&number_or_text(v)?)?))?,
            wait: self.get("wait", span)?.or(nonblock),
            max_waiters: self.get("max-waiters", waiters)?,
            conflict_exit_code: self.get("conflict-exit-code", exit_code)?,
            unless_succeeded_within: self.get("unless-succeeded-within", |v| {
                Ok(duration::window(&number_or_text(v)?)?)
            })?,
            time_limit: self.get("time-limit", span)?,
            kill_after: self.get("kill-after", |v| Ok(duration::finite(&number_or_text(v)?)?))?,
            signal: self.get("signal", |v| {
                cli::signal(&number_or_text(v)?).map_err(Fault::Text)
            })?,
            wait_for_children: self.get("wait-for-children", flag)?,
            private_store: self.get("private-store", flag)?,
            accept_unsafe_mount: self.get("accept-unsafe-mount", |v| {
                cli::unsafe_reason(text_of(v)?).map_err(Fault::Text)
            })?,
            reason: self.get("reason", |v| cli::reason(text_of(v)?).map_err(Fault::Text))?,
            tags: self
                .get("tags", tags)?
                .map(|at| at.value)
                .unwrap_or_default(),
            capture: self.get("capture", capture)?.or(no_capture),
            keep: self.get("keep", keep)?,
            redact: self.all("redact", patterns)?,
            verbosity: quiet.or(verbose),
            schedule: self.schedule()?,
            after: self.all("after", |v| {
                texts(v)?.iter().map(|t| Ok(t.parse()?)).collect()
            })?,
            notify: self.notify()?,
        })
    }

    fn schedule(&self) -> Result<Option<At<Schedule>>, ConfigError> {
        let zone = self.get("timezone", |v| Ok(schedule::zone(text_of(v)?)?))?;
        let (zone, zone_line) = zone.map_or((Zone::Local, None), |at| (at.value, Some(at.line)));
        let schedule = self.get("schedule", |v| Ok(Schedule::parse(text_of(v)?, zone)?))?;
        match (self.entry("timezone"), zone_line) {
            (Some(value), Some(_)) if schedule.is_none() => Err(self.fault(
                "timezone",
                value,
                Fault::Text("there is no schedule that it could be for".to_owned()),
            )),
            _ => Ok(schedule),
        }
    }

    fn notify(&self) -> Result<Option<Notify>, ConfigError> {
        let Some(value) = self.entry("notify") else {
            return Ok(None);
        };
        let Some(entries) = value.get_ref().as_table() else {
            return Err(self.fault("notify", value, Fault::Kind));
        };
        let table = Table::new(
            self.source,
            format!("{}.notify", self.name),
            entries,
            keys::NOTIFY,
        )?;
        let missing = |what: &str| {
            Err(self.fault("notify", value, Fault::Text(format!("{what} is missing"))))
        };
        let Some(on) = table.get("on", outcomes)? else {
            return missing("on = [OUTCOMES]");
        };
        let webhook = table.get("webhook", webhook)?.map(|at| at.value);
        let command = table.get("command", command)?.map(|at| at.value);
        if webhook.is_none() && command.is_none() {
            return missing("webhook = URL or command = [PROGRAM]");
        }
        Ok(Some(Notify {
            on: on.value,
            webhook,
            command,
        }))
    }
}

/// A key that stands one table too high or too low.
fn elsewhere(text: &str, keys: &'static [Key]) -> Option<&'static str> {
    let is_top = std::ptr::eq(keys, keys::TOP);
    if is_top && keys::names(keys::JOB).any(|k| k == text) {
        return Some("it belongs to a job, below [jobs.NAME]");
    }
    if !is_top && keys::names(keys::TOP).any(|k| k == text) {
        return Some("it belongs to the top of the file, before the first [jobs.NAME]");
    }
    None
}

/// `after` names jobs of this file, and leads nowhere in a circle.
fn check_order(
    source: &Source<'_>,
    document: &Spanned<DeTable<'_>>,
    file: &JobsFile,
) -> Result<(), ConfigError> {
    let place = |job: &JobName| {
        let jobs = document
            .get_ref()
            .get("jobs")
            .and_then(|v| v.get_ref().as_table());
        let entry = jobs
            .and_then(|j| j.get(job.as_str()))
            .and_then(|v| v.get_ref().get("after"));
        entry.map_or(0..0, Spanned::span)
    };
    for (name, job) in &file.jobs {
        for before in &job.after {
            if !file.jobs.contains_key(before) {
                let guess =
                    guess::did_you_mean(before.as_str(), file.jobs.keys().map(JobName::as_str));
                let message = format!(
                    "jobs.{name}.after: no job {:?} in this file{guess}",
                    before.as_str()
                );
                return Err(source.wrong(&place(name), message));
            }
        }
    }
    for name in file.jobs.keys() {
        if let Some(circle) = circle_from(name, file) {
            let message = format!(
                "jobs.{name}.after: these wait for each other in a circle: {}",
                circle.join(" after ")
            );
            return Err(source.wrong(&place(name), message));
        }
    }
    Ok(())
}

/// The way from `start` along `after` back to `start`, if there is one.
fn circle_from(start: &JobName, file: &JobsFile) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&JobName, &JobName> = BTreeMap::new();
    let mut to_visit = vec![start];
    while let Some(name) = to_visit.pop() {
        for before in file.jobs.get(name).into_iter().flat_map(|job| &job.after) {
            if before == start {
                let mut way = vec![start.to_string()];
                let mut at = name;
                while at != start {
                    way.push(at.to_string());
                    at = came_from.get(at)?;
                }
                way.push(start.to_string());
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(before) {
                came_from.insert(before, name);
                to_visit.push(before);
            }
        }
    }
    None
}
