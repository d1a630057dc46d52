//! A whole model, as Keras keeps it in its files: layers in order, how they are called, and their weights.
//!
//! This is what writers of `.keras` and `.h5` take. Configurations are in Keras 3's form (what `get_config` gives); the
//! form of Keras 2 follows from it.

use std::collections::HashSet;

use modelport_ir::{DType, Shape};
use serde_json::{Map, Value, json};

use crate::plan::Param;

/// A functional model.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Layers in the order of `model.layers`, which is also that of their groups in a `.weights.h5`; operations
    /// (`keras.ops`) stand among them. Names are unique.
    pub layers: Vec<Layer>,
    /// Outputs of `InputLayer`s.
    pub inputs: Vec<TensorRef>,
    /// What the model returns.
    pub outputs: Vec<TensorRef>,
}

/// A layer, or an operation of `keras.ops`.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its name; any character but `/`.
    pub name: String,
    /// `Conv2D`, or `Add` for an operation.
    pub class_name: String,
    /// `keras.layers`, or `keras.src.ops.numpy` and the like for operations.
    pub module: String,
    /// What `get_config` gives.
    pub config: Map<String, Value>,
    /// Every time that it is called; several where it is shared. Empty for an `InputLayer`.
    pub calls: Vec<Call>,
    /// Keys are variable names (`kernel`, `bias`, `gamma`, `beta`, `moving_mean`, `moving_variance`), in the order of
    /// `layer.weights`: trainable ones, then the others.
    pub weights: Vec<Param>,
}

impl Layer {
    /// Whether it is an operation: these have no variables, and no place in a `.weights.h5`.
    pub fn is_operation(&self) -> bool {
        self.module != "keras.layers"
    }
}

/// A call of a layer: a node, in Keras' words.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Positional arguments.
    pub args: Vec<Argument>,
    /// Arguments by keyword.
    pub kwargs: Vec<(String, Argument)>,
}

impl Call {
    /// The tensors among the arguments, in order.
    pub fn tensors(&self) -> Vec<&TensorRef> {
        let mut tensors = Vec::new();
        let all = self.args.iter().chain(self.kwargs.iter().map(|(_, argument)| argument));
        all.for_each(|argument| argument.tensors(&mut tensors));
        tensors
    }
}

/// An argument of a call.
#[derive(Clone, Debug)]
pub enum Argument {
    /// What another layer returns.
    Tensor(TensorRef),
    /// A list or tuple (the files make no difference).
    List(Vec<Argument>),
    /// Anything else, as `serialize_keras_object` gives it: numbers, `None`, slices.
    Plain(Value),
}

impl Argument {
    fn tensors<'a>(&'a self, into: &mut Vec<&'a TensorRef>) {
        match self {
            Argument::Tensor(tensor) => into.push(tensor),
            Argument::List(items) => items.iter().for_each(|item| item.tensors(into)),
            Argument::Plain(_) => {}
        }
    }

    /// As in `inbound_nodes` of Keras 3.
    pub fn json(&self, model: &Model) -> Value {
        match self {
            Argument::Tensor(tensor) => json!({
                "class_name": "__keras_tensor__",
                "config": {
                    // Keras wants a shape here, and takes the one of the tensor that is made again.
                    "shape": tensor.shape.as_ref().map_or_else(|| json!([]), batch_shape),
                    "dtype": tensor.dtype.name(),
                    "keras_history": tensor.history(model),
                },
            }),
            Argument::List(items) => items.iter().map(|item| item.json(model)).collect(),
            Argument::Plain(value) => value.clone(),
        }
    }
}

/// A tensor that a call returns.
#[derive(Clone, Debug)]
pub struct TensorRef {
    /// Which layer, by its place in [`Model::layers`].
    pub layer: usize,
    /// Which call of it.
    pub node: usize,
    /// Which of the results.
    pub tensor: usize,
    /// Its shape, where it is known; Keras does not need it to load a model.
    pub shape: Option<Shape>,
    /// Type of its elements.
    pub dtype: DType,
}

