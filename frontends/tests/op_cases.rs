//! Every graph of `tests/fixtures/ops` and `networks` is valid and gives what TensorFlow computed, for each batch size:
//! as it was read, saved and loaded again, and in every layout.
//!
//! `MODELPORT_CASE=pool/` runs the cases whose names contain that.

mod draw;

use std::fs::File;
use std::path::{Path, PathBuf};

use modelport_frontends::{Source, tensorflow};
use modelport_ir::codec::{self, Format};
use modelport_ir::eval::{Array, evaluate};
use modelport_ir::layout::{Ports, convert};
use modelport_ir::{DType, Error, Graph, Layout, validate::validate};
use ndarray::{ArrayD, Axis, Slice};
use ndarray_npy::ReadNpyExt;
use serde_json::Value;

/// Share of the largest expected element.
const TOLERANCE: f64 = 1e-5;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

struct Case {
    name: String,
    folder: PathBuf,
    facts: Value,
}

impl Case {
    fn of(folders: impl Iterator<Item = PathBuf>) -> Vec<Case> {
        let wanted = std::env::var("MODELPORT_CASE").unwrap_or_default();
        let case = |folder: PathBuf| {
            let name = folder.strip_prefix(fixtures()).unwrap().display().to_string();
            let facts = serde_json::from_reader(File::open(folder.join("case.json")).unwrap()).unwrap();
            Case { name, folder, facts }
        };
        let cases = folders.filter(|path| path.join("case.json").exists()).map(case);
        cases.filter(|case| case.name.contains(&wanted)).collect()
    }

    fn strings(&self, key: &str) -> Option<Vec<&str>> {
        self.facts[key].as_array().map(|list| list.iter().filter_map(Value::as_str).collect())
    }

    fn batches(&self) -> &[usize] {
        if self.facts["batchless"] == true { &[3] } else { &[3, 1] }
    }

    /// The input called `name`, cut to a batch.
    fn input(&self, name: &str, batch: usize) -> Result<Array, String> {
        let specs = self.facts["inputs"].as_array().ok_or("no inputs")?;
        let index = specs.iter().position(|spec| spec["name"] == name);
        let index = index.ok_or_else(|| format!("the network asks for an input '{name}'"))?;
        let mut array = if self.facts["seed"].is_u64() {
            draw::inputs(&self.facts).remove(index)
        } else {
            read(&self.folder.join(format!("input_{index}.npy")))?
        };
        if specs[index]["shape"].get(0).is_some_and(Value::is_null) {
            let cut = Slice::new(0, Some(batch as isize), 1);
            match &mut array {
                Array::Float(a, _) => *a = a.slice_axis(Axis(0), cut).to_owned(),
                Array::Int(a, _) => *a = a.slice_axis(Axis(0), cut).to_owned(),
                Array::Bool(a) => *a = a.slice_axis(Axis(0), cut).to_owned(),
            }
        }
        Ok(array)
    }

