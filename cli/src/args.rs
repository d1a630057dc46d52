//! All commands and flags. Every flag has one meaning in all commands, and takes MMdnn's names for it beside its own.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use modelport_frontends::pytorch::arch::Arguments;
use modelport_frontends::{Framework, Source};
use modelport_ir::layout::Ports;

use crate::Program;
use crate::target::Target;

const ABOUT: &str = "Translates trained neural networks between frameworks, into code that a person would have written";

const EXAMPLES: &str = "\
Examples:
  A TensorFlow checkpoint becomes inception_v3.py and inception_v3.pth:
    modelport convert -sf tensorflow -in inception_v3.ckpt.meta -iw inception_v3.ckpt \\
        --dstNode MMdnn_Output -df pytorch -om inception_v3.pth

  The same in three steps, with files in between that can be looked at:
    modelport to-ir -f tensorflow -n inception_v3.ckpt.meta -w inception_v3.ckpt \\
        --dstNode MMdnn_Output -o converted
    modelport to-code -f pytorch -n converted.pb -w converted.npy -o inception_v3.py
    modelport to-model -f pytorch -in inception_v3.py -iw inception_v3.npy -o inception_v3.pth

  What is in a file:
    modelport inspect inception_v3.ckpt.meta

MMdnn's flags are taken by all commands (-sf, -in, --IRModelPath, …), also abbreviated (--dstNode).";

const CONVERT_EXAMPLES: &str = "\
Examples:
  From a meta graph and a checkpoint; writes inception_v3.py and inception_v3.pth:
    modelport convert -sf tensorflow -in inception_v3.ckpt.meta -iw inception_v3.ckpt \\
        --dstNode MMdnn_Output -df pytorch -om inception_v3.pth

  From a frozen graph, cut at two nodes:
    modelport convert -sf tensorflow -in frozen.pb --inNodeName input --inputShape 224,224,3 \\
        --dstNodeName logits -df pytorch -om net.safetensors

  As a Keras model; writes net.py and net.keras:
    modelport convert -in net.meta -iw net.ckpt -df keras -om net.keras

  Keeping the source's channels-last inputs and outputs, with a map of the weights' names:
    modelport convert -in net.meta -iw net.ckpt -om net.pth --layout source --name-map names.json

  From PyTorch's exported program, with the weights of another training:
    modelport convert -sf pytorch -in net.pt2 -iw finetuned.pth -df pytorch -om net.pth

The files appear together when all of them are complete. An error leaves nothing behind, lists
everything that is wrong, and ends with status 1.";

const TO_IR_EXAMPLES: &str = "\
Example:
  Writes converted.json and converted.pb (the graph, for people and for programs), and
  converted.npy (the weights):
    modelport to-ir -f tensorflow -n inception_v3.ckpt.meta -w inception_v3.ckpt \\
        --dstNode MMdnn_Output -o converted";

const TO_CODE_EXAMPLES: &str = "\
Examples:
  Writes net.py and its weights, net.npy:
    modelport to-code -f pytorch -n converted.pb -w converted.npy -o net.py

  The same from the readable form of the graph, with the weights as a state dict:
    modelport to-code -f pytorch -n converted.json -w converted.npy -o net.py -ow net.pth

Files that MMdnn 0.3.1 has written are read too.";

const TO_MODEL_EXAMPLES: &str = "\
Examples:
  Weights into a state dict, for torch.load(path, weights_only=True):
    modelport to-model -f pytorch -in net.py -iw net.npy -o net.pth

  The code and weights of a Keras network as one file, for keras.models.load_model:
    modelport to-model -f keras -in net.py -iw net.weights.h5 -o net.keras

  A whole network, for torch.load(path, weights_only=False) where net.py can be imported; the
  code must have been written with --whole-module as well:
    modelport to-model -f pytorch -in net.py -iw net.npy -o net.pth --whole-module";

const INSPECT_EXAMPLES: &str = "\
Examples:
  A graph: every node with operator, output shape and parameters; inputs, outputs, and what
  could be an output:
    modelport inspect inception_v3.ckpt.meta
    modelport inspect frozen.pb --dstNode logits
    modelport inspect converted.json

  Weights: every tensor with its type and shape:
    modelport inspect inception_v3.pth";

