//! Architectures: what a class's `forward` does, and how state dicts of known networks become trees of modules.
//!
//! A tree of modules ([`ModuleTree`]) is what `torch.save(model)` writes: classes, attributes, weights, everything but
//! `forward`. [`forward`] has that, by class: the layers of `torch.nn` ([`layers`]) and torchvision's classes, a file per
//! family. A state dict has less, keys and shapes only: each family rebuilds the tree that its keys are of ([`build`]),
//! and [`recognise`] takes the one family whose tree has all keys and no others. Both then run through the same code.

mod build;
mod call;
mod layers;
mod recognise;
mod recurrent;
mod transformer;

mod alexnet;
mod convnext;
mod densenet;
mod efficientnet;
mod googlenet;
mod inception;
mod maxvit;
mod mnasnet;
mod mobilenetv2;
mod mobilenetv3;
mod regnet;
mod resnet;
mod segmentation;
mod shufflenetv2;
mod squeezenet;
mod swin;
mod vgg;
mod vision_transformer;

use std::collections::BTreeSet;

use modelport_ir::{DType, Dim, Error, Graph, Problem, Result, Shape, Tensor};

pub use recognise::{Arguments, FAMILIES, Family, recognise};

use super::EXPORT;
use super::arg::Arg;
use super::lower::Lower;
use super::module::{ModuleTree, Plain};
use call::{Forward, This};

/// Deepest tree of modules that is run.
const MAX_DEPTH: usize = 128;

/// What the module of a class computes; the class by its full name.
fn forward(class: &str) -> Option<Forward> {
    if let Some(name) = class.strip_prefix("torch.nn.") {
        let name = name.rsplit('.').next()?;
        return layers::forward(name).or_else(|| recurrent::forward(name)).or_else(|| transformer::forward(name));
    }
    let name = class.strip_prefix("torchvision.")?;
    let class = name.rsplit('.').next()?;
    match name.rsplit('.').nth(1)? {
        "alexnet" => alexnet::forward(class),
        "vgg" => vgg::forward(class),
        "resnet" => resnet::forward(class),
        "squeezenet" => squeezenet::forward(class),
        "densenet" => densenet::forward(class),
        "googlenet" => googlenet::forward(class),
        "inception" => inception::forward(class),
        "mobilenet" | "mobilenetv2" => mobilenetv2::forward(class),
        "mobilenetv3" => mobilenetv3::forward(class),
        "shufflenetv2" => shufflenetv2::forward(class),
        "mnasnet" => mnasnet::forward(class),
        "efficientnet" => efficientnet::forward(class),
        "regnet" => regnet::forward(class),
        "convnext" => convnext::forward(class),
        "vision_transformer" => vision_transformer::forward(class),
        "swin_transformer" => swin::forward(class),
        "maxvit" => maxvit::forward(class),
        "misc" | "stochastic_depth" => layers::torchvision(class),
        "_utils" | "fcn" | "deeplabv3" | "lraspp" => segmentation::forward(class),
        _ => None,
    }
}

/// The graph of a network that is given as a tree of modules, with all that its state dict has. `default` is its input's
/// shape without the batch, for when `shapes` has none.
///
/// # Errors
/// All classes that are not known; what the operators can't take.
pub fn lower(
    tree: &ModuleTree,
    entries: Vec<(String, Tensor)>,
    names: (&str, &str),
    shapes: &[Vec<i64>],
    default: Option<&[usize]>,
) -> Result<Graph> {
    check_classes(tree)?;
    let mut net = Lower::new(names.0, names.1);
    let real = element_type(entries.iter().map(|(_, tensor)| tensor)).unwrap_or(DType::Float32);
    net.entries(entries);
    net.root(tree.class_name());
    let shape = input_shape(tree, shapes, default)?;
    let embeds = first_layer(tree).is_some_and(|layer| layer.class_name().starts_with("Embedding"));
    let x = net.input("x", if embeds { DType::Int64 } else { real }, shape)?;
    let result = This::root(tree).run(&mut net, &[x])?;
    output(&mut net, "output", &result)?;
    net.finish()
}

/// The type of real numbers that a network computes in: that of its weights, if it is one.
fn element_type<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Option<DType> {
    let mut types = tensors.map(Tensor::dtype).filter(|dtype| dtype.is_float());
    let first = types.next()?;
    types.all(|dtype| dtype == first).then_some(first)
}

/// Every tensor in a result is an output; a pair of a name and a tensor is one of a dictionary.
fn output(net: &mut Lower, name: &str, result: &Arg) -> Result<()> {
    match result {
        Arg::List(list) if matches!(list.as_slice(), [Arg::Str(_), _]) => match list.as_slice() {
            [Arg::Str(name), value] => output(net, name, value),
            _ => Ok(()),
        },
        Arg::List(list) => {
            list.iter().enumerate().try_for_each(|(index, item)| output(net, &format!("{name}_{index}"), item))
        }
        Arg::None => Ok(()),
        tensor => net.output(name, tensor),
    }
}

