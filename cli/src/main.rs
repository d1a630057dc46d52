//! The program `modelport`. Under the name of one of MMdnn's programs it is that program.

use std::process::ExitCode;

use modelport::Program;

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    modelport::run(Program::called(&name), std::env::args_os().skip(1))
}
