//! One libFuzzer program for all targets; `FUZZ_TARGET` names the one to run.
#![no_main]

mod targets;

use std::sync::OnceLock;

use targets::Run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static RUN: OnceLock<Run> = OnceLock::new();
    let run = RUN.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        targets::find(&name).unwrap_or_else(|| {
            let names: Vec<_> = targets::ALL.iter().map(|(name, _)| *name).collect();
            eprintln!("FUZZ_TARGET must be one of: {}", names.join(" "));
            std::process::exit(2)
        })
    });
    run(data);
});