fn input_shape(tree: &ModuleTree, shapes: &[Vec<i64>], default: Option<&[usize]>) -> Result<Shape> {
    let free = |axis: usize| if axis == 0 { Dim::symbol("N") } else { Dim::symbol(&format!("D{axis}")) };
    let dim = |(axis, &size): (usize, &i64)| usize::try_from(size).map_or_else(|_| free(axis), Dim::Known);
    let rank = first_layer(tree).and_then(rank_of);
    if let Some(given) = shapes.first() {
        let expected = default.map(|shape| shape.len() + 1).or(rank);
        let without_batch = expected.map_or(given.len() % 2 == 1, |rank| given.len() + 1 == rank);
        let mut sizes = given.clone();
        if without_batch {
            sizes.insert(0, -1);
        }
        return Ok(sizes.iter().enumerate().map(dim).collect());
    }
    let known = default.map(<[usize]>::to_vec).or_else(|| match first_layer(tree) {
        Some(layer) if layer.class_name() == "Linear" => {
            let shape = layer.parameters.get("weight")?.as_ref()?.shape();
            shape.get(1).map(|&size| vec![size])
        }
        _ => None,
    });
    match known {
        Some(sizes) => Ok(std::iter::once(free(0)).chain(sizes.into_iter().map(Dim::Known)).collect()),
        None => {
            let problem = Problem::new("does not tell the shape of its input");
            Err(problem.hint("Give it, without the batch: --inputShape 3,224,224").into())
        }
    }
}

/// The layer that sees the input, where that is plain.
fn first_layer(tree: &ModuleTree) -> Option<&ModuleTree> {
    let mut tree = tree;
    for _ in 0..MAX_DEPTH {
        match tree.children.values().flatten().next() {
            Some(child) => tree = child,
            None => return Some(tree),
        }
    }
    None
}

fn rank_of(layer: &ModuleTree) -> Option<usize> {
    let name = layer.class_name();
    match name.chars().rev().find(char::is_ascii_digit).filter(|_| name.ends_with('d')) {
        Some('1') => Some(3),
        Some('2') => Some(4),
        Some('3') => Some(5),
        _ if name == "Linear" || name == "Embedding" => Some(2),
        _ if ["LSTM", "GRU", "RNN"].contains(&name) => Some(3),
        _ => None,
    }
}

/// The input's shape of torchvision's networks, without the batch.
pub fn default_input(tree: &ModuleTree) -> Option<Vec<usize>> {
    let image = |size: usize| Some(vec![3, size, size]);
    let within = tree.class.strip_prefix("torchvision.models.")?;
    match (within, tree.class_name()) {
        (_, "Inception3") => image(299),
        (_, "VisionTransformer") => match tree.attributes.get("image_size") {
            Some(&Plain::Int(size)) => image(usize::try_from(size).ok()?),
            _ => image(224),
        },
        (_, "MaxVit") => match grid_of_max_vit(tree) {
            // The stem and the first block have halved the image.
            Some(grid) => image(grid.checked_mul(4)?),
            None => image(224),
        },
        (name, _) if name.starts_with("segmentation") => image(520),
        _ => image(224),
    }
}

/// How many places the maps of the first block are wide.
fn grid_of_max_vit(tree: &ModuleTree) -> Option<usize> {
    let blocks = tree.children.get("blocks")?.as_deref()?;
    match blocks.children.values().next()?.as_deref()?.attributes.get("grid_size")? {
        Plain::Tuple(sizes) => match sizes.first()? {
            &Plain::Int(size) => usize::try_from(size).ok(),
            _ => None,
        },
        _ => None,
    }
}

/// Fails with all classes in the tree whose `forward` is not known.
fn check_classes(tree: &ModuleTree) -> Result<()> {
    let mut unknown = BTreeSet::new();
    let mut stack = vec![(tree, 0)];
    while let Some((tree, depth)) = stack.pop() {
        if depth > MAX_DEPTH {
            return Err(Error::new(format!("has modules in modules, more than {MAX_DEPTH} deep")));
        }
        if forward(&tree.class).is_none() {
            unknown.insert(tree.class.clone());
            continue;
        }
        stack.extend(tree.children.values().flatten().map(|child| (&**child, depth + 1)));
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = unknown.into_iter().collect();
    let message = format!("has modules whose forward() is not known: {}", names.join(", "));
    let hint = format!("A pickle has no forward(). One line of Python writes a file that has it: {EXPORT}");
    Err(Problem::new(message).hint(hint).into())
}
