//! All fixtures: graphs and checkpoints that TensorFlow wrote are read, and evaluated to what TensorFlow computed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use modelport_frontends::Source;
use modelport_frontends::tensorflow;
use modelport_ir::eval::{Array, evaluate};
use modelport_ir::validate::validate;
use modelport_ir::{DType, Graph};
use ndarray::ArrayD;
use ndarray_npy::read_npy;
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn cases(family: &Path) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs::read_dir(family)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("case.json").is_file())
        .collect();
    cases.sort();
    cases
}

fn source(folder: &Path, case: &Value) -> Source {
    let path = |key: &str| case[key].as_str().map(|name| folder.join(name));
    let mut source = Source {
        network: path("network"),
        weights: path("weights"),
        outputs: case["outputs"].as_array().unwrap().iter().map(|o| o.as_str().unwrap().to_owned()).collect(),
        ..Source::default()
    };
    let arguments: Vec<&str> = case["arguments"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut arguments = arguments.iter().peekable();
    while let Some(&argument) = arguments.next() {
        match argument {
            "--ema" => source.moving_averages = true,
            "--inNodeName" => source.inputs.push((*arguments.next().unwrap()).to_owned()),
            "--inputShape" => {
                let shape = arguments.next().unwrap();
                source.input_shapes.push(shape.split(',').map(|n| n.parse().unwrap()).collect());
            }
            other => panic!("argument {other}"),
        }
    }
    source
}

fn read(path: &Path, dtype: DType) -> Array {
    match dtype {
        DType::Float32 => {
            let array: ArrayD<f32> = read_npy(path).unwrap();
            Array::Float(array.mapv(f64::from), DType::Float32)
        }
        DType::Int32 => Array::Int(read_npy::<_, ArrayD<i32>>(path).unwrap().mapv(i64::from), DType::Int32),
        DType::Int64 => Array::Int(read_npy::<_, ArrayD<i64>>(path).unwrap(), DType::Int64),
        DType::Bool => Array::Bool(read_npy::<_, ArrayD<bool>>(path).unwrap()),
        other => panic!("{other}"),
    }
}

fn dtype(name: &str) -> DType {
    DType::ALL.into_iter().find(|dtype| dtype.name() == name).unwrap()
}

/// What is wrong with a case; whether its numbers were compared.
fn check(folder: &Path) -> Result<bool, String> {
    let case: Value = serde_json::from_str(&fs::read_to_string(folder.join("case.json")).unwrap()).unwrap();
    let source = source(folder, &case);
    if let Some(frozen) = case["frozen"].as_str() {
        // A frozen graph may come as the network or as the weights.
        let path = Some(folder.join(frozen));
        for (network, weights) in [(path.clone(), None), (None, path)] {
            let source = Source { network, weights, ..source.clone() };
            compare(folder, &case, tensorflow::read(&source)).map_err(|error| format!("frozen: {error}"))?;
        }
    }
    compare(folder, &case, tensorflow::read(&source))
}

fn compare(folder: &Path, case: &Value, result: modelport_ir::Result<Graph>) -> Result<bool, String> {
    if let Some(unsupported) = case["unsupported"].as_array() {
        let Err(error) = result else { return Err("is read, and should be an error".to_owned()) };
        let text = error.to_string();
        let named = |op: &&Value| !text.contains(&format!("[{}]", op.as_str().unwrap()));
        let missing: Vec<&Value> = unsupported.iter().filter(named).collect();
        return if missing.is_empty() { Ok(false) } else { Err(format!("{missing:?} are not in the error: {text}")) };
    }
    let graph = result.map_err(|error| error.to_string())?;
    if !graph.outputs.iter().map(|port| port.name.as_str()).eq(case["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o.as_str().unwrap()))
    {
        return Err(format!("has the outputs {:?}", graph.outputs));
    }
    validate(&graph).map_err(|error| format!("is not valid: {error}"))?;
    let specs = case["inputs"].as_array().unwrap();
    let mut inputs = Vec::new();
    for port in &graph.inputs {
        let Some(place) = specs.iter().position(|spec| spec["name"] == port.name.as_str()) else {
            return Err(format!("asks for an input '{}'", port.name));
        };
        let file = folder.join(format!("input_{place}.npy"));
        if !file.is_file() {
            return Ok(false); // Made from a seed: only read.
        }
        inputs.push(read(&file, dtype(specs[place]["dtype"].as_str().unwrap())));
    }
    let outputs = evaluate(&graph, &inputs).map_err(|error| format!("is not evaluated: {error}"))?;
    for (i, (output, port)) in outputs.iter().zip(&graph.outputs).enumerate() {
        let expected = read(&folder.join(format!("expected_b3_{i}.npy")), graph.info(port.value).dtype);
        if output.shape() != expected.shape() {
            return Err(format!("output {i} has shape {:?}, expected {:?}", output.shape(), expected.shape()));
        }
        let (ours, theirs) = (output.to_f64(), expected.to_f64());
        let largest = theirs.iter().fold(0f64, |m, x| m.max(x.abs()));
        let worst = ours.iter().zip(&theirs).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
        if worst > 1e-5 * largest || worst.is_nan() {
            return Err(format!("output {i} differs by {worst:e}, largest {largest:e}"));
        }
    }
    Ok(true)
}

fn check_all(family: &str) {
    let wanted = std::env::var("CASE").ok();
    let mut failed = Vec::new();
    let (mut count, mut compared, mut later) = (0, 0, 0);
    for folder in cases(&fixtures().join(family)) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if wanted.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        count += 1;
        let case = fs::read_to_string(folder.join("case.json")).unwrap();
        match check(&folder) {
            Ok(numbers) => compared += usize::from(numbers),
            // Cases of the second tier may fail until a later stage.
            Err(error) if case.contains("\"tier\": 2") => {
                later += 1;
                println!("later {family}/{name}: {error}");
            }
            Err(error) => failed.push(format!("{family}/{name}: {error}")),
        }
    }
    println!("{family}: {count} cases, {compared} compared, {} failed, {later} later", failed.len());
    assert!(failed.is_empty(), "{} of {count} failed\n{}", failed.len(), failed.join("\n"));
}

macro_rules! families {
    ($($name:ident $path:literal)*) => {
        $(#[test] fn $name() { check_all($path); })*
    };
}

families! {
    activation "ops/activation"
    conv "ops/conv"
    conv_transpose "ops/conv_transpose"
    dense "ops/dense"
    dropout "ops/dropout"
    elementwise "ops/elementwise"
    functional "ops/functional"
    indexing "ops/indexing"
    layout "ops/layout"
    norm "ops/norm"
    pool "ops/pool"
    recurrent "ops/recurrent"
    reduce "ops/reduce"
    resize "ops/resize"
    shape "ops/shape"
    structure "ops/structure"
    training "ops/training"
    unsupported "ops/unsupported"
    networks "networks"
}
