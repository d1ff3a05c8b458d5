#compdef joblock

autoload -U is-at-least

_joblock() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'-V[Print version]' \
'--version[Print version]' \
":: :_joblock_commands" \
"*::: :->joblock" \
&& ret=0
    case $state in
    (joblock)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:joblock-command-$line[1]:"
        case $line[1] in
            (run)
_arguments "${_arguments_options[@]}" : \
'--lock=[Take this lock instead of the job'\''s own; several jobs can share it]:NAME:_default' \
'--unless-succeeded-within=[Skip, with exit code 0, if the job succeeded within this time]:DURATION:_default' \
'-w+[Wait at most this long for the lock, or forever; 0 is -n]:DURATION:_default' \
'--wait=[Wait at most this long for the lock, or forever; 0 is -n]:DURATION:_default' \
'--max-waiters=[With -w\: don'\''t wait if N wait already]:N:_default' \
'-E+[Exit with N instead of 75 if the lock is held]:N:_default' \
'--conflict-exit-code=[Exit with N instead of 75 if the lock is held]:N:_default' \
'--ttl=[How long a shared store'\''s lock outlives a host that vanished \[default\: 45s\]]:DURATION:_default' \
'--accept-unsafe-mount=[Start although the store'\''s mount lies (its locks don'\''t reach other machines, for example); REASON and what was accepted stand in the history]:REASON:_default' \
'-t+[End the job when it takes longer; 0 is no limit]:DURATION:_default' \
'--time-limit=[End the job when it takes longer; 0 is no limit]:DURATION:_default' \
'-k+[Send KILL this long after the first signal of a time limit, stop or unlock \[default\: 10s\]]:DURATION:_default' \
'--kill-after=[Send KILL this long after the first signal of a time limit, stop or unlock \[default\: 10s\]]:DURATION:_default' \
'-s+[The first signal\: TERM, SIGTERM or 15 \[default\: TERM\]]:SIGNAL:_default' \
'--signal=[The first signal\: TERM, SIGTERM or 15 \[default\: TERM\]]:SIGNAL:_default' \
'--trigger=[What asks for it\: schedule, startup, operator or other \[default\: found out\]]:WHAT:_default' \
'--reason=[Why; it stands in the history]:TEXT:_default' \
'*--tag=[A label for the history; can be given several times]:KEY=VALUE:_default' \
'*--redact=[Hide what matches this regular expression (its first group, if it has one) in each argument of COMMAND before it is recorded; can be given several times]:PATTERN:_default' \
'--keep=[After the run, delete what of the job'\''s history ended longer ago; forever\: nothing \[default\: the jobs file'\''s, else forever\]]:DURATION:_default' \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'--override[Run COMMAND although the jobs file has another for JOB]' \
'-n[Don'\''t wait while the lock is held (the default)]' \
'--nonblock[Don'\''t wait while the lock is held (the default)]' \
'--private-store[As a container'\''s PID 1\: accept a store that no other container can see]' \
'--wait-for-children[Wait for processes that the job leaves behind, instead of ending them]' \
'--no-capture[Keep no output in the history, and hand the streams over untouched]' \
'(-v --verbose)-q[Say nothing but errors]' \
'(-v --verbose)--quiet[Say nothing but errors]' \
'-v[Say what happens. Without it a refused start is silent where stderr is no terminal, as in cron\: the exit code tells, and the history why]' \
'--verbose[Say what happens. Without it a refused start is silent where stderr is no terminal, as in cron\: the exit code tells, and the history why]' \
'--explain[Print what would be done, and where each part comes from; start and write nothing]' \
'--json[With --explain\: print JSON]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':job -- The job'\''s name, also the name of its lock:_joblock_job_names' \
'*::command -- The command and its arguments, as they are, after --:_cmdambivalent' \
&& ret=0
;;
(status)
_arguments "${_arguments_options[@]}" : \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'--json[Print JSON]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'*::jobs -- Only these jobs:_joblock_job_names' \
&& ret=0
;;
(history)
_arguments "${_arguments_options[@]}" : \
'-n+[At most N attempts; 0\: all]:N:_default' \
'--limit=[At most N attempts; 0\: all]:N:_default' \
'--since=[Begun at this moment or later]:MOMENT:_default' \
'--until=[Begun before this moment]:MOMENT:_default' \
'*--outcome=[Only with this outcome; several with commas]:OUTCOME:_default' \
'--host=[Only on this host]:NAME:_hosts' \
'--trigger=[Only asked for by this\: schedule, startup, operator or other]:WHAT:_default' \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'--json[Print JSON]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'::job -- Only this job:_joblock_job_names' \
&& ret=0
;;
(show)
_arguments "${_arguments_options[@]}" : \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'--json[Print JSON]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':target -- A run id (its first 6 characters do) or a job, for its last run:_joblock_job_names' \
&& ret=0
;;
(logs)
_arguments "${_arguments_options[@]}" : \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'-f[Go on while the job runs]' \
'--follow[Go on while the job runs]' \
'(-f --follow)--json[Print JSON]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':target -- A run id (its first 6 characters do) or a job, for its last run:_joblock_job_names' \
&& ret=0
;;
(rerun)
_arguments "${_arguments_options[@]}" : \
'-w+[Wait at most this long for the lock, or forever; 0 is -n]:DURATION:_default' \
'--wait=[Wait at most this long for the lock, or forever; 0 is -n]:DURATION:_default' \
'--max-waiters=[With -w\: don'\''t wait if N wait already]:N:_default' \
'-E+[Exit with N instead of 75 if the lock is held]:N:_default' \
'--conflict-exit-code=[Exit with N instead of 75 if the lock is held]:N:_default' \
'--ttl=[How long a shared store'\''s lock outlives a host that vanished \[default\: 45s\]]:DURATION:_default' \
'--accept-unsafe-mount=[Start although the store'\''s mount lies (its locks don'\''t reach other machines, for example); REASON and what was accepted stand in the history]:REASON:_default' \
'-t+[End the job when it takes longer; 0 is no limit]:DURATION:_default' \
'--time-limit=[End the job when it takes longer; 0 is no limit]:DURATION:_default' \
'-k+[Send KILL this long after the first signal of a time limit, stop or unlock \[default\: 10s\]]:DURATION:_default' \
'--kill-after=[Send KILL this long after the first signal of a time limit, stop or unlock \[default\: 10s\]]:DURATION:_default' \
'-s+[The first signal\: TERM, SIGTERM or 15 \[default\: TERM\]]:SIGNAL:_default' \
'--signal=[The first signal\: TERM, SIGTERM or 15 \[default\: TERM\]]:SIGNAL:_default' \
'--trigger=[What asks for it\: schedule, startup, operator or other \[default\: found out\]]:WHAT:_default' \
'--reason=[Why; it stands in the history]:TEXT:_default' \
'*--tag=[A label for the history; can be given several times]:KEY=VALUE:_default' \
'*--redact=[Hide what matches this regular expression (its first group, if it has one) in each argument of COMMAND before it is recorded; can be given several times]:PATTERN:_default' \
'--keep=[After the run, delete what of the job'\''s history ended longer ago; forever\: nothing \[default\: the jobs file'\''s, else forever\]]:DURATION:_default' \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'-n[Don'\''t wait while the lock is held (the default)]' \
'--nonblock[Don'\''t wait while the lock is held (the default)]' \
'--private-store[As a container'\''s PID 1\: accept a store that no other container can see]' \
'--wait-for-children[Wait for processes that the job leaves behind, instead of ending them]' \
'--no-capture[Keep no output in the history, and hand the streams over untouched]' \
'(-v --verbose)-q[Say nothing but errors]' \
'(-v --verbose)--quiet[Say nothing but errors]' \
'-v[Say what happens. Without it a refused start is silent where stderr is no terminal, as in cron\: the exit code tells, and the history why]' \
'--verbose[Say what happens. Without it a refused start is silent where stderr is no terminal, as in cron\: the exit code tells, and the history why]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':target -- A job, for its last run, or a run id (its first 6 characters do):_joblock_job_names' \
&& ret=0
;;
(stop)
_arguments "${_arguments_options[@]}" : \
'--reason=[Why; it stands in the history]:TEXT:_default' \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':job -- The job:_joblock_job_names' \
&& ret=0
;;
(unlock)
_arguments "${_arguments_options[@]}" : \
'--reason=[Why; it stands in the history]:TEXT:_default' \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'--kill[Kill what is left of the run on this machine]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':job -- The job:_joblock_job_names' \
&& ret=0
;;
(assert)
_arguments "${_arguments_options[@]}" : \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'::job -- The job \[default\: $JOBLOCK_JOB\]:_joblock_job_names' \
&& ret=0
;;
(check)
_arguments "${_arguments_options[@]}" : \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'--json[Print JSON]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'*::jobs -- Only these jobs \[default\: those of the jobs file, else all that ever ran\]:_joblock_job_names' \
&& ret=0
;;
(doctor)
_arguments "${_arguments_options[@]}" : \
'-w+[With --peer\: wait so long for the other one \[default\: 2m\]]:DURATION:_default' \
'--wait=[With --peer\: wait so long for the other one \[default\: 2m\]]:DURATION:_default' \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'--peer[Meet a doctor on another machine in the store, and prove that the locks of one are seen by the other]' \
'--json[Print JSON]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(prune)
_arguments "${_arguments_options[@]}" : \
'--keep=[Keep what ended within this time, given with its unit \[default\: keep in the jobs file\]. Jobs that the jobs file keeps for ever must be named]:DURATION:_default' \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'--trust-clock[Count ages by this machine'\''s clock, even if nothing on record shows that it is right]' \
'--dry-run[Say what would be deleted, and delete nothing]' \
'--json[Print JSON]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'*::jobs -- Only these jobs \[default\: all that have a history\]:_joblock_job_names' \
&& ret=0
;;
(init)
_arguments "${_arguments_options[@]}" : \
'--group=[Let this group'\''s members use it\: folder 2770, database 0660]:GROUP:_default' \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'--shared[Make it a shared store, for several hosts, although its file system is a local one]' \
'--system[Make the machine'\''s store, /var/lib/joblock/joblock.db, unless --store names another]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(generate)
_arguments "${_arguments_options[@]}" : \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'-h[Print help]' \
'--help[Print help]' \
":: :_joblock__subcmd__generate_commands" \
"*::: :->generate" \
&& ret=0

    case $state in
    (generate)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:joblock-generate-command-$line[1]:"
        case $line[1] in
            (man)
