//! `transfer`: parameters of one file into another that is there already.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use modelport_backends::keras::files::{self, FileFormat};
use modelport_backends::plan::Param;
use modelport_backends::transfer::{self, By, Family, KerasLayer, Map, Options, Plan, Side};
use modelport_backends::weights::{self, Format};
use modelport_frontends::keras::{self, Form, Stored};
use modelport_frontends::pytorch::{self, state};
use modelport_frontends::tensorflow::checkpoint::Checkpoint;
use modelport_frontends::{Framework, Source, framework};
use modelport_ir::atomic::AtomicFile;
use modelport_ir::{Error, Problem, Result, Tensor};
use serde_json::{Value, json};

use crate::args;
use crate::report::{bytes, thousands};
use crate::ui::{Ui, bold};

const EXAMPLES: &str = "\
Examples:
  A PyTorch state dict into the Keras twin that was written by hand:
    modelport transfer -iw resnet18.pth --into resnet18.keras -o resnet18_trained.keras

  The other way round, with names that only a person knows:
    modelport transfer -iw twin.h5 --into twin.pth --map names.json -o trained.pth

  A map to begin with, from names and from order and shapes, to check and to change:
    modelport transfer -iw resnet50.pth --into resnet50.keras --suggest-map names.json

  names.json maps layers or tensors of the target, or all below a name, to those of the source:
    {\"head\": \"fc\",
     \"encoder\": \"backbone.stages\",
     \"stem/kernel\": {\"from\": \"conv1.weight\", \"permute\": [2, 3, 1, 0]},
     \"dense\": {\"from\": \"classifier.0\", \"flattened\": [512, 7, 7]},
     \"untouched\": null}

Layers are matched by their names (`/`, `.` and `_` are one), and turned by what kind of layer they
are: convolutions, transposed, depthwise and separable ones, dense layers, attention, norms,
embeddings, LSTM and GRU gates. What can't be known from the files is an error that says how to write
it in the map.";

/// The command with its flags.
pub fn command() -> Command {
    Command::new("transfer")
        .about("Copy parameters into a model or state dict that is there already")
        .after_help(EXAMPLES)
        .arg(args::weights().required(true).help(
            "Where the parameters are: .pth, .pt, .safetensors, .npy, .keras, .h5, or a TensorFlow checkpoint [also -iw]",
        ))
        .arg(args::path("into", "into").alias("skeleton").required(true).help(
            "The file that takes them: .keras, .h5, .weights.h5, .pth, .pt, .safetensors or .npy; it stays as it is",
        ))
        .arg(
            args::output("output")
                .required(false)
                .required_unless_present("suggest-map")
                .help("The file to write, of the same kind [also -om]"),
        )
        .arg(args::path("map", "map").help("Names of the target and where they are from, in JSON"))
        .arg(args::path("suggest-map", "suggest-map").conflicts_with("output").help(
            "Write only a map of what matches by name, and by order among equal kinds and shapes, to check and to change",
        ))
        .arg(args::flag("by-order", "Match layers that no name matches by their order, among equal kinds and shapes"))
        .arg(args::flag("partial", "Write the layers that match, each as a whole, also when others do not"))
        .arg(args::weights_key())
        .arg(args::moving_averages())
}

/// Runs the command.
pub fn transfer(matches: &ArgMatches, ui: &mut Ui) -> Result<()> {
    let file = |id: &str| matches.get_one::<PathBuf>(id).cloned();
    let (into, suggested) = (file("into").unwrap_or_default(), file("suggest-map"));
    // What is suggested has no output that could be of another kind.
    let output = file("output").unwrap_or_else(|| into.clone());
    let source_of = args::source_of(matches);
    let map = match file("map") {
        Some(path) => read_map(&path)?,
        None => Map::default(),
    };
    let mut written = AtomicFile::create(suggested.as_ref().unwrap_or(&output))?;
    let ((source, of_source), skeleton) =
        ui.stage("read", None, |_| match (read(&source_of), Skeleton::open(&into, &output)) {
            (Ok(source), Ok(skeleton)) => Ok((source, skeleton)),
            (source, skeleton) => {
                let problems = [source.err(), skeleton.err()].into_iter().flatten().flat_map(|error| error.problems);
                Err(Error { problems: problems.collect() })
            }
        })?;
    let options = Options { map, by_order: matches.get_flag("by-order") || suggested.is_some() };
    let plan = ui.stage("match", None, |_| Ok(transfer::plan(&source, &skeleton.side(), &options)))?;
    let source_path = source_of.weights.clone().unwrap_or_default();
    if let Some(path) = suggested {
        let text = options.map.completed(&plan);
        let failed = |error: std::io::Error| Problem::new(format!("can't be written: {error}")).file(&path);
        written.write_all(text.as_bytes()).map_err(failed)?;
        written.commit()?;
        let report = Suggestion { source: source_path, into, path, plan };
        return ui.report(|| report.json(), || report.text());
    }
    if plan.matches.is_empty() || !plan.is_complete() && !matches.get_flag("partial") {
        return Err(refusal(&plan, &source_path, &into));
    }
    let notes = match source.family == Family::PyTorch {
        true => skeleton.notes(),
        false if matches!(skeleton, Skeleton::PyTorch(..)) => of_source,
        false => Vec::new(),
    };
    let total = std::fs::metadata(&into).map_or(0, |metadata| metadata.len());
    ui.stage("write", Some(total), |progress| skeleton.write(&plan, &mut written, progress))?;
    written.commit()?;
    let report = Report { source: source_path, into, output, plan, notes, seconds: ui.seconds() };
    ui.report(|| report.json(), || report.text())
}

fn read_map(path: &Path) -> Result<Map> {
    let failed = |error: std::io::Error| Problem::new(format!("can't be read: {error}")).file(path);
    Map::parse(&std::fs::read_to_string(path).map_err(failed)?).map_err(|error| error.in_file(path))
}

/// The parameters of a file of any framework, and what they do not say.
fn read(source: &Source) -> Result<(Side, Vec<String>)> {
    let path = source.weights.as_deref().unwrap_or(Path::new(""));
    if keras::is_file(path) {
        let stored = keras::open(path)?;
        return Ok((keras_side(&stored), keras::unlike_pytorch(&stored)));
    }
    if framework(source) == Framework::PyTorch {
        let state = state::select(path, &pytorch::selection(source))?;
        let tensors = state.tensors.iter().map(|(key, tensor)| (key.as_str(), tensor));
        return Ok((Side::pytorch(tensors), Vec::new()));
    }
    let checkpoint = Checkpoint::open(path)?;
    let tensors: Vec<(&str, Tensor)> =
        checkpoint.names().filter_map(|name| Some((name, checkpoint.get(name)?))).collect();
    Ok((Side::tensorflow(tensors.iter().map(|(name, tensor)| (*name, tensor))), Vec::new()))
}

fn keras_side(stored: &Stored) -> Side {
    let layers = stored.layers.iter().flat_map(|layer| {
        let variables = layer.variables.iter().map(|variable| (variable.name.as_str(), &variable.tensor));
        let facts = KerasLayer {
            name: &layer.name,
            class: layer.class.as_deref(),
            after_flatten: layer.after_flatten.as_deref(),
            reset_after: layer.config.get("reset_after").and_then(Value::as_bool),
        };
        Side::keras_layers(&facts, variables)
    });
    Side { family: Family::Keras, layers: layers.collect() }
}

/// The file that takes parameters.
enum Skeleton {
    Keras(Box<Stored>),
    PyTorch(Format, Vec<(String, Tensor)>),
}

/// Counters that no network computes with; they stay as they are.
fn is_counter(key: &str) -> bool {
    key.ends_with("num_batches_tracked")
}

impl Skeleton {
    /// Opens it, if the output can be of its kind.
    fn open(path: &Path, output: &Path) -> Result<Skeleton> {
        let other = |kind: &str, expected: &str| {
            let message = format!("can't be written from {}, which is a {kind}", path.display());
            Error::from(Problem::new(message).file(output).hint(format!("expected a name that ends in {expected}")))
        };
        if !path.is_file() {
            return Err(Problem::new("does not exist")
                .file(path)
                .hint("expected a model or a state dict that takes parameters")
                .into());
        }
        if keras::is_file(path) {
            let stored = keras::open(path)?;
            let (fits, expected): (&[FileFormat], _) = match stored.form {
                Form::Archive => (&[FileFormat::Keras], ".keras"),
                // Keras 2.12 calls such files .keras, too.
                Form::Whole => (&[FileFormat::H5, FileFormat::Keras], ".h5"),
                Form::LegacyWeights => (&[FileFormat::H5, FileFormat::Weights], ".h5"),
                Form::Weights => (&[FileFormat::Weights], ".weights.h5"),
            };
            return match FileFormat::of(output) {
                Some(format) if fits.contains(&format) => Ok(Skeleton::Keras(Box::new(stored))),
                _ => Err(other(stored.form.name(), expected)),
            };
        }
        match Format::of(output) {
            Ok(format) => Ok(Skeleton::PyTorch(format, pytorch::read_weights(path)?)),
            Err(_) => Err(other("state dict", ".pth, .pt, .safetensors or .npy")),
        }
    }

    fn side(&self) -> Side {
        match self {
            Skeleton::Keras(stored) => keras_side(stored),
            Skeleton::PyTorch(_, tensors) => {
                let named = tensors.iter().filter(|(key, _)| !is_counter(key));
                Side::pytorch(named.map(|(key, tensor)| (key.as_str(), tensor)))
            }
        }
    }

    /// What its parameters do not say, and PyTorch's do not either.
    fn notes(&self) -> Vec<String> {
        match self {
            Skeleton::Keras(stored) => keras::unlike_pytorch(stored),
            Skeleton::PyTorch(..) => Vec::new(),
        }
    }

    /// Writes the file with what the plan changes.
    fn write(self, plan: &Plan, file: &mut AtomicFile, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let found: HashMap<&str, &Tensor> =
            plan.matches.iter().map(|found| (found.target.as_str(), &found.tensor)).collect();
        match self {
            Skeleton::Keras(mut stored) => {
                for layer in std::mem::take(&mut stored.layers) {
                    for variable in layer.variables {
                        let name = format!("{}/{}", layer.name, variable.name);
                        if let (Some(tensor), Some(dataset)) =
                            (found.get(name.as_str()), stored.root.dataset_mut(&variable.path))
                        {
                            dataset.tensor = (*tensor).clone();
                        }
                    }
                }
                match (&stored.config, stored.form) {
                    (Some(config), Form::Archive) => {
                        files::write_archive(file, config, &stored.root, &stored.entries, Some(progress))
                    }
                    _ => files::write_hdf5(file, &stored.root, Some(progress)),
                }
            }
            Skeleton::PyTorch(format, tensors) => {
                let replaced = |(key, tensor): (String, Tensor)| -> std::result::Result<Param, Problem> {
                    let tensor = transfer::replaced(&key, &tensor, &found)
                        .map_err(|message| Problem::new(message).node(key.as_str()))?;
                    Ok(Param { key, tensor, source: String::new() })
                };
                let params: Vec<Param> =
                    tensors.into_iter().map(replaced).collect::<std::result::Result<_, Problem>>()?;
                let options = weights::Options { progress: Some(progress), ..weights::Options::default() };
                weights::write_to(file, format, &params, options)?;
                file.flush().map_err(|error| Problem::new(format!("can't be written: {error}")).into())
            }
        }
    }
}

/// All that does not match.
fn refusal(plan: &Plan, source: &Path, into: &Path) -> Error {
    let mut problems: Vec<Problem> = Vec::new();
    problems.extend(plan.conflicts.iter().cloned().map(|problem| problem.file(into)));
    let map = "say where it is from with --map FILE.json, which --suggest-map FILE.json writes to begin with, or write what \
               matches with --partial";
    let target = plan.left_in_target.iter().map(|name| {
        Problem::new("has parameters that nothing in the source matches").file(into).node(name.as_str()).hint(map)
    });
    let left = plan.left_in_source.iter().map(|name| {
        Problem::new("has parameters that nothing in the target takes").file(source).node(name.as_str()).hint(map)
    });
    problems.extend(target.chain(left));
    if problems.is_empty() {
        problems.push(Problem::new("has no parameters").file(into));
    }
    Error { problems }
}

/// What a tensor is that has nothing of the source: it changes nothing.
fn constant(tensor: &Tensor) -> &'static str {
    match tensor.to_f64().is_ok_and(|values| values.first() == Some(&1.0)) {
        true => "ones",
        false => "zeros",
    }
}