impl TensorRef {
    /// `[layer name, node, tensor]`.
    pub fn history(&self, model: &Model) -> Value {
        let name = model.layers.get(self.layer).map_or("", |layer| layer.name.as_str());
        json!([name, self.node, self.tensor])
    }
}

/// A shape as Keras writes it: free sizes are `null`.
pub fn batch_shape(shape: &Shape) -> Value {
    shape.iter().map(|dim| dim.known().map_or(Value::Null, Value::from)).collect()
}

impl Model {
    /// The configuration of the whole model in Keras 3's form: `config.json` of a `.keras` file.
    pub fn config(&self) -> Value {
        let ends = |ends: &[TensorRef]| match ends {
            [one] => one.history(self),
            several => several.iter().map(|end| end.history(self)).collect(),
        };
        json!({
            "module": "keras.src.models.functional",
            "class_name": "Functional",
            "config": {
                "name": self.name,
                "trainable": true,
                "layers": self.layers.iter().map(|layer| self.entry(layer)).collect::<Vec<_>>(),
                "input_layers": ends(&self.inputs),
                "output_layers": ends(&self.outputs),
            },
            "registered_name": "Functional",
            "build_config": {"input_shape": null},
            "compile_config": {},
        })
    }

    /// A layer in the configuration, in Keras 3's form.
    pub fn entry(&self, layer: &Layer) -> Value {
        let nodes = layer.calls.iter().map(|call| {
            let args: Vec<Value> = call.args.iter().map(|argument| argument.json(self)).collect();
            let kwargs: Map<String, Value> =
                call.kwargs.iter().map(|(name, argument)| (name.clone(), argument.json(self))).collect();
            json!({"args": args, "kwargs": kwargs})
        });
        json!({
            "module": layer.module,
            "class_name": layer.class_name,
            "config": layer.config,
            "registered_name": layer.is_operation().then_some(&layer.class_name),
            "name": layer.name,
            "inbound_nodes": nodes.collect::<Vec<_>>(),
        })
    }

    /// All weights, as `layer name/variable`.
    pub fn params(&self) -> Vec<Param> {
        let of = |layer: &Layer| {
            let keyed = |param: &Param| Param { key: format!("{}/{}", layer.name, param.key), ..param.clone() };
            layer.weights.iter().map(keyed).collect::<Vec<_>>()
        };
        self.layers.iter().flat_map(of).collect()
    }