_arguments "${_arguments_options[@]}" : \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'()--stdout[Print joblock(1) instead]' \
'-h[Print help]' \
'--help[Print help]' \
'::directory -- Write them here, below man1 and man5:_files -/' \
&& ret=0
;;
(completions)
_arguments "${_arguments_options[@]}" : \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':shell -- For this shell:((bash\:"GNU bash with bash-completion"
zsh\:"The Z shell"
fish\:"fish"))' \
&& ret=0
;;
(jobs)
_arguments "${_arguments_options[@]}" : \
'--store=[Where locks and history are\: sqlite\:PATH, sqlite\:PATH?shared or lockfile\:DIRECTORY, with ?server-lease=DURATION if need be]:URL:_default' \
'--config=[The jobs file \[default\: \$JOBLOCK_CONFIG, else /etc/joblock/joblock.toml\]]:FILE:_files' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
}

(( $+functions[_joblock_commands] )) ||
_joblock_commands() {
    local commands; commands=(
'run:Run a command under a job'\''s lock' \
'status:Show who runs what, where and since when' \
'history:List the attempts of the past, newest first' \
'show:Show everything about one run' \
'logs:Print the kept output of a run' \
'rerun:Run a job again\: the same command under the same lock' \
'stop:Ask a running job to stop, from any host' \
'unlock:Take a lock away from its holder, whose job is then killed' \
'assert:Inside a job\: tell by the exit code whether the lock is still held' \
'check:Tell a monitoring system how the jobs are' \
'doctor:Prove that the store does what locks need' \
'prune:Delete old attempts from the history, with their output' \
'init:Create a store' \
'generate:Print man pages and shell completions' \
    )
    _describe -t commands 'joblock commands' commands "$@"
}
(( $+functions[_joblock__subcmd__assert_commands] )) ||
_joblock__subcmd__assert_commands() {
    local commands; commands=()
    _describe -t commands 'joblock assert commands' commands "$@"
}
(( $+functions[_joblock__subcmd__check_commands] )) ||
_joblock__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'joblock check commands' commands "$@"
}
(( $+functions[_joblock__subcmd__doctor_commands] )) ||
_joblock__subcmd__doctor_commands() {
    local commands; commands=()
    _describe -t commands 'joblock doctor commands' commands "$@"
}
(( $+functions[_joblock__subcmd__generate_commands] )) ||
_joblock__subcmd__generate_commands() {
    local commands; commands=(
'man:Man pages, one for each command and one for the jobs file' \
'completions:A completion script' \
'jobs:The names of all jobs, for completion scripts' \
    )
    _describe -t commands 'joblock generate commands' commands "$@"
}
(( $+functions[_joblock__subcmd__generate__subcmd__completions_commands] )) ||
_joblock__subcmd__generate__subcmd__completions_commands() {
    local commands; commands=()
    _describe -t commands 'joblock generate completions commands' commands "$@"
}
(( $+functions[_joblock__subcmd__generate__subcmd__jobs_commands] )) ||
_joblock__subcmd__generate__subcmd__jobs_commands() {
    local commands; commands=()
    _describe -t commands 'joblock generate jobs commands' commands "$@"
}
(( $+functions[_joblock__subcmd__generate__subcmd__man_commands] )) ||
_joblock__subcmd__generate__subcmd__man_commands() {
    local commands; commands=()
    _describe -t commands 'joblock generate man commands' commands "$@"
}
(( $+functions[_joblock__subcmd__history_commands] )) ||
_joblock__subcmd__history_commands() {
    local commands; commands=()
    _describe -t commands 'joblock history commands' commands "$@"
}
(( $+functions[_joblock__subcmd__init_commands] )) ||
_joblock__subcmd__init_commands() {
    local commands; commands=()
    _describe -t commands 'joblock init commands' commands "$@"
}
(( $+functions[_joblock__subcmd__logs_commands] )) ||
_joblock__subcmd__logs_commands() {
    local commands; commands=()
    _describe -t commands 'joblock logs commands' commands "$@"
}
(( $+functions[_joblock__subcmd__prune_commands] )) ||
_joblock__subcmd__prune_commands() {
    local commands; commands=()
    _describe -t commands 'joblock prune commands' commands "$@"
}
(( $+functions[_joblock__subcmd__rerun_commands] )) ||
_joblock__subcmd__rerun_commands() {
    local commands; commands=()
    _describe -t commands 'joblock rerun commands' commands "$@"
}
(( $+functions[_joblock__subcmd__run_commands] )) ||
_joblock__subcmd__run_commands() {
    local commands; commands=()
    _describe -t commands 'joblock run commands' commands "$@"
}
(( $+functions[_joblock__subcmd__show_commands] )) ||
_joblock__subcmd__show_commands() {
    local commands; commands=()
    _describe -t commands 'joblock show commands' commands "$@"
}
(( $+functions[_joblock__subcmd__status_commands] )) ||
_joblock__subcmd__status_commands() {
    local commands; commands=()
    _describe -t commands 'joblock status commands' commands "$@"
}
(( $+functions[_joblock__subcmd__stop_commands] )) ||
_joblock__subcmd__stop_commands() {
    local commands; commands=()
    _describe -t commands 'joblock stop commands' commands "$@"
}
(( $+functions[_joblock__subcmd__unlock_commands] )) ||
_joblock__subcmd__unlock_commands() {
    local commands; commands=()
    _describe -t commands 'joblock unlock commands' commands "$@"
}

(( $+functions[_joblock_job_names] )) ||
_joblock_job_names() {
    local -a names
    names=(${(f)"$(_call_program jobs joblock generate jobs 2>/dev/null)"})
    compadd -a names
}

if [ "$funcstack[1]" = "_joblock" ]; then
    _joblock "$@"
else
    compdef _joblock joblock
fi