/// A map that was written.
struct Suggestion {
    source: PathBuf,
    into: PathBuf,
    path: PathBuf,
    plan: Plan,
}

impl Suggestion {
    fn json(&self) -> Value {
        let layers = self.plan.layers.iter().map(|layer| {
            let (source, by) = layer.source.as_ref().map(|(source, by)| (source, by.name())).unzip();
            json!({"target": layer.target, "source": source, "by": by})
        });
        json!({
            "command": "transfer",
            "source": self.source.to_string_lossy(),
            "into": self.into.to_string_lossy(),
            "layers": layers.collect::<Vec<_>>(),
            "left_in_source": self.plan.left_in_source,
            "files": [{"path": self.path.to_string_lossy()}],
        })
    }

    fn text(&self) -> String {
        let Plan { layers, left_in_source, conflicts, .. } = &self.plan;
        let width = layers.iter().map(|layer| layer.target.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for layer in layers {
            let (source, by) = match &layer.source {
                Some((source, by)) => (source.as_str(), by.name()),
                None => ("?", "nothing"),
            };
            text.push_str(&format!("{:<width$}  {source}  (by {by})\n", layer.target));
        }
        if !left_in_source.is_empty() {
            text.push_str("\nnot taken from the source:\n");
            left_in_source.iter().for_each(|name| text.push_str(&format!("    {name}\n")));
        }
        if !conflicts.is_empty() {
            text.push_str(&format!("\nwhat does not fit:\n{}\n", Error { problems: conflicts.clone() }));
        }
        let count = |wanted: Option<By>| {
            layers.iter().filter(|layer| layer.source.as_ref().map(|(_, by)| *by) == wanted).count()
        };
        text.push_str(&format!(
            "\nread    {} and {}\nwrote   {}\n        {} layers: {} by order, which are to be checked, and {} by nothing\n",
            self.source.display(),
            self.into.display(),
            bold(&self.path.display().to_string()),
            layers.len(),
            count(Some(By::Order)),
            count(None),
        ));
        text
    }
}

struct Report {
    source: PathBuf,
    into: PathBuf,
    output: PathBuf,
    plan: Plan,
    notes: Vec<String>,
    seconds: f64,
}

impl Report {
    fn json(&self) -> Value {
        let Plan { matches, left_in_source, left_in_target, left_with_layer, conflicts, .. } = &self.plan;
        let matched = matches.iter().map(|found| {
            json!({
                "target": found.target, "sources": found.sources, "by": found.by.name(), "shape": found.tensor.shape(),
            })
        });
        let conflict =
            |problem: &Problem| json!({"target": problem.node, "message": problem.message, "hint": problem.hint});
        json!({
            "command": "transfer",
            "source": self.source.to_string_lossy(),
            "into": self.into.to_string_lossy(),
            "matched": matched.collect::<Vec<_>>(),
            "left_in_source": left_in_source,
            "left_in_target": left_in_target,
            "left_with_layer": left_with_layer,
            "conflicts": conflicts.iter().map(conflict).collect::<Vec<_>>(),
            "notes": self.notes,
            "files": [{"path": self.output.to_string_lossy(), "bytes": self.size()}],
            "seconds": (self.seconds * 1000.0).round() / 1000.0,
        })
    }

