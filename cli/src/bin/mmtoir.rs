//! MMdnn's `mmtoir`: see `modelport`.

use std::process::ExitCode;

fn main() -> ExitCode {
    modelport::run(modelport::Program::Mmtoir, std::env::args_os().skip(1))
}