/// The command line of a program.
pub fn command(program: Program) -> Command {
    match program.command() {
        None => modelport(),
        Some((name, step)) => {
            let step = commands().into_iter().find(|command| command.get_name() == step).unwrap_or_default();
            let after = step.get_after_help().map(ToString::to_string).unwrap_or_default();
            step.name(name).bin_name(name).version(env!("CARGO_PKG_VERSION")).after_help(format!(
                "{}\n\nThe code also offers KitModel(weights), as MMdnn's did.",
                after
                    .replace("modelport convert", "mmconvert")
                    .replace("modelport to-ir", "mmtoir")
                    .replace("modelport to-code", "mmtocode")
                    .replace("modelport to-model", "mmtomodel")
            ))
        }
    }
}

fn modelport() -> Command {
    Command::new("modelport")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(EXAMPLES)
        .max_term_width(120)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommands(commands())
}

fn commands() -> Vec<Command> {
    let step = |name: &'static str, about: &'static str, examples: &'static str| {
        Command::new(name).about(about).after_help(examples)
    };
    vec![
        step("convert", "Convert a network into code and weights, in one go", CONVERT_EXAMPLES)
            .arg(framework("source-framework", "srcFramework", "-sf", SOURCES).help(SOURCE_HELP))
            .args(source())
            .arg(
                framework("target-framework", "dstFramework", "-df", TARGETS)
                    .default_value("pytorch")
                    .help(TARGET_HELP),
            )
            .arg(output("outputModel").help(
                "The result: NAME.pth, .pt, .safetensors or .npy for the weights, with the code in NAME.py beside; \
                 for keras also NAME.keras or .h5 (whole models) and .weights.h5; without an extension NAME.py and \
                 NAME.pth or NAME.keras [also -om]",
            ))
            .args(style())
            .args([phase(), dump_tag()])
            .group(ArgGroup::new("source").args(["network", "weights"]).multiple(true).required(true)),
        step("to-ir", "Step 1: read a network into files of the neutral graph", TO_IR_EXAMPLES)
            .arg(
                framework("source-framework", "srcFramework", "-sf", SOURCES)
                    .alias("framework")
                    .short('f')
                    .help(SOURCE_HELP),
            )
            .args(source())
            .arg(
                output("output")
                    .help("The files to write: NAME gives NAME.json, NAME.pb and NAME.npy [also -d, --dstPath]"),
            )
            .args([phase(), dump_tag()])
            .group(ArgGroup::new("source").args(["network", "weights"]).multiple(true).required(true)),
        step("to-code", "Step 2: write code, and its weights, from files of the neutral graph", TO_CODE_EXAMPLES)
            .arg(
                framework("target-framework", "dstFramework", "-df", TARGETS)
                    .default_value("pytorch")
                    .alias("framework")
                    .short('f')
                    .help(TARGET_HELP),
            )
            .arg(
                network()
                    .required(true)
                    .help("The graph, .pb or .json, as to-ir or MMdnn has written it [also -in, --IRModelPath]"),
            )
            .arg(weights().help("Its weights, .npy [default: the .npy beside the graph; also -iw, --IRWeightPath]"))
            .arg(output("output").help("The code to write, NAME.py [also -d, --dstModelPath]"))
            .arg(path("weights-output", "dstWeightPath").visible_alias("output-weights").help(
                "The weights to write, .npy, .pth, .pt or .safetensors [default: NAME.npy]; for keras \
                         .weights.h5, .keras or .h5 as well [default: NAME.weights.h5; also -ow, -dw]",
            ))
            .args(style())
            .arg(phase()),
        step("to-model", "Step 3: write a model file from the weights of generated code", TO_MODEL_EXAMPLES)
            .arg(
                framework("target-framework", "dstFramework", "-df", TARGETS)
                    .default_value("pytorch")
                    .alias("framework")
                    .short('f')
                    .help(TARGET_HELP),
            )
            .arg(network().help("The code that to-code has written, NAME.py [also -in, --inputNetwork]"))
            .arg(
                weights().required(true).help(
                    "Its weights, .npy, .pth, .pt or .safetensors; for keras .weights.h5 [also -iw, --inputWeight]",
                ),
            )
            .arg(
                output("output")
                    .help("The model to write, .pth, .pt, .safetensors or .npy; for keras .keras or .h5 [also -om]"),
            )
            .arg(whole_module())
            .arg(dump_tag()),
        crate::transfer::command(),
        step("inspect", "Show what is in a graph or in a file of weights", INSPECT_EXAMPLES)
            .arg(
                Arg::new("network").value_name("FILE").required(true).value_parser(value_parser!(PathBuf)).help(
                    "A graph (.meta, .pb, .json) or weights (.npy, .pth, .safetensors, .h5, .keras, a checkpoint)",
                ),
            )
            .arg(weights().help("The weights of a graph that has them elsewhere [also -iw]"))
            .args(ends())
            .arg(moving_averages())
            .arg(weights_key()),
        Command::new("archs").about("List the architectures that PyTorch state dicts are recognised as"),
        Command::new("ops").about("Print the operators that can be converted, as a table in Markdown"),
        Command::new("completions")
            .about("Print completions for a shell")
            .arg(Arg::new("shell").required(true).value_parser(value_parser!(Shell)).help("The shell"))
            .after_help("Example:\n    modelport completions bash > /etc/bash_completion.d/modelport"),
        Command::new("man")
            .about("Print the manual page, of the program or of one command")
            .arg(Arg::new("command").help("The command [default: the program itself]"))
            .after_help("Example:\n    modelport man convert | man -l -"),
    ]
    .into_iter()
    .map(|command| {
        // `run` asks every command for these, also where they make no difference.
        let is_plain = ["archs", "ops", "completions", "man"].contains(&command.get_name());
        command.args(talk().map(|arg| arg.hide(is_plain))).max_term_width(120)
    })
    .collect()
}