    fn size(&self) -> u64 {
        std::fs::metadata(&self.output).map_or(0, |metadata| metadata.len())
    }

    fn text(&self) -> String {
        let Plan { matches, left_in_source, left_in_target, left_with_layer, conflicts, .. } = &self.plan;
        let width = matches.iter().map(|found| found.target.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for found in matches {
            let from =
                if found.sources.is_empty() { constant(&found.tensor).to_owned() } else { found.sources.join(" + ") };
            let shape = format!("{:?}", found.tensor.shape());
            text.push_str(&format!("{:<width$}  {shape:<20}  {from}  (by {})\n", found.target, found.by.name()));
        }
        let mut left = |what: &str, names: &[String]| {
            if !names.is_empty() {
                text.push_str(&format!("\n{what}:\n"));
                names.iter().for_each(|name| text.push_str(&format!("    {name}\n")));
            }
        };
        left("left as they are", left_in_target);
        left("left as they are, since the rest of their layer does not fit", left_with_layer);
        left("not taken from the source", left_in_source);
        if !conflicts.is_empty() {
            let error = Error { problems: conflicts.clone() };
            text.push_str(&format!("\nwhat does not fit:\n{error}\n"));
        }
        if !self.notes.is_empty() {
            text.push_str("\nto check, since parameters don't say it:\n");
            self.notes.iter().for_each(|note| text.push_str(&format!("    {note}\n")));
        }
        let parameters: usize = matches.iter().map(|found| found.tensor.numel()).sum();
        text.push_str(&format!(
            "\nread    {} and {}\nwrote   {}  {}\n        {} of {} tensors, {} parameters, in {:.2} s\n",
            self.source.display(),
            self.into.display(),
            bold(&self.output.display().to_string()),
            bytes(self.size()),
            matches.len(),
            matches.len() + left_in_target.len() + left_with_layer.len() + conflicts.len(),
            thousands(parameters),
            self.seconds,
        ));
        text
    }
}
