//! Which architecture a state dict is of.
//!
//! Every family tries to build its tree from the keys and shapes. Exactly one must fit: no key missing, none left over.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use modelport_ir::{DType, Graph, Problem, Result};

use super::super::{EXPORT, StateDict};
use super::build::{At, Attempt};
use super::*;

/// What `--arch` and `--arch-arg` say.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// The family, or one of its networks.
    pub arch: Option<String>,
    /// What shapes do not tell, by name.
    pub args: BTreeMap<String, String>,
}

/// A network that a family makes of a state dict.
pub struct Candidate {
    name: String,
    details: String,
    tree: ModuleTree,
    input: Vec<usize>,
}

impl Candidate {
    /// A network with its name, what it is like, and its modules. It takes images of 224 by 224.
    pub fn new(name: impl Into<String>, details: impl Into<String>, tree: ModuleTree) -> Self {
        Candidate { name: name.into(), details: details.into(), tree, input: vec![3, 224, 224] }
    }

    /// Images of this size.
    #[must_use]
    pub fn image(mut self, size: usize) -> Self {
        self.input = vec![3, size, size];
        self
    }
}

/// A family of architectures.
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// The names of its networks, where the family's own is no start of them.
    pub members: &'static [&'static str],
    /// What `--arch-arg` can say, in words.
    pub arguments: &'static str,
    build: fn(&At) -> Candidate,
}

const STEM: &str = "stem_stride=1 stem_pool=false";
const STRIDES: &str = "replace_stride_with_dilation=0,1,1 stem_stride=1 stem_pool=false";

macro_rules! families {
    ($($name:literal $members:expr, $arguments:expr, $build:expr;)*) => {
        /// All families that can be recognised.
        pub const FAMILIES: &[Family] = &[
            $(Family { name: $name, members: &$members, arguments: $arguments, build: $build }),*
        ];
    };
}

families! {
    "alexnet" [], "dropout=0.5", alexnet::build;
    "vgg" [], "dropout=0.5", vgg::build;
    "resnet" ["resnext", "wide_resnet"], STRIDES, resnet::build;
    "squeezenet" [], "dropout=0.5", squeezenet::build;
    "densenet" [], STEM, densenet::build;
    "googlenet" [], "transform_input=true dropout=0.2", googlenet::build;
    "inception_v3" [], "transform_input=true dropout=0.5", inception::build;
    "mobilenet_v2" [], "dropout=0.2", mobilenetv2::build;
    "mobilenet_v3" [], "dropout=0.2", mobilenetv3::build;
    "shufflenet_v2" [], "", shufflenetv2::build;
    "mnasnet" [], "dropout=0.2", mnasnet::build;
    "efficientnet" [], "dropout=0.2", efficientnet::build;
    "regnet" [], "", regnet::build;
    "convnext" [], "", convnext::build;
    "vit" [], "num_heads=12", vision_transformer::build;
    "swin" [], "", swin::build;
    "maxvit" [], "", maxvit::build;
    "fcn" [], STRIDES, segmentation::fcn;
    "deeplabv3" [], STRIDES, segmentation::deeplabv3;
    "lraspp" [], "", segmentation::lraspp;
}

/// Numbers with commas between them; `true` is 1.
pub fn numbers(text: &str) -> Vec<usize> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(|word| word.parse().unwrap_or(usize::from(word.eq_ignore_ascii_case("true")))).collect()
}

struct Fit {
    family: &'static Family,
    candidate: Candidate,
    missing: Vec<String>,
    surplus: Vec<String>,
    known: usize,
    asked: BTreeSet<String>,
    doubts: Vec<String>,
}

fn fit(family: &'static Family, state: &StateDict, arguments: &Arguments) -> Fit {
    let (taken, missing, asked) = (RefCell::default(), RefCell::default(), RefCell::default());
    let doubts = RefCell::default();
    let attempt = Attempt { tensors: &state.tensors, args: &arguments.args, taken, missing, asked, doubts };
    let candidate = (family.build)(&At::root(&attempt));
    let taken = attempt.taken.into_inner();
    let surplus = state.tensors.keys().filter(|key| !taken.contains(*key)).cloned().collect();
    let missing = attempt.missing.into_inner().into_iter().collect();
    let (asked, doubts) = (attempt.asked.into_inner(), attempt.doubts.into_inner());
    Fit { family, candidate, missing, surplus, known: taken.len(), asked, doubts }
}