const SOURCES: &[(&str, &[&str])] = &[("tensorflow", &["tf"]), ("pytorch", &["torch"])];
const TARGETS: &[(&str, &[&str])] = &[("pytorch", &["torch"]), ("keras", &["tf.keras"])];
const SOURCE_HELP: &str =
    "The framework that the network is from: tensorflow (tf) or pytorch [default: what the files are; also -sf]";
const TARGET_HELP: &str = "The framework to write code for: pytorch or keras [also -df]";

pub fn path(id: &'static str, long: &'static str) -> Arg {
    Arg::new(id).long(long).value_name("FILE").value_parser(value_parser!(PathBuf))
}

fn framework(
    id: &'static str,
    long: &'static str,
    dash: &str,
    known: &'static [(&'static str, &'static [&'static str])],
) -> Arg {
    debug_assert!(crate::argv::DASHES.iter().any(|(name, _)| *name == dash));
    let values = known.iter().map(|(name, aliases)| PossibleValue::new(*name).aliases(aliases.iter().copied()));
    Arg::new(id)
        .long(long)
        .value_name("FRAMEWORK")
        .ignore_case(true)
        .value_parser(PossibleValuesParser::new(values))
        .hide_possible_values(known.len() == 1)
}

fn network() -> Arg {
    path("network", "network").short('n').aliases(["inputNetwork", "IRModelPath"])
}

pub fn weights() -> Arg {
    path("weights", "weights").short('w').aliases(["inputWeight", "IRWeightPath"])
}

pub fn output(long: &'static str) -> Arg {
    let aliases = ["output", "outputModel", "dstPath", "dstModelPath"].into_iter().filter(|alias| *alias != long);
    path("output", long).short('o').short_alias('d').aliases(aliases).required(true)
}

/// Where a source network is, and which part of it.
fn source() -> Vec<Arg> {
    let mut args = vec![
        network().help(
            "The graph: TensorFlow's meta graph (.meta) or GraphDef (.pb, frozen or not); PyTorch's .pt2, TorchScript, \
             whole module or state dict [also -in, --inputNetwork]",
        ),
        weights().help(
            "The weights: a TensorFlow checkpoint, as prefix, .index, .data-…, .meta or folder, or a frozen graph \
             instead of --network; a state dict of PyTorch, which fills a graph that is given, or stands alone \
             [also -iw, --inputWeight]",
        ),
    ];
    args.extend(ends());
    args.push(moving_averages());
    args.push(weights_key());
    args.extend(arch());
    args
}

fn ends() -> [Arg; 3] {
    [
        Arg::new("outputs")
            .long("dstNodeName")
            .value_name("NODE")
            .action(ArgAction::Append)
            .value_delimiter(',')
            .help("Nodes that are the outputs, several in order [default: the only sensible one; also -node]"),
        Arg::new("inputs")
            .long("inNodeName")
            .value_name("NODE")
            .action(ArgAction::Append)
            .value_delimiter(',')
            .help("Nodes that are the inputs: the graph is cut there [default: its placeholders; also -inode]"),
        Arg::new("shapes")
            .long("inputShape")
            .value_name("SHAPE")
            .action(ArgAction::Append)
            .value_parser(shape)
            .help("Shapes of the inputs where the graph leaves them open, such as 299,299,3; -1 for a free size"),
    ]
}

