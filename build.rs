//! Tells the linker of released programs to leave addresses fixed.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).as_deref() == Ok(value);
    // Every pointer in the data of a position-independent program (a megabyte of them: time zones, help texts) is corrected
    // before `main`, which takes longer than all of `flock -n lock true`. The code of this program is at a known
    // address then; stack, heap and libraries are as random as ever.
    if is("PROFILE", "release")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
    {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