/// The graph of a state dict, by its architecture; and what was recognised, in words.
///
/// # Errors
/// When no architecture fits, or several do: the nearest, and what differs.
pub fn recognise(state: &StateDict, arguments: &Arguments, name: &str, shapes: &[Vec<i64>]) -> Result<Graph> {
    let families: Vec<&'static Family> = match &arguments.arch {
        Some(arch) => vec![named(arch)?],
        None => FAMILIES.iter().collect(),
    };
    let state = &of_one_type(renamed(state));
    let mut fits: Vec<Fit> = families.into_iter().map(|family| fit(family, state, arguments)).collect();
    fits.sort_by_key(|fit| (fit.missing.len() + fit.surplus.len(), std::cmp::Reverse(fit.known)));
    let exact = fits.iter().filter(|fit| fit.missing.is_empty() && fit.surplus.is_empty()).count();
    let fit = match (exact, fits.into_iter().next()) {
        (1, Some(fit)) => fit,
        (0, Some(nearest)) => return Err(none_fits(state, &nearest).into()),
        _ => {
            let message = "has weights that several architectures have".to_owned();
            return Err(Problem::new(message).file(&state.path).hint("Say which: --arch NAME").into());
        }
    };
    if let Some(unknown) = arguments.args.keys().find(|arg| !fit.asked.contains(*arg)) {
        let message = format!("{} has no argument '{unknown}'", fit.family.name);
        let hint = match fit.asked.is_empty() {
            true => "It has none.".to_owned(),
            false => format!("It has: {}", fit.asked.iter().cloned().collect::<Vec<_>>().join(", ")),
        };
        return Err(Problem::new(message).hint(hint).into());
    }
    if let Some(doubt) = fit.doubts.first() {
        let message = format!("has the keys of {}, but {doubt}", fit.candidate.name);
        return Err(Problem::new(message).file(&state.path).hint(other_ways()).into());
    }
    let Candidate { name: arch, details, tree, input } = fit.candidate;
    let why = format!("all {} keys and their shapes are those of {arch} ({details})", state.tensors.len());
    let source = format!("PyTorch state dict, recognised as {arch}: {why}");
    let entries = state.tensors.iter().chain(&state.counters).map(|(key, tensor)| (key.clone(), tensor.clone()));
    let lowered = super::lower(&tree, entries.collect(), (name, &source), shapes, Some(&input));
    lowered.map_err(|mut error| {
        let hint = format!("Its keys are those of {arch}. {}", other_ways());
        for problem in &mut error.problems {
            problem.hint.get_or_insert_with(|| hint.clone());
        }
        error.in_file(&state.path)
    })
}

/// Weights of several types of real numbers are all float32, as PyTorch makes them where they are loaded.
fn of_one_type(mut state: StateDict) -> StateDict {
    if super::element_type(state.tensors.values()).is_none() {
        for tensor in state.tensors.values_mut().filter(|tensor| tensor.dtype().is_float()) {
            *tensor = tensor.cast(DType::Float32);
        }
    }
    state
}

fn named(arch: &str) -> Result<&'static Family> {
    let plain = arch.to_ascii_lowercase();
    let fits = |family: &&Family| {
        plain.starts_with(family.name) || family.members.iter().any(|member| plain.starts_with(member))
    };
    FAMILIES.iter().rev().find(fits).ok_or_else(|| {
        let names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        Problem::new(format!("there is no architecture '{arch}'"))
            .hint(format!("Known are {}", names.join(", ")))
            .into()
    })
}

/// Old names of keys become those of today, where torchvision does it: `denselayer1.norm.1` is `denselayer1.norm1`.
fn renamed(state: &StateDict) -> StateDict {
    let mut state = state.clone();
    let name = |key: String| match key.split_once(".denselayer") {
        Some(_) => ["norm", "relu", "conv"].iter().fold(key.clone(), |key, part| {
            key.replace(&format!(".{part}.1."), &format!(".{part}1."))
                .replace(&format!(".{part}.2."), &format!(".{part}2."))
        }),
        None => key,
    };
    state.tensors = std::mem::take(&mut state.tensors).into_iter().map(|(key, tensor)| (name(key), tensor)).collect();
    state
}

fn some(keys: &[String]) -> String {
    let shown: Vec<&str> = keys.iter().take(6).map(String::as_str).collect();
    let rest = keys.len() - shown.len();
    if rest > 0 { format!("{} and {rest} more", shown.join(", ")) } else { shown.join(", ") }
}

fn other_ways() -> String {
    format!("A state dict has no graph; one line of Python writes a file that has it: {EXPORT}")
}

fn none_fits(state: &StateDict, nearest: &Fit) -> Problem {
    let total = state.tensors.len();
    let mut message =
        format!("holds {total} weights and no graph ({}), of no architecture that is known", state.origin());
    if nearest.known * 4 >= total {
        let name = &nearest.candidate.name;
        message.push_str(&format!("\n    nearest is {name}, with {} of the keys", nearest.known));
        let lists =
            [("not of it are", &nearest.surplus, &state.tensors), ("missing are", &nearest.missing, &state.tensors)];
        for (label, keys, _) in lists.iter().filter(|(_, keys, _)| !keys.is_empty()) {
            message.push_str(&format!("\n    {label} {}", some(keys)));
        }
    }
    Problem::new(message).file(&state.path).hint(format!(
        "`modelport archs` lists what is known, --arch states one. {}; a TorchScript file or torch.save(model) of known \
         classes will do too",
        other_ways()
    ))
}