pub fn moving_averages() -> Arg {
    flag("ema", "Use the exponential moving averages of the weights, which are what is evaluated after training")
}

pub fn weights_key() -> Arg {
    Arg::new("weights-key").long("weights-key").value_name("KEY").help(
        "Where in a PyTorch checkpoint the weights are, such as model or ema.module [default: the likeliest place, which \
         the report tells]",
    )
}

/// What weights without a graph are of.
fn arch() -> [Arg; 2] {
    let pair = |text: &str| match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    };
    [
        Arg::new("arch").long("arch").value_name("NAME").help(
            "The architecture of a PyTorch state dict, which has no graph: resnet, say, or what else `modelport archs` \
             lists [default: recognised from keys and shapes]",
        ),
        Arg::new("arch-arg")
            .long("arch-arg")
            .value_name("KEY=VALUE")
            .action(ArgAction::Append)
            .value_parser(pair)
            .help(
                "What the shapes of an architecture's weights do not tell, such as replace_stride_with_dilation=0,1,1",
            ),
    ]
}

/// How the code is to be.
fn style() -> Vec<Arg> {
    vec![
        Arg::new("layout")
            .long("layout")
            .value_name("LAYOUT")
            .default_value("target")
            .value_parser(["target", "source"])
            .help(
                "Layout of the network's inputs and outputs: the target framework's (channels first for PyTorch, last \
                 for Keras), or the source's, with a permute at the border",
            ),
        Arg::new("purpose")
            .long("for")
            .value_name("PURPOSE")
            .default_value("training")
            .value_parser(["training", "inference"])
            .help(
                "What the code is for: training and everything else, or inference alone, where it runs faster: batch \
                 normalisation is folded into the layers, dropout is gone, dense layers take the place of convolutions \
                 of whole maps",
            ),
        path("name-map", "name-map")
            .help("Also write a JSON file that tells, for every weight, its name in the source"),
        whole_module(),
        Arg::new("keras-version")
            .long("keras-version")
            .value_name("VERSION")
            .default_value("3")
            .value_parser(["2", "3"])
            .help("The Keras that the code is for: 3, with any backend, or 2, the tf.keras of TensorFlow 2.12 to 2.15"),
    ]
}

fn whole_module() -> Arg {
    flag(
        "whole-module",
        "Make the .pth a whole network, which torch.load(path, weights_only=False) returns ready where the code can be \
         imported, instead of a plain state dict",
    )
}

fn phase() -> Arg {
    Arg::new("phase")
        .long("phase")
        .value_name("PHASE")
        .default_value("test")
        .value_parser(["test", "train"])
        .help("Where the graph has both: what it does at inference (test) or in training (train)")
}

fn dump_tag() -> Arg {
    Arg::new("tag").long("dump_tag").value_name("TAG").hide(true).help("Accepted for scripts written for MMdnn")
}

/// How much is said.
fn talk() -> [Arg; 3] {
    [
        flag("json", "Report as one JSON object on standard output, also when it fails"),
        flag("quiet", "Say nothing but errors").short('q').conflicts_with("verbose"),
        flag("verbose", "Also tell what each stage took").short('v'),
    ]
}

pub fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// Sizes of an input; -1 is a free one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct InputShape(Vec<i64>);

fn shape(text: &str) -> Result<InputShape, String> {
    let inner = text.trim().trim_start_matches(['[', '(']).trim_end_matches([']', ')', ',']);
    let sizes = inner.split(',').map(|size| match size.trim() {
        "-1" | "?" | "None" | "N" => Ok(-1),
        size => match size.parse::<u32>() {
            Ok(size) if size > 0 => Ok(size.into()),
            _ => Err(format!("'{size}' is no size; expected sizes with commas, such as 299,299,3")),
        },
    });
    sizes.collect::<Result<_, _>>().map(InputShape)
}

/// What is to be converted, and into what.
#[derive(Clone, Debug, Default)]
pub struct Conversion {
    /// Where the network is; for later steps, what the step before has written.
    pub source: Source,
    /// The framework to write for.
    pub target: Target,
    /// The file that was asked for.
    pub output: PathBuf,
    /// The file for the weights, where it is another.
    pub weights_output: Option<PathBuf>,
    /// Layout of inputs and outputs.
    pub ports: Ports,
    /// Whether the code is made faster, and no longer fit to be trained.
    pub inference: bool,
    /// Where to write the names that the weights had.
    pub name_map: Option<PathBuf>,
    /// Whether the model file is that of a whole module.
    pub whole_module: bool,
    /// Whether the code offers MMdnn's `KitModel`.
    pub kit_model: bool,
}

