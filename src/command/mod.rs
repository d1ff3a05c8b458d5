//! A file a command: wiring only, no SQL, no system calls. Each has `run(&args, &global)`, which
//! returns the exit code.
