//! What a command has read and made, for people and as JSON.

use std::path::{Path, PathBuf};

use modelport_ir::{Dim, Graph, Layout, Op, Port, Shape};
use serde_json::{Value, json};

use crate::output::is_identifier;
use crate::ui::bold;

/// An input or output of a network.
pub struct PortFact {
    name: String,
    dtype: &'static str,
    shape: Shape,
    permutation: Option<Vec<usize>>,
}

impl PortFact {
    fn of(graph: &Graph, port: &Port) -> PortFact {
        let info = graph.info(port.value);
        PortFact {
            name: port.name.clone(),
            dtype: info.dtype.name(),
            shape: info.shape.clone(),
            permutation: port.permutation.clone(),
        }
    }

    /// The names of the axes in the converted network and in the source, where they differ as layouts do.
    fn layouts(&self) -> Option<(String, String)> {
        let rank = self.shape.rank();
        let permutation = self.permutation.as_ref()?;
        let order = |layout: Layout| {
            let spatial = match rank {
                3 => "W",
                4 => "HW",
                5 => "DHW",
                _ => return None,
            };
            Some(match layout {
                Layout::ChannelsFirst => format!("NC{spatial}"),
                Layout::ChannelsLast => format!("N{spatial}C"),
            })
        };
        let is = |from: Layout, to: Layout| *permutation == from.permutation_to(to, rank);
        match (Layout::ChannelsFirst, Layout::ChannelsLast) {
            (first, last) if is(last, first) => Some((order(first)?, order(last)?)),
            (first, last) if is(first, last) => Some((order(last)?, order(first)?)),
            _ => None,
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "shape": shape_json(&self.shape),
            "dtype": self.dtype,
            "layout": self.layouts().map(|(target, _)| target),
            "source_permutation": self.permutation,
        })
    }

    fn text(&self) -> String {
        let layouts = match (self.layouts(), &self.permutation) {
            (Some((target, source)), _) => format!(", {target} (the source's is {source})"),
            (None, Some(permutation)) => format!(", the source's axes in the order {permutation:?}"),
            (None, None) => String::new(),
        };
        format!("{}  {} {}{layouts}", bold(&self.name), self.dtype, self.shape)
    }
}

/// Sizes as integers, free ones as their names.
pub fn shape_json(shape: &Shape) -> Value {
    let size = |dim: &Dim| dim.known().map_or_else(|| json!(dim.to_string()), |size| json!(size));
    shape.iter().map(size).collect()
}

/// What a network is like.
pub struct Network {
    pub inputs: Vec<PortFact>,
    pub outputs: Vec<PortFact>,
    pub operators: usize,
    pub tensors: usize,
}

impl Network {
    pub fn of(graph: &Graph) -> Network {
        let ids = graph.ids();
        let tensors = ids.iter().filter(|id| matches!(graph.op(**id), Op::Constant(_))).count();
        Network {
            inputs: graph.inputs.iter().map(|port| PortFact::of(graph, port)).collect(),
            outputs: graph.outputs.iter().map(|port| PortFact::of(graph, port)).collect(),
            operators: ids.len() - tensors - graph.inputs.len(),
            tensors,
        }
    }
}

/// What a command has done.
#[derive(Default)]
pub struct Report {
    pub command: &'static str,
    pub framework: &'static str,
    pub sources: Vec<PathBuf>,
    /// What a network without a graph was recognised as, and why.
    pub recognised: Option<String>,
    pub network: Option<Network>,
    pub parameters: usize,
    pub files: Vec<PathBuf>,
    pub code_lines: Option<usize>,
    /// The code and the weights to load.
    pub load: Option<(PathBuf, PathBuf)>,
    /// The weights are a whole module.
    pub whole_module: bool,
    pub seconds: f64,
}