impl Conversion {
    /// What the arguments of a command ask for.
    pub fn of(matches: &ArgMatches, kit_model: bool) -> Conversion {
        let file = |id: &str| matches.try_get_one::<PathBuf>(id).ok().flatten().cloned();
        let word = |id: &str| matches.try_get_one::<String>(id).ok().flatten().map(String::as_str);
        Conversion {
            source: Source { training: word("phase") == Some("train"), ..source_of(matches) },
            target: match word("target-framework") {
                Some(name) if name.to_ascii_lowercase().contains("keras") => {
                    Target::Keras { version: if word("keras-version") == Some("2") { 2 } else { 3 } }
                }
                _ => Target::PyTorch,
            },
            output: file("output").unwrap_or_default(),
            weights_output: file("weights-output"),
            ports: if word("layout") == Some("source") { Ports::Source } else { Ports::Target },
            inference: word("purpose") == Some("inference"),
            name_map: file("name-map"),
            whole_module: is_set(matches, "whole-module"),
            kit_model,
        }
    }
}

/// The source that the arguments of a command name.
pub fn source_of(matches: &ArgMatches) -> Source {
    let file = |id: &str| matches.try_get_one::<PathBuf>(id).ok().flatten().cloned();
    let nodes = |id: &str| -> Vec<String> {
        let values = matches.try_get_many::<String>(id).ok().flatten();
        values.into_iter().flatten().map(|node| node.trim().to_owned()).filter(|node| !node.is_empty()).collect()
    };
    let shapes = matches.try_get_many::<InputShape>("shapes").ok().flatten();
    let word = |id: &str| matches.try_get_one::<String>(id).ok().flatten().map(|word| word.trim().to_owned());
    Source {
        framework: word("source-framework").and_then(|name| Framework::called(&name)),
        network: file("network"),
        weights: file("weights"),
        outputs: nodes("outputs"),
        inputs: nodes("inputs"),
        input_shapes: shapes.into_iter().flatten().map(|shape| shape.0.clone()).collect(),
        training: false,
        moving_averages: is_set(matches, "ema"),
        weights_key: word("weights-key"),
        architecture: architecture(matches),
    }
}

/// What is said of the architecture of a state dict.
fn architecture(matches: &ArgMatches) -> Arguments {
    let arch = matches.try_get_one::<String>("arch").ok().flatten().cloned();
    let args = matches.try_get_many::<(String, String)>("arch-arg").ok().flatten();
    Arguments { arch, args: args.into_iter().flatten().cloned().collect() }
}

fn is_set(matches: &ArgMatches, id: &str) -> bool {
    matches.try_get_one::<bool>(id).ok().flatten().copied().unwrap_or(false)
}

/// Completions for the shell that was asked for.
pub fn completions(matches: &ArgMatches) -> String {
    let shell = matches.get_one::<Shell>("shell").copied().unwrap_or(Shell::Bash);
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut modelport(), "modelport", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The manual page, of the program or of one of its commands.
///
/// # Errors
/// When there is no such command.
pub fn man(matches: &ArgMatches) -> Result<String, modelport_ir::Error> {
    let mut command = modelport();
    command.build();
    if let Some(name) = matches.get_one::<String>("command") {
        let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        let hint = format!("commands are {}", names.join(", "));
        let sub = command.find_subcommand(name).cloned();
        let unknown = || modelport_ir::Problem::new(format!("there is no command '{name}'")).hint(hint);
        command = sub.ok_or_else(unknown)?;
    }
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(command).render(&mut text);
    rendered.map_err(|error| modelport_ir::Error::new(format!("the manual page can't be written: {error}")))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        assert_eq!(shape("299,299,3"), Ok(InputShape(vec![299, 299, 3])));
        assert_eq!(shape("[-1, 28, None]"), Ok(InputShape(vec![-1, 28, -1])));
        for wrong in ["", "0,3", "299x299", "-5"] {
            assert!(shape(wrong).unwrap_err().contains("299,299,3"), "{wrong}");
        }
    }

    #[test]
    fn all_command_lines_are_consistent() {
        use Program::*;
        for program in [Modelport, Mmconvert, Mmtoir, Mmtocode, Mmtomodel] {
            command(program).debug_assert();
        }
    }
}
