//! MMdnn's `mmconvert`: see `modelport`.

use std::process::ExitCode;

fn main() -> ExitCode {
    modelport::run(modelport::Program::Mmconvert, std::env::args_os().skip(1))
}