    fn read(&self) -> modelport_ir::Result<Graph> {
        let path = |key: &str| self.facts[key].as_str().map(|name| self.folder.join(name));
        let outputs = self.strings("outputs").unwrap_or_default().into_iter().map(str::to_owned).collect();
        let mut source = Source { network: path("network"), weights: path("weights"), outputs, ..Source::default() };
        let mut arguments = self.strings("arguments").unwrap_or_default().into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap();
            match argument {
                "--ema" => source.moving_averages = true,
                "--inNodeName" => source.inputs.push(value().to_owned()),
                "--inputShape" => source.input_shapes.push(value().split(',').map(|n| n.parse().unwrap()).collect()),
                other => panic!("{}: argument {other}", self.name),
            }
        }
        tensorflow::read(&source)
    }

    /// Validates the graph, evaluates it for every batch size, and compares.
    fn check(&self, graph: &Graph) -> Result<(), String> {
        validate(graph).map_err(|error| error.to_string())?;
        for &batch in self.batches() {
            let inputs = graph.inputs.iter().map(|port| {
                let name = port.name.strip_suffix(":0").unwrap_or(&port.name);
                Ok(transposed(self.input(name, batch)?, port.permutation.as_deref()))
            });
            let inputs = inputs.collect::<Result<Vec<_>, String>>()?;
            let outputs = evaluate(graph, &inputs).map_err(|error| error.to_string())?;
            let names: Vec<&str> = graph.outputs.iter().map(|port| port.name.trim_end_matches(":0")).collect();
            let wanted = self.strings("outputs").unwrap_or_default();
            if names != wanted {
                return Err(format!("the outputs are {names:?}, expected {wanted:?}"));
            }
            for (index, (output, port)) in outputs.iter().zip(&graph.outputs).enumerate() {
                let expected = read(&self.folder.join(format!("expected_b{batch}_{index}.npy")))?;
                compare(output, &transposed(expected, port.permutation.as_deref()))
                    .map_err(|message| format!("output '{}' at batch {batch} {message}", port.name))?;
            }
        }
        Ok(())
    }

    /// The stage that failed and why, if one did.
    fn run(&self) -> Result<(), (&'static str, String)> {
        let graph = self.read();
        if let Some(ops) = self.strings("unsupported") {
            return self.check_refusal(graph, &ops).map_err(|message| ("refuse", message));
        }
        let graph = graph.map_err(|error| ("read", error.to_string()))?;
        self.check(&graph).map_err(|message| ("read", message))?;

        let saved = || {
            let folder = tempfile::tempdir().map_err(|error| Error::new(error.to_string()))?;
            let files = codec::save(&graph, &folder.path().join("saved"), Format::ALL)?;
            Ok((folder, codec::load(&files[1], None)?))
        };
        let (_folder, loaded) = saved().map_err(|error: Error| ("save", error.to_string()))?;
        self.check(&loaded).map_err(|message| ("save", message))?;

        for (stage, layout, ports) in [
            ("first", Layout::ChannelsFirst, Ports::Target),
            ("borders", Layout::ChannelsFirst, Ports::Source),
            ("last", Layout::ChannelsLast, Ports::Target),
        ] {
            let mut graph = graph.clone();
            convert(&mut graph, layout, ports).map_err(|error| (stage, error.to_string()))?;
            self.check(&graph).map_err(|message| (stage, message))?;
        }
        Ok(())
    }

    /// All that can't be converted must be named.
    fn check_refusal(&self, read: modelport_ir::Result<Graph>, ops: &[&str]) -> Result<(), String> {
        let text = match read.and_then(|graph| validate(&graph)) {
            Ok(()) => return Err("was converted".to_owned()),
            Err(error) => error.to_string(),
        };
        match ops.iter().find(|op| !text.contains(**op)) {
            Some(op) => Err(format!("does not name {op}: {text}")),
            None => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Array, String> {
    let open = || File::open(path).map_err(|error| format!("{}: {error}", path.display()));
    if let Ok(a) = ArrayD::<f32>::read_npy(open()?) {
        return Ok(Array::Float(a.mapv(f64::from), DType::Float32));
    }
    if let Ok(a) = ArrayD::<i32>::read_npy(open()?) {
        return Ok(Array::Int(a.mapv(i64::from), DType::Int32));
    }
    if let Ok(a) = ArrayD::<f64>::read_npy(open()?) {
        return Ok(Array::Float(a, DType::Float64));
    }
    if let Ok(a) = ArrayD::<i64>::read_npy(open()?) {
        return Ok(Array::Int(a, DType::Int64));
    }
    if let Ok(a) = ArrayD::<u8>::read_npy(open()?) {
        return Ok(Array::Int(a.mapv(i64::from), DType::UInt8));
    }
    ArrayD::<bool>::read_npy(open()?).map(Array::Bool).map_err(|error| format!("{}: {error}", path.display()))
}

fn transposed(array: Array, permutation: Option<&[usize]>) -> Array {
    match (array, permutation) {
        (array, None) => array,
        (Array::Float(a, dtype), Some(axes)) => Array::Float(a.permuted_axes(axes), dtype),
        (Array::Int(a, dtype), Some(axes)) => Array::Int(a.permuted_axes(axes), dtype),
        (Array::Bool(a), Some(axes)) => Array::Bool(a.permuted_axes(axes)),
    }
}

/// Element by element, shapes and types to the letter; whole numbers and truth values exactly.
fn compare(got: &Array, want: &Array) -> Result<(), String> {
    if got.shape() != want.shape() {
        return Err(format!("has shape {:?}, expected {:?}", got.shape(), want.shape()));
    }
    if got.dtype() != want.dtype() {
        return Err(format!("has type {}, expected {}", got.dtype(), want.dtype()));
    }
    let (a, b) = (got.to_f64(), want.to_f64());
    let largest = b.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    let limit = if want.dtype().is_float() { TOLERANCE * largest } else { 0.0 };
    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).enumerate().max_by(|x, y| x.1.total_cmp(&y.1));
    match worst {
        Some((i, difference)) if !(difference <= limit) => {
            Err(format!("differs by {difference:.2e}, allowed are {limit:.2e}: {} and not {} at {i}", a[i], b[i]))
        }
        _ => Ok(()),
    }
}

/// Runs all cases and tells of all that fail.
fn run(cases: &[Case]) {
    let (mut failures, mut later) = (Vec::new(), Vec::new());
    for case in cases {
        if let Err((stage, message)) = case.run() {
            if case.facts["tier"].as_u64().unwrap_or(1) > 1 {
                later.push(case.name.as_str());
            } else {
                failures.push(format!("{:9} {:40} {}", stage, case.name, message.replace('\n', "\n          ")));
            }
        }
    }
    let summary = format!("{} of {} cases fail; of later stages: {}", failures.len(), cases.len(), later.join(", "));
    assert!(failures.is_empty(), "{}\n{summary}", failures.join("\n"));
    println!("{summary}");
}

#[test]
fn operators() {
    run(&Case::of(
        children(&fixtures().join("ops")).into_iter().filter(|path| path.is_dir()).flat_map(|path| children(&path)),
    ));
}

#[test]
fn networks() {
    run(&Case::of(children(&fixtures().join("networks")).into_iter()));
}
