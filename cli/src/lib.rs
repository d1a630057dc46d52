//! The command line of modelport: arguments in, reports and errors out. Everything that knows networks is elsewhere.

mod archs;
mod args;
mod argv;
mod convert;
mod inspect;
mod ops;
mod output;
mod report;
mod target;
mod transfer;
mod ui;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::ArgMatches;
use modelport_ir::Error;

use ui::Ui;

/// The programs that this one can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `modelport COMMAND`.
    Modelport,
    /// MMdnn's name for `modelport convert`.
    Mmconvert,
    /// MMdnn's name for `modelport to-ir`.
    Mmtoir,
    /// MMdnn's name for `modelport to-code`.
    Mmtocode,
    /// MMdnn's name for `modelport to-model`.
    Mmtomodel,
}

impl Program {
    /// The program that a path such as `/usr/bin/mmconvert` or `mmtoir.exe` calls; `modelport` under any other name.
    pub fn called(name: &OsStr) -> Program {
        match Path::new(name).file_stem().and_then(OsStr::to_str) {
            Some("mmconvert") => Program::Mmconvert,
            Some("mmtoir") => Program::Mmtoir,
            Some("mmtocode") => Program::Mmtocode,
            Some("mmtomodel") => Program::Mmtomodel,
            _ => Program::Modelport,
        }
    }

    /// Its name, and the command that it is, if it is one of MMdnn's.
    fn command(self) -> Option<(&'static str, &'static str)> {
        match self {
            Program::Modelport => None,
            Program::Mmconvert => Some(("mmconvert", "convert")),
            Program::Mmtoir => Some(("mmtoir", "to-ir")),
            Program::Mmtocode => Some(("mmtocode", "to-code")),
            Program::Mmtomodel => Some(("mmtomodel", "to-model")),
        }
    }
}

/// Runs the program on its arguments (without its name). Exit status 1 says that a conversion failed, 2 that the
/// arguments were wrong.
pub fn run(program: Program, args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut command = args::command(program);
    let args: Vec<OsString> = args.into_iter().collect();
    let parsed = argv::normalized(&command, args).and_then(|args| {
        let name = OsString::from(command.get_name());
        command.try_get_matches_from_mut(std::iter::once(name).chain(args))
    });
    let matches = match parsed {
        Ok(matches) => matches,
        Err(error) => {
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let (name, matches) = match (program.command(), matches.subcommand()) {
        (Some((_, step)), _) => (step, &matches),
        (None, Some(sub)) => sub,
        (None, None) => return ExitCode::from(2),
    };
    let mut ui = Ui::new(matches.get_flag("json"), matches.get_flag("quiet"), matches.get_flag("verbose"));
    match dispatch(program, name, matches, &mut ui) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui.fail(&error);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(program: Program, name: &str, matches: &ArgMatches, ui: &mut Ui) -> Result<(), Error> {
    let kit_model = program != Program::Modelport;
    match name {
        "convert" => convert::convert(&args::Conversion::of(matches, kit_model), ui),
        "to-ir" => convert::to_ir(&args::Conversion::of(matches, kit_model), ui),
        "to-code" => convert::to_code(&args::Conversion::of(matches, kit_model), ui),
        "to-model" => convert::to_model(&args::Conversion::of(matches, kit_model), ui),
        "transfer" => transfer::transfer(matches, ui),
        "inspect" => inspect::inspect(matches, ui),
        "archs" => ui.print(&archs::list()),
        "ops" => ui.print(&ops::table()),
        "completions" => ui.print(&args::completions(matches)),
        "man" => ui.print(&args::man(matches)?),
        other => Err(Error::new(format!("there is no command '{other}'"))),
    }
}
