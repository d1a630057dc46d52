//! The conversions: in one go, or in three steps that do the same.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use modelport_backends::plan::Param;
use modelport_backends::weights::{self, Format};
use modelport_frontends::{self as frontends, Source};
use modelport_ir::atomic::AtomicFile;
use modelport_ir::{Error, Graph, Problem, Result, codec, layout, pass, validate};
use serde_json::Value;

use crate::args::Conversion;
use crate::output;
use crate::report::{Network, Report};
use crate::target::{self, Generated, Kind, Target};
use crate::ui::Ui;

/// `convert`: a framework's files become code and weights.
pub fn convert(conversion: &Conversion, ui: &mut Ui) -> Result<()> {
    let (code, weights) = output::code_and_weights(&conversion.output, conversion.target)?;
    let begun = Files::begin(conversion, code, weights)?;
    let framework = frontends::framework(&conversion.source).name();
    let graph = read(&conversion.source, ui)?;
    let (sources, recognised) = (files(&conversion.source), recognised(&graph));
    let report = Report { command: "convert", framework, sources, recognised, ..Report::default() };
    begun.write(conversion, graph, report, ui)
}

/// `to-ir`: a framework's files become files of the neutral graph.
pub fn to_ir(conversion: &Conversion, ui: &mut Ui) -> Result<()> {
    let base = output::base(&conversion.output);
    let named = |format: &codec::Format| {
        let mut name = base.clone().into_os_string();
        name.push(".");
        name.push(format.extension());
        PathBuf::from(name)
    };
    let paths: Vec<PathBuf> = codec::Format::ALL.iter().map(named).collect();
    let writable: Vec<Error> = paths.iter().filter_map(|path| AtomicFile::create(path).err()).collect();
    Error::collect(writable.into_iter().flat_map(|error| error.problems).collect())?;
    let graph = read(&conversion.source, ui)?;
    let files_written = ui.stage("write", None, |_| codec::save(&graph, &base, codec::Format::ALL))?;
    let report = Report {
        command: "to-ir",
        framework: frontends::framework(&conversion.source).name(),
        sources: files(&conversion.source),
        recognised: recognised(&graph),
        parameters: graph.parameters(),
        network: Some(Network::of(&graph)),
        files: files_written,
        seconds: ui.seconds(),
        ..Report::default()
    };
    ui.report(|| report.json(), || report.text())
}

/// `to-code`: files of the neutral graph become code and weights.
pub fn to_code(conversion: &Conversion, ui: &mut Ui) -> Result<()> {
    let code = output::code(&conversion.output);
    let weights =
        conversion.weights_output.clone().unwrap_or_else(|| code.with_extension(conversion.target.weights_extension()));
    let begun = Files::begin(conversion, code, weights)?;
    let Source { network, weights, .. } = &conversion.source;
    let network = network.as_deref().unwrap_or(Path::new(""));
    let graph = ui.stage("read", None, |_| {
        let graph = codec::load(network, weights.as_deref())?;
        validate::validate(&graph).map_err(|error| error.in_file(network))?;
        Ok(graph)
    })?;
    let report =
        Report { command: "to-code", framework: "ir", sources: files(&conversion.source), ..Report::default() };
    begun.write(conversion, graph, report, ui)
}

/// `to-model`: the weights of generated code become a model file.
pub fn to_model(conversion: &Conversion, ui: &mut Ui) -> Result<()> {
    let Conversion { source, output, .. } = conversion;
    let kind = conversion.target.kind(output)?;
    let module = match (conversion.whole_module, &source.network) {
        (false, _) => None,
        (true, Some(code)) => Some(restorable(code)?),
        (true, None) => return Err(Error::new("--whole-module needs the code as well: -in NAME.py")),
    };
    let [mut file] = output::begin([output.as_path()])?;
    let weights = source.weights.as_deref().unwrap_or(Path::new(""));
    let generated = ui.stage("read", None, |_| match conversion.target {
        Target::PyTorch => read_weights(weights),
        Target::Keras { .. } => target::read_keras(source.network.as_deref(), weights),
    })?;
    write_weights(&mut file, kind, &generated, module.as_deref(), ui)?;
    file.commit()?;
    let report = Report {
        command: "to-model",
        framework: conversion.target.name(),
        sources: files(source),
        parameters: parameters(&generated.params),
        files: vec![output.clone()],
        load: source.network.clone().map(|code| (code, output.clone())),
        whole_module: module.is_some(),
        seconds: ui.seconds(),
        ..Report::default()
    };
    ui.report(|| report.json(), || report.text())
}

/// The module that generated code is, if it can restore a whole module.
fn restorable(code: &Path) -> Result<String> {
    let failed = |message: String| Problem::new(message).file(code);
    let text = std::fs::read_to_string(code).map_err(|error| failed(format!("can't be read: {error}")))?;
    if !text.contains("\ndef _restore(") {
        let message = "has no function that restores a whole module";
        return Err(failed(message.to_owned()).hint("write it with `modelport to-code … --whole-module`").into());
    }
    output::module(code)
}

/// What a state dict was recognised as, and why.
fn recognised(graph: &Graph) -> Option<String> {
    graph.source.split_once("recognised as ").map(|(_, text)| text.to_owned())
}

fn read(source: &Source, ui: &Ui) -> Result<Graph> {
    ui.stage("read", None, |_| frontends::read(source))
}

