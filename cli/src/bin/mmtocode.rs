//! MMdnn's `mmtocode`: see `modelport`.

use std::process::ExitCode;

fn main() -> ExitCode {
    modelport::run(modelport::Program::Mmtocode, std::env::args_os().skip(1))
}
