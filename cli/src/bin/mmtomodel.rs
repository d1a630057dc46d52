//! MMdnn's `mmtomodel`: see `modelport`.

use std::process::ExitCode;

fn main() -> ExitCode {
    modelport::run(modelport::Program::Mmtomodel, std::env::args_os().skip(1))
}