impl Report {
    pub fn json(&self) -> Value {
        let ports = |ports: fn(&Network) -> &Vec<PortFact>| -> Option<Vec<Value>> {
            self.network.as_ref().map(|network| ports(network).iter().map(PortFact::json).collect())
        };
        let files = self.files.iter().map(|path| json!({"path": path.to_string_lossy(), "bytes": size(path)}));
        json!({
            "command": self.command,
            "source": {
                "framework": self.framework,
                "files": self.sources.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
                "recognised": self.recognised,
                "operators": self.network.as_ref().map(|network| network.operators),
                "tensors": self.network.as_ref().map(|network| network.tensors),
            },
            "inputs": ports(|network| &network.inputs),
            "outputs": ports(|network| &network.outputs),
            "parameters": self.parameters,
            "files": files.collect::<Vec<_>>(),
            "code_lines": self.code_lines,
            "seconds": (self.seconds * 1000.0).round() / 1000.0,
        })
    }

    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        let sources: Vec<String> = self.sources.iter().map(|path| path.display().to_string()).collect();
        lines.push(("read", format!("{} ({})", sources.join(", "), self.framework)));
        lines.extend(self.recognised.iter().map(|text| ("", format!("recognised as {text}"))));
        if let Some(network) = &self.network {
            lines.push((
                "",
                format!("{} operators, {} tensors", thousands(network.operators), thousands(network.tensors)),
            ));
            lines.extend(label("input", network.inputs.iter().map(PortFact::text)));
            lines.extend(label("output", network.outputs.iter().map(PortFact::text)));
        }
        let files = self.files.iter().map(|path| {
            let is_code = path.extension().is_some_and(|extension| extension == "py");
            let lines = self.code_lines.filter(|_| is_code).map(|lines| format!(", {lines} lines")).unwrap_or_default();
            format!("{}  {}{lines}", bold(&path.display().to_string()), bytes(size(path)))
        });
        lines.extend(label("wrote", files));
        lines.push(("", format!("{} parameters, in {:.2} s", thousands(self.parameters), self.seconds)));
        let mut text: String = lines.iter().map(|(label, line)| format!("{label:<8}{line}\n")).collect();
        if let Some((code, weights)) = &self.load {
            text.push_str(&self.how_to_load(code, weights));
        }
        text
    }

    /// Two lines of Python.
    fn how_to_load(&self, code: &Path, weights: &Path) -> String {
        let file = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (weights, module) = (file(weights), code.file_stem().unwrap_or_default().to_string_lossy());
        let lines = if self.whole_module {
            ["import torch".to_owned(), format!("model = torch.load({weights:?}, weights_only=False)")]
        } else if is_identifier(&module) {
            [format!("from {module} import load"), format!("model = load({weights:?})")]
        } else {
            let import = format!("model = importlib.import_module({module:?}).load({weights:?})");
            ["import importlib".to_owned(), import]
        };
        format!("\n    {}\n    {}\n", lines[0], lines[1])
    }
}

/// Lines of which only the first has the label.
fn label(label: &'static str, lines: impl Iterator<Item = String>) -> impl Iterator<Item = (&'static str, String)> {
    std::iter::once(label).chain(std::iter::repeat("")).zip(lines)
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// A number with its thousands apart.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in the unit that suits it.
pub fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        b if b < 1e3 => format!("{bytes} bytes"),
        b if b < 1e6 => format!("{:.1} kB", b / 1e3),
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.2} GB", b / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            (thousands(0), thousands(999), thousands(1_234_567)),
            ("0".into(), "999".into(), "1,234,567".into())
        );
        assert_eq!((bytes(12), bytes(108_000_000)), ("12 bytes".into(), "108.0 MB".into()));
    }

    #[test]
    fn layouts_are_named() {
        let fact = |permutation: Option<Vec<usize>>, rank: usize| PortFact {
            name: "x".to_owned(),
            dtype: "float32",
            shape: Shape(vec![Dim::symbol("N"); rank]),
            permutation,
        };
        let names = |target: &str, source: &str| Some((target.to_owned(), source.to_owned()));
        assert_eq!(fact(Some(vec![0, 3, 1, 2]), 4).layouts(), names("NCHW", "NHWC"));
        assert_eq!(fact(Some(vec![0, 2, 1]), 3).layouts(), names("NCW", "NWC"));
        assert_eq!(fact(Some(vec![0, 2, 3, 4, 1]), 5).layouts(), names("NDHWC", "NCDHW"));
        assert_eq!(fact(Some(vec![1, 0, 2, 3]), 4).layouts(), None);
        assert_eq!(fact(None, 4).layouts(), None);
    }
}