    /// Puts layers in the order in which Keras has them after loading: by their distance from the outputs, the furthest
    /// first, and by a walk from the outputs where that is equal (`keras.src.ops.function.map_graph`). The files of
    /// weights count on it. Layers that no output needs are dropped, except inputs.
    #[must_use]
    pub fn ordered(self) -> Model {
        // Nodes in an order in which each follows what it reads, and layers by when the walk met them.
        let mut met: Vec<usize> = Vec::new();
        let mut is_met = vec![false; self.layers.len()];
        let mut begun: HashSet<(usize, usize)> = HashSet::new();
        let mut nodes: Vec<(usize, usize)> = Vec::new();
        let sources = |(layer, node): (usize, usize)| -> Vec<(usize, usize)> {
            let call = self.layers.get(layer).and_then(|layer| layer.calls.get(node));
            call.map(|call| call.tensors().iter().map(|t| (t.layer, t.node)).collect()).unwrap_or_default()
        };
        for output in &self.outputs {
            let mut stack = vec![((output.layer, output.node), 0)];
            while let Some((node, at)) = stack.pop() {
                if at == 0 {
                    if !begun.insert(node) {
                        continue;
                    }
                    if !std::mem::replace(&mut is_met[node.0], true) {
                        met.push(node.0);
                    }
                }
                match sources(node).get(at) {
                    Some(&source) => {
                        stack.push((node, at + 1));
                        if !begun.contains(&source) {
                            stack.push((source, 0));
                        }
                    }
                    None => nodes.push(node),
                }
            }
        }
        let mut depths = vec![0usize; self.layers.len()];
        let mut node_depths: std::collections::HashMap<(usize, usize), usize> = std::collections::HashMap::new();
        for &node in nodes.iter().rev() {
            let depth = node_depths.get(&node).copied().unwrap_or(0).max(depths[node.0]);
            depths[node.0] = depth;
            node_depths.insert(node, depth);
            for source in sources(node) {
                let known = node_depths.entry(source).or_insert(0);
                *known = (*known).max(depth + 1);
            }
        }
        let mut order: Vec<usize> = Vec::new();
        // Inputs that nothing reads come before the others that have no distance.
        order.extend(self.inputs.iter().map(|input| input.layer).filter(|&layer| !is_met[layer]));
        order.extend(&met);
        order.sort_by_key(|&layer| std::cmp::Reverse(depths[layer]));
        let mut place = vec![usize::MAX; self.layers.len()];
        for (to, &from) in order.iter().enumerate() {
            place[from] = to;
        }
        let mut layers: Vec<Option<Layer>> = self.layers.into_iter().map(Some).collect();
        let mut ordered: Vec<Layer> = order.iter().filter_map(|&from| layers[from].take()).collect();
        for call in ordered.iter_mut().flat_map(|layer| &mut layer.calls) {
            call.args.iter_mut().for_each(|argument| argument.move_to(&place));
            call.kwargs.iter_mut().for_each(|(_, argument)| argument.move_to(&place));
        }
        let moved = |mut ends: Vec<TensorRef>| {
            ends.iter_mut().for_each(|end| end.layer = place[end.layer]);
            ends
        };
        Model { name: self.name, layers: ordered, inputs: moved(self.inputs), outputs: moved(self.outputs) }
    }
}

impl Argument {
    fn move_to(&mut self, place: &[usize]) {
        match self {
            Argument::Tensor(tensor) => tensor.layer = place[tensor.layer],
            Argument::List(items) => items.iter_mut().for_each(|item| item.move_to(place)),
            Argument::Plain(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use modelport_ir::Dim;

    use super::*;

    fn tensor(layer: usize) -> TensorRef {
        let shape = Some(Shape(vec![Dim::symbol("N"), Dim::Known(4)]));
        TensorRef { layer, node: 0, tensor: 0, shape, dtype: DType::Float32 }
    }

    fn layer(name: &str, reads: &[usize]) -> Layer {
        let calls = match reads {
            [] => Vec::new(),
            reads => {
                vec![Call { args: reads.iter().map(|&r| Argument::Tensor(tensor(r))).collect(), kwargs: Vec::new() }]
            }
        };
        Layer {
            name: name.to_owned(),
            class_name: "Dense".to_owned(),
            module: "keras.layers".to_owned(),
            config: Map::new(),
            calls,
            weights: Vec::new(),
        }
    }

    #[test]
    fn layers_are_ordered_by_their_distance_from_the_outputs() {
        let layers = vec![
            layer("unused", &[]),
            layer("x", &[]),
            layer("short", &[1]),
            layer("long1", &[1]),
            layer("long2", &[3]),
            layer("sum", &[2, 4]),
            layer("nowhere", &[1]),
        ];
        let model =
            Model { name: "net".to_owned(), layers, inputs: vec![tensor(1), tensor(0)], outputs: vec![tensor(5)] }
                .ordered();
        let names: Vec<&str> = model.layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, ["x", "long1", "short", "long2", "unused", "sum"]);
        let config = model.config();
        assert_eq!(
            config.pointer("/config/layers/5/inbound_nodes/0/args/0/config/keras_history"),
            Some(&json!(["short", 0, 0]))
        );
        assert_eq!(config.pointer("/config/output_layers"), Some(&json!(["sum", 0, 0])));
    }
}
