# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_joblock_global_optspecs
    string join \n store= config= h/help V/version
end

function __fish_joblock_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_joblock_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_joblock_using_subcommand
    set -l cmd (__fish_joblock_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c joblock -n "__fish_joblock_needs_command" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_needs_command" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_needs_command" -s V -l version -d 'Print version'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "run" -d 'Run a command under a job\'s lock'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "status" -d 'Show who runs what, where and since when'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "history" -d 'List the attempts of the past, newest first'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "show" -d 'Show everything about one run'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "logs" -d 'Print the kept output of a run'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "rerun" -d 'Run a job again: the same command under the same lock'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "stop" -d 'Ask a running job to stop, from any host'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "unlock" -d 'Take a lock away from its holder, whose job is then killed'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "assert" -d 'Inside a job: tell by the exit code whether the lock is still held'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "check" -d 'Tell a monitoring system how the jobs are'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "doctor" -d 'Prove that the store does what locks need'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "prune" -d 'Delete old attempts from the history, with their output'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "init" -d 'Create a store'
complete -c joblock -n "__fish_joblock_needs_command" -f -a "generate" -d 'Print man pages and shell completions'
complete -c joblock -n "__fish_joblock_using_subcommand run" -l lock -d 'Take this lock instead of the job\'s own; several jobs can share it' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -l unless-succeeded-within -d 'Skip, with exit code 0, if the job succeeded within this time' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -s w -l wait -d 'Wait at most this long for the lock, or forever; 0 is -n' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -l max-waiters -d 'With -w: don\'t wait if N wait already' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -s E -l conflict-exit-code -d 'Exit with N instead of 75 if the lock is held' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -l ttl -d 'How long a shared store\'s lock outlives a host that vanished [default: 45s]' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -l accept-unsafe-mount -d 'Start although the store\'s mount lies (its locks don\'t reach other machines, for example); REASON and what was accepted stand in the history' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -s t -l time-limit -d 'End the job when it takes longer; 0 is no limit' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -s k -l kill-after -d 'Send KILL this long after the first signal of a time limit, stop or unlock [default: 10s]' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -s s -l signal -d 'The first signal: TERM, SIGTERM or 15 [default: TERM]' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -l trigger -d 'What asks for it: schedule, startup, operator or other [default: found out]' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -l reason -d 'Why; it stands in the history' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -l tag -d 'A label for the history; can be given several times' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -l redact -d 'Hide what matches this regular expression (its first group, if it has one) in each argument of COMMAND before it is recorded; can be given several times' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -l keep -d 'After the run, delete what of the job\'s history ended longer ago; forever: nothing [default: the jobs file\'s, else forever]' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand run" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand run" -l override -d 'Run COMMAND although the jobs file has another for JOB'
complete -c joblock -n "__fish_joblock_using_subcommand run" -s n -l nonblock -d 'Don\'t wait while the lock is held (the default)'
complete -c joblock -n "__fish_joblock_using_subcommand run" -l private-store -d 'As a container\'s PID 1: accept a store that no other container can see'
complete -c joblock -n "__fish_joblock_using_subcommand run" -l wait-for-children -d 'Wait for processes that the job leaves behind, instead of ending them'
complete -c joblock -n "__fish_joblock_using_subcommand run" -l no-capture -d 'Keep no output in the history, and hand the streams over untouched'
complete -c joblock -n "__fish_joblock_using_subcommand run" -s q -l quiet -d 'Say nothing but errors'
complete -c joblock -n "__fish_joblock_using_subcommand run" -s v -l verbose -d 'Say what happens. Without it a refused start is silent where stderr is no terminal, as in cron: the exit code tells, and the history why'
complete -c joblock -n "__fish_joblock_using_subcommand run" -l explain -d 'Print what would be done, and where each part comes from; start and write nothing'
complete -c joblock -n "__fish_joblock_using_subcommand run" -l json -d 'With --explain: print JSON'
complete -c joblock -n "__fish_joblock_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand status" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand status" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand status" -l json -d 'Print JSON'
complete -c joblock -n "__fish_joblock_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand history" -s n -l limit -d 'At most N attempts; 0: all' -r
complete -c joblock -n "__fish_joblock_using_subcommand history" -l since -d 'Begun at this moment or later' -r
complete -c joblock -n "__fish_joblock_using_subcommand history" -l until -d 'Begun before this moment' -r
complete -c joblock -n "__fish_joblock_using_subcommand history" -l outcome -d 'Only with this outcome; several with commas' -r
complete -c joblock -n "__fish_joblock_using_subcommand history" -l host -d 'Only on this host' -r -f -a "(__fish_print_hostnames)"
complete -c joblock -n "__fish_joblock_using_subcommand history" -l trigger -d 'Only asked for by this: schedule, startup, operator or other' -r
complete -c joblock -n "__fish_joblock_using_subcommand history" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand history" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand history" -l json -d 'Print JSON'
complete -c joblock -n "__fish_joblock_using_subcommand history" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand show" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand show" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand show" -l json -d 'Print JSON'
complete -c joblock -n "__fish_joblock_using_subcommand show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand logs" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand logs" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand logs" -s f -l follow -d 'Go on while the job runs'
complete -c joblock -n "__fish_joblock_using_subcommand logs" -l json -d 'Print JSON'
complete -c joblock -n "__fish_joblock_using_subcommand logs" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -s w -l wait -d 'Wait at most this long for the lock, or forever; 0 is -n' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -l max-waiters -d 'With -w: don\'t wait if N wait already' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -s E -l conflict-exit-code -d 'Exit with N instead of 75 if the lock is held' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -l ttl -d 'How long a shared store\'s lock outlives a host that vanished [default: 45s]' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -l accept-unsafe-mount -d 'Start although the store\'s mount lies (its locks don\'t reach other machines, for example); REASON and what was accepted stand in the history' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -s t -l time-limit -d 'End the job when it takes longer; 0 is no limit' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -s k -l kill-after -d 'Send KILL this long after the first signal of a time limit, stop or unlock [default: 10s]' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -s s -l signal -d 'The first signal: TERM, SIGTERM or 15 [default: TERM]' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -l trigger -d 'What asks for it: schedule, startup, operator or other [default: found out]' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -l reason -d 'Why; it stands in the history' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -l tag -d 'A label for the history; can be given several times' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -l redact -d 'Hide what matches this regular expression (its first group, if it has one) in each argument of COMMAND before it is recorded; can be given several times' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -l keep -d 'After the run, delete what of the job\'s history ended longer ago; forever: nothing [default: the jobs file\'s, else forever]' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -s n -l nonblock -d 'Don\'t wait while the lock is held (the default)'
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -l private-store -d 'As a container\'s PID 1: accept a store that no other container can see'
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -l wait-for-children -d 'Wait for processes that the job leaves behind, instead of ending them'
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -l no-capture -d 'Keep no output in the history, and hand the streams over untouched'
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -s q -l quiet -d 'Say nothing but errors'
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -s v -l verbose -d 'Say what happens. Without it a refused start is silent where stderr is no terminal, as in cron: the exit code tells, and the history why'
complete -c joblock -n "__fish_joblock_using_subcommand rerun" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand stop" -l reason -d 'Why; it stands in the history' -r
complete -c joblock -n "__fish_joblock_using_subcommand stop" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand stop" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand stop" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand unlock" -l reason -d 'Why; it stands in the history' -r
complete -c joblock -n "__fish_joblock_using_subcommand unlock" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand unlock" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand unlock" -l kill -d 'Kill what is left of the run on this machine'
complete -c joblock -n "__fish_joblock_using_subcommand unlock" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand assert" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand assert" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand assert" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand check" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand check" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand check" -l json -d 'Print JSON'
complete -c joblock -n "__fish_joblock_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand doctor" -s w -l wait -d 'With --peer: wait so long for the other one [default: 2m]' -r
complete -c joblock -n "__fish_joblock_using_subcommand doctor" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand doctor" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand doctor" -l peer -d 'Meet a doctor on another machine in the store, and prove that the locks of one are seen by the other'
complete -c joblock -n "__fish_joblock_using_subcommand doctor" -l json -d 'Print JSON'
complete -c joblock -n "__fish_joblock_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand prune" -l keep -d 'Keep what ended within this time, given with its unit [default: keep in the jobs file]. Jobs that the jobs file keeps for ever must be named' -r
complete -c joblock -n "__fish_joblock_using_subcommand prune" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand prune" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand prune" -l trust-clock -d 'Count ages by this machine\'s clock, even if nothing on record shows that it is right'
complete -c joblock -n "__fish_joblock_using_subcommand prune" -l dry-run -d 'Say what would be deleted, and delete nothing'
complete -c joblock -n "__fish_joblock_using_subcommand prune" -l json -d 'Print JSON'
complete -c joblock -n "__fish_joblock_using_subcommand prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand init" -l group -d 'Let this group\'s members use it: folder 2770, database 0660' -r
complete -c joblock -n "__fish_joblock_using_subcommand init" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand init" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand init" -l shared -d 'Make it a shared store, for several hosts, although its file system is a local one'
complete -c joblock -n "__fish_joblock_using_subcommand init" -l system -d 'Make the machine\'s store, /var/lib/joblock/joblock.db, unless --store names another'
complete -c joblock -n "__fish_joblock_using_subcommand init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand generate; and not __fish_seen_subcommand_from man completions jobs" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand generate; and not __fish_seen_subcommand_from man completions jobs" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand generate; and not __fish_seen_subcommand_from man completions jobs" -s h -l help -d 'Print help'
complete -c joblock -n "__fish_joblock_using_subcommand generate; and not __fish_seen_subcommand_from man completions jobs" -f -a "man" -d 'Man pages, one for each command and one for the jobs file'
complete -c joblock -n "__fish_joblock_using_subcommand generate; and not __fish_seen_subcommand_from man completions jobs" -f -a "completions" -d 'A completion script'
complete -c joblock -n "__fish_joblock_using_subcommand generate; and not __fish_seen_subcommand_from man completions jobs" -f -a "jobs" -d 'The names of all jobs, for completion scripts'
complete -c joblock -n "__fish_joblock_using_subcommand generate; and __fish_seen_subcommand_from man" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand generate; and __fish_seen_subcommand_from man" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand generate; and __fish_seen_subcommand_from man" -l stdout -d 'Print joblock(1) instead'
complete -c joblock -n "__fish_joblock_using_subcommand generate; and __fish_seen_subcommand_from man" -s h -l help -d 'Print help'
complete -c joblock -n "__fish_joblock_using_subcommand generate; and __fish_seen_subcommand_from completions" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand generate; and __fish_seen_subcommand_from completions" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand generate; and __fish_seen_subcommand_from completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joblock -n "__fish_joblock_using_subcommand generate; and __fish_seen_subcommand_from jobs" -l store -d 'Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be' -r
complete -c joblock -n "__fish_joblock_using_subcommand generate; and __fish_seen_subcommand_from jobs" -l config -d 'The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]' -r -F
complete -c joblock -n "__fish_joblock_using_subcommand generate; and __fish_seen_subcommand_from jobs" -s h -l help -d 'Print help'

# The names of jobs, from the jobs file and the store, up to the `--` of a command.
complete -c joblock -n "__fish_joblock_using_subcommand run; and not contains -- -- (commandline -opc)" -f -a "(joblock generate jobs 2>/dev/null)"
complete -c joblock -n "__fish_joblock_using_subcommand status; and not contains -- -- (commandline -opc)" -f -a "(joblock generate jobs 2>/dev/null)"
complete -c joblock -n "__fish_joblock_using_subcommand history; and not contains -- -- (commandline -opc)" -f -a "(joblock generate jobs 2>/dev/null)"
complete -c joblock -n "__fish_joblock_using_subcommand show; and not contains -- -- (commandline -opc)" -f -a "(joblock generate jobs 2>/dev/null)"
complete -c joblock -n "__fish_joblock_using_subcommand logs; and not contains -- -- (commandline -opc)" -f -a "(joblock generate jobs 2>/dev/null)"
complete -c joblock -n "__fish_joblock_using_subcommand rerun; and not contains -- -- (commandline -opc)" -f -a "(joblock generate jobs 2>/dev/null)"
complete -c joblock -n "__fish_joblock_using_subcommand stop; and not contains -- -- (commandline -opc)" -f -a "(joblock generate jobs 2>/dev/null)"
complete -c joblock -n "__fish_joblock_using_subcommand unlock; and not contains -- -- (commandline -opc)" -f -a "(joblock generate jobs 2>/dev/null)"
complete -c joblock -n "__fish_joblock_using_subcommand assert; and not contains -- -- (commandline -opc)" -f -a "(joblock generate jobs 2>/dev/null)"
complete -c joblock -n "__fish_joblock_using_subcommand check; and not contains -- -- (commandline -opc)" -f -a "(joblock generate jobs 2>/dev/null)"
complete -c joblock -n "__fish_joblock_using_subcommand prune; and not contains -- -- (commandline -opc)" -f -a "(joblock generate jobs 2>/dev/null)"
complete -c joblock -n "__fish_seen_subcommand_from completions" -f -a "bash zsh fish"
