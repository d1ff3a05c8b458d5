//! The database's format, version 1. `sqlite:` and the history of `lockfile:` are alike; there `locks` only follows the lock files,
//! so that who finds one lost or replaced knows the newest token and its holder.

/// `application_id` of the file (the letters `JobL`), so that file(1) and we know it.
pub const APPLICATION_ID: i64 = 0x4a6f_624c;
/// The format that this program writes, and the newest that it reads: SQLite's `user_version`.
pub const FORMAT: i64 = 1;

/// What came later, by a column of it (`table.column`): stores that were made before get it at their first run. Programs
/// that don't know it go on writing their rows, so the format is the same.
pub const ADDED: &[(&str, &str)] = &[
    (
        "runs.redacted",
        "ALTER TABLE runs ADD COLUMN redacted INTEGER NOT NULL DEFAULT 0",
    ),
    (
        "runs.unsafe_mount",
        "ALTER TABLE runs ADD COLUMN unsafe_mount TEXT",
    ),
    ("unswept.name", UNSWEPT),
];

/// Runs that a machine was taken to have ended without anybody having looked there: its next start does.
pub const UNSWEPT: &str = "CREATE TABLE IF NOT EXISTS unswept (
    name    TEXT NOT NULL,           -- lock
    boot_id TEXT NOT NULL,           -- the machine's
    run_id  TEXT NOT NULL UNIQUE,
    holder  TEXT NOT NULL            -- JSON
)";

/// Makes the tables, [`UNSWEPT`] apart. `id` is what everything is ordered by: rows come in the order of their tokens.
/// `runs_by_job` covers what reports ask of every row; tails are apart so that scans don't read them.
pub const TABLES: &str = "
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE locks (
    name     TEXT PRIMARY KEY,
    token    INTEGER NOT NULL,   -- only grows
    owner    TEXT NOT NULL,      -- run id
    released INTEGER NOT NULL,   -- 0: held
    seq      INTEGER NOT NULL,   -- renewals that went through this row
    ttl_ms   INTEGER NOT NULL,
    dev      INTEGER NOT NULL,   -- the lock file that it was granted on
    ino      INTEGER NOT NULL,
    holder   TEXT NOT NULL       -- JSON
) WITHOUT ROWID;
CREATE TABLE sightings (
    name    TEXT NOT NULL,       -- lock
    boot_id TEXT NOT NULL,       -- whose clock `first` is of
    time_ns TEXT NOT NULL,
    seen    TEXT NOT NULL,       -- JSON
    PRIMARY KEY (name, boot_id, time_ns)
) WITHOUT ROWID;
CREATE TABLE runs (
    id              INTEGER PRIMARY KEY,
    run_id          TEXT NOT NULL UNIQUE,
    job             TEXT NOT NULL,
    lock            TEXT NOT NULL,
    token           INTEGER,
    trigger         TEXT NOT NULL,
    who             TEXT NOT NULL,   -- JSON
    reason          TEXT,
    tags            TEXT NOT NULL,   -- JSON
    repeats         TEXT,
    host            TEXT NOT NULL,
    boot_id         TEXT NOT NULL,
    container       TEXT,
    oom_counters    TEXT NOT NULL,   -- JSON
    pid             INTEGER NOT NULL,
    command         BLOB NOT NULL,   -- arguments, each ended by a NUL
    cwd             BLOB NOT NULL,
    started         INTEGER NOT NULL, -- milliseconds since 1970
    outcome         TEXT NOT NULL,
    ended           INTEGER,
    duration_ns     INTEGER,
    exit_code       INTEGER,
    signal          INTEGER,
    out_of_memory   TEXT,
    peak_memory_kib INTEGER,
    cpu_ns          INTEGER,
    leaked          INTEGER,
    end_note        TEXT,
    held_by         TEXT,            -- JSON
    note            TEXT,
    redacted        INTEGER NOT NULL DEFAULT 0,
    unsafe_mount    TEXT             -- JSON
);
CREATE INDEX runs_by_job ON runs (job, started, duration_ns);
CREATE INDEX runs_in_order ON runs (job); -- and id, as every index: the newest of a job without a sort
CREATE TABLE tails (
    id    INTEGER PRIMARY KEY,       -- the run's
    bytes BLOB NOT NULL,
    total INTEGER NOT NULL
);
";