fn read_weights(path: &Path) -> Result<Generated> {
    let named = frontends::pytorch::read_weights(path)?;
    let params = named.into_iter().map(|(key, tensor)| Param { key, tensor, source: String::new() });
    Ok(Generated { params: params.collect(), ..Generated::default() })
}

fn files(source: &Source) -> Vec<PathBuf> {
    source.network.iter().chain(&source.weights).cloned().collect()
}

/// The files that a conversion writes, begun before any work is done.
struct Files {
    code: AtomicFile,
    weights: AtomicFile,
    name_map: Option<AtomicFile>,
    kind: Kind,
    module: Option<String>,
}

impl Files {
    fn begin(conversion: &Conversion, code: PathBuf, weights: PathBuf) -> Result<Files> {
        let kind = conversion.target.kind(&weights)?;
        let module = match conversion.whole_module {
            true => Some(output::module(&code)?),
            false => None,
        };
        // The code of a whole module may go with weights of any kind until `to-model`.
        let module_here = module.filter(|_| kind == Kind::Weights(Format::Torch));
        if conversion.whole_module && module_here.is_none() && conversion.weights_output.is_none() {
            let problem = Problem::new("only .pth and .pt files hold a whole module").file(&weights);
            return Err(problem.hint("give -om a name that ends in .pth, or leave out --whole-module").into());
        }
        let [code, weights] = output::begin([&code, &weights])?;
        let name_map = conversion.name_map.as_deref().map(AtomicFile::create).transpose()?;
        Ok(Files { code, weights, name_map, kind, module: module_here })
    }

    /// Brings the graph into the target's layout, writes everything, and tells what was done.
    fn write(mut self, conversion: &Conversion, mut graph: Graph, report: Report, ui: &mut Ui) -> Result<()> {
        let (code, weights) = (self.code.path().to_owned(), self.weights.path().to_owned());
        let source = report.sources.first().cloned().unwrap_or_default();
        let from_source = |error: Error| error.in_file(&source);
        let nodes = graph.ids().into_iter().map(|id| graph.node(id).name.clone());
        let parts = graph.weight_norms.values().flat_map(|norm| [norm.length.key.clone(), norm.direction.key.clone()]);
        let named: HashSet<String> = nodes.chain(graph.spare.keys().cloned()).chain(parts).collect();
        if conversion.inference {
            ui.stage("fold", None, |_| pass::run(&mut graph, pass::FOR_INFERENCE)).map_err(from_source)?;
        }
        ui.stage("layout", None, |_| {
            layout::convert(&mut graph, conversion.target.layout(), conversion.ports)?;
            validate::validate(&graph)
        })
        .map_err(from_source)?;
        let options = target::Options {
            kit_model: conversion.kit_model,
            restore: conversion.whole_module,
            inference: conversion.inference,
            weights_file: weights.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let generated = ui.stage("plan", None, |_| conversion.target.generate(&graph, options)).map_err(from_source)?;
        let Generated { code: text, params, .. } = &generated;

        write_weights(&mut self.weights, self.kind, &generated, self.module.as_deref(), ui)?;
        put(&mut self.code, text.as_bytes())?;
        if let Some(file) = &mut self.name_map {
            put(file, format!("{:#}\n", name_map(params, &named)).as_bytes())?;
        }
        let mut files = vec![code.clone(), weights.clone()];
        self.weights.commit()?;
        if let Some(file) = self.name_map {
            files.push(file.path().to_owned());
            file.commit()?;
        }
        self.code.commit()?;

        let report = Report {
            parameters: parameters(params),
            network: Some(Network::of(&graph)),
            files,
            code_lines: Some(text.lines().count()),
            load: Some((code, weights)),
            whole_module: self.module.is_some(),
            seconds: ui.seconds(),
            ..report
        };
        ui.report(|| report.json(), || report.text())
    }
}

fn put(file: &mut AtomicFile, bytes: &[u8]) -> Result<()> {
    let path = file.path().to_owned();
    file.write_all(bytes).map_err(|error| Problem::new(format!("can't be written: {error}")).file(path).into())
}

fn write_weights(
    file: &mut AtomicFile,
    kind: Kind,
    generated: &Generated,
    module: Option<&str>,
    ui: &Ui,
) -> Result<()> {
    let total = generated.params.iter().map(|param| param.tensor.byte_len() as u64).sum();
    ui.stage("weights", Some(total), |progress| {
        target::write(file, kind, generated, weights::Options { module, progress: Some(progress) })
    })
}

/// The number of elements of all weights that are real numbers; tied ones count once.
fn parameters(params: &[Param]) -> usize {
    let floats: Vec<&Param> = params.iter().filter(|param| param.tensor.dtype().is_float()).collect();
    let is_first = |index: &usize| {
        let tensor = |at: usize| floats.get(at).map(|param| &param.tensor);
        !(0..*index).any(|at| tensor(at).zip(tensor(*index)).is_some_and(|(a, b)| a.is_same(b)))
    };
    (0..floats.len()).filter(is_first).filter_map(|index| floats.get(index)).map(|param| param.tensor.numel()).sum()
}

/// For every weight the name that it had in the source, or null where it had none: made from others, or by the target.
fn name_map(params: &[Param], named: &HashSet<String>) -> Value {
    let name = |param: &Param| match param.source.as_str() {
        source if named.contains(source) => source.into(),
        _ => Value::Null,
    };
    params.iter().map(|param| (param.key.clone(), name(param))).collect()
}
