//! Arguments as argparse took them: flags of several letters with one dash, unambiguous prefixes of long flags, and
//! several values behind one flag. They are rewritten into what clap takes.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{ArgAction, Command, Error};

/// Flags of several letters with one dash, and the long flags that they stand for.
pub const DASHES: &[(&str, &str)] = &[
    ("-sf", "srcFramework"),
    ("-df", "dstFramework"),
    ("-in", "inputNetwork"),
    ("-iw", "inputWeight"),
    ("-om", "outputModel"),
    ("-ow", "dstWeightPath"),
    ("-dw", "dstWeightPath"),
    ("-node", "dstNodeName"),
    ("-inode", "inNodeName"),
];

/// What a long flag is.
#[derive(Clone, Copy)]
struct Flag<'a> {
    /// Its first name: flags with the same one are the same flag.
    name: &'a str,
    /// Whether several values may follow.
    is_list: bool,
}

/// The arguments of `command` in clap's form.
///
/// # Errors
/// When an abbreviated flag could be several.
pub fn normalized(command: &Command, args: Vec<OsString>) -> Result<Vec<OsString>, Error> {
    let mut result = Vec::with_capacity(args.len());
    let mut args = args.into_iter().peekable();
    let mut flags = flags(command);
    if command.has_subcommands() {
        // Up to the command's name nothing needs to be changed.
        for arg in args.by_ref() {
            let sub = arg.to_str().and_then(|name| command.find_subcommand(name));
            result.push(arg);
            if let Some(sub) = sub {
                flags = self::flags(sub);
                break;
            }
        }
    }
    while let Some(arg) = args.next() {
        if arg == "--" {
            result.push(arg);
            result.extend(args);
            break;
        }
        let Some((flag, value)) = arg.to_str().and_then(|text| recognise(&flags, text).transpose()).transpose()? else {
            result.push(arg);
            continue;
        };
        let name = format!("--{}", flag.name);
        match value {
            Some(value) => result.push(format!("{name}={value}").into()),
            None if flag.is_list && args.peek().is_some_and(is_value) => {}
            None => result.push(name.clone().into()),
        }
        while flag.is_list && args.peek().is_some_and(is_value) {
            let mut joined = OsString::from(format!("{name}="));
            joined.push(args.next().unwrap_or_default());
            result.push(joined);
        }
    }
    Ok(result)
}

/// All long names of a command's flags.
fn flags(command: &Command) -> BTreeMap<&str, Flag<'_>> {
    let mut flags = BTreeMap::new();
    for arg in command.get_arguments() {
        let Some(name) = arg.get_long() else { continue };
        let flag = Flag { name, is_list: matches!(arg.get_action(), ArgAction::Append) };
        flags.insert(name, flag);
        flags.extend(arg.get_all_aliases().unwrap_or_default().into_iter().map(|alias| (alias, flag)));
    }
    for name in ["help", "version"] {
        flags.entry(name).or_insert(Flag { name, is_list: false });
    }
    flags
}

/// The flag that an argument is, and the value that is part of it. None for what clap knows better.
fn recognise<'a, 'b>(
    flags: &BTreeMap<&'a str, Flag<'a>>,
    text: &'b str,
) -> Result<Option<(Flag<'a>, Option<&'b str>)>, Error> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    if let Some((_, long)) = DASHES.iter().find(|(dash, _)| *dash == name) {
        return Ok(flags.get(long).map(|flag| (*flag, value)));
    }
    let Some(name) = name.strip_prefix("--").filter(|name| !name.is_empty()) else { return Ok(None) };
    if let Some(flag) = flags.get(name) {
        return Ok(Some((*flag, value)));
    }
    let candidates: Vec<(&str, Flag)> =
        flags.range(name..).take_while(|(long, _)| long.starts_with(name)).map(|(long, flag)| (*long, *flag)).collect();
    match candidates.as_slice() {
        [] => Ok(None),
        [(_, first), rest @ ..] if rest.iter().all(|(_, flag)| flag.name == first.name) => Ok(Some((*first, value))),
        several => {
            let names: Vec<String> = several.iter().map(|(long, _)| format!("--{long}")).collect();
            let message = format!("'--{name}' could be {}\n", names.join(", "));
            Err(Error::raw(ErrorKind::UnknownArgument, message))
        }
    }
}

/// Whether an argument is a value: no flag, but maybe a shape that begins with -1.
fn is_value(arg: &OsString) -> bool {
    match arg.as_encoded_bytes() {
        [b'-', second, ..] => second.is_ascii_digit(),
        first => first != b"-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Program, args};

    fn normal(program: Program, line: &str) -> Result<String, String> {
        let args = line.split(' ').map(OsString::from).collect();
        let command = args::command(program);
        let args = normalized(&command, args).map_err(|error| error.to_string())?;
        Ok(args.into_iter().map(|arg| arg.into_string().unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[track_caller]
    fn becomes(program: Program, line: &str, expected: &str) {
        assert_eq!(normal(program, line).as_deref(), Ok(expected), "{line}");
    }

    #[test]
    fn one_dash_and_several_letters() {
        becomes(
            Program::Modelport,
            "convert -sf tf -in a.meta -iw a.ckpt -df pytorch -om a.pth",
            "convert --srcFramework tf --network a.meta --weights a.ckpt --dstFramework pytorch --outputModel a.pth",
        );
        becomes(
            Program::Mmtocode,
            "-f pytorch -in=a.pb -iw a.npy -o a.py -dw b.npy",
            "-f pytorch --network=a.pb --weights a.npy -o a.py --dstWeightPath b.npy",
        );
    }

    #[test]
    fn prefixes() {
        becomes(Program::Mmtoir, "--dstNode=a --input-nothing", "--dstNodeName=a --input-nothing");
        becomes(Program::Mmtoir, "--src tf --out x", "--srcFramework tf --output x");
        becomes(
            Program::Mmtocode,
            "--IRM a.pb --IRW a.npy --dstM a.py --dstW b.npy",
            "--network a.pb --weights a.npy --output a.py --dstWeightPath b.npy",
        );
        let error = normal(Program::Modelport, "convert --input x").unwrap_err();
        assert!(error.contains("'--input' could be --inputNetwork, --inputShape, --inputWeight"), "{error}");
    }

    #[test]
    fn several_values() {
        becomes(
            Program::Mmconvert,
            "--dstNode a b/c:1 -inode x y --inputShape 299,299,3 -1,8 -o z",
            "--dstNodeName=a --dstNodeName=b/c:1 --inNodeName=x --inNodeName=y --inputShape=299,299,3 \
             --inputShape=-1,8 -o z",
        );
        becomes(Program::Mmconvert, "-node -o z", "--dstNodeName -o z");
        becomes(Program::Modelport, "inspect x.pb -node a", "inspect x.pb --dstNodeName=a");
    }

    #[test]
    fn what_clap_knows_is_left_alone() {
        for line in ["--version", "to-ir --help", "convert -- --dstNode -in", "to-ir -nx -q", "ops", "nonsense -in"] {
            becomes(Program::Modelport, line, line);
        }
    }
}
