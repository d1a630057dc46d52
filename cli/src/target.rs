//! The frameworks that code can be written for, and the kinds of files that each has.

use std::io::Read;
use std::path::{Path, PathBuf};

use modelport_backends::keras::files::{self, FileFormat};
use modelport_backends::keras::model::Model;
use modelport_backends::plan::Param;
use modelport_backends::weights::{self, Format};
use modelport_backends::{keras, pytorch};
use modelport_ir::atomic::AtomicFile;
use modelport_ir::{Graph, Layout, Problem, Result};

/// A framework that code can be written for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// PyTorch.
    #[default]
    PyTorch,
    /// Keras.
    Keras {
        /// 2 or 3.
        version: u8,
    },
}

/// The kind of a file with weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Weights alone.
    Weights(Format),
    /// A file of Keras, of this version.
    Keras(FileFormat, u8),
}

/// What a target makes of a graph.
#[derive(Default)]
pub struct Generated {
    /// The code.
    pub code: String,
    /// The weights, by the names that they have in the code.
    pub params: Vec<Param>,
    /// The model, for frameworks that have files of such.
    pub model: Option<Model>,
}

/// What the code is to offer beside the network.
pub struct Options {
    /// MMdnn's `KitModel`.
    pub kit_model: bool,
    /// What a pickled whole module needs.
    pub restore: bool,
    /// Whether it only has to be fast.
    pub inference: bool,
    /// Name of the weights file.
    pub weights_file: String,
}

impl Target {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Target::PyTorch => "pytorch",
            Target::Keras { .. } => "keras",
        }
    }

    /// Where it has its channels.
    pub fn layout(self) -> Layout {
        match self {
            Target::PyTorch => Layout::ChannelsFirst,
            Target::Keras { .. } => Layout::ChannelsLast,
        }
    }

    /// What `convert -om NAME` writes where the name does not say it.
    pub fn model_extension(self) -> &'static str {
        match self {
            Target::PyTorch => "pth",
            Target::Keras { version: 2 } => "h5",
            Target::Keras { .. } => "keras",
        }
    }

    /// What `to-code` writes the weights to where nothing says it.
    pub fn weights_extension(self) -> &'static str {
        match self {
            Target::PyTorch => "npy",
            Target::Keras { version: 2 } => "h5",
            Target::Keras { .. } => "weights.h5",
        }
    }

    /// The kind of a file of this name.
    ///
    /// # Errors
    /// When the framework has no such files.
    pub fn kind(self, path: &Path) -> Result<Kind> {
        let Target::Keras { version } = self else {
            return Format::of(path).map(Kind::Weights);
        };
        if let (2, Some(format @ (FileFormat::Keras | FileFormat::Weights))) = (version, FileFormat::of(path)) {
            let problem = Problem::new("is a file of Keras 3").file(path);
            return Err(problem
                .hint(match format {
                    FileFormat::Keras => "Keras 2 takes .h5; --keras-version 3 is the default",
                    _ => "Keras 2 takes .h5 (its .weights.h5 differ from version to version)",
                })
                .into());
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(format) = FileFormat::of(path) {
            return Ok(Kind::Keras(format, version));
        }
        match Format::from_extension(&extension) {
            Some(format @ (Format::Safetensors | Format::Npy)) => Ok(Kind::Weights(format)),
            _ => {
                let problem = Problem::new(format!("a Keras network can't be .{extension}")).file(path);
                Err(problem.hint("expected one of .keras, .h5, .weights.h5, .safetensors, .npy").into())
            }
        }
    }

    /// Code and weights of a graph in this target's layout.
    ///
    /// # Errors
    /// Every node that the framework cannot say.
    pub fn generate(self, graph: &Graph, options: Options) -> Result<Generated> {
        let Options { kit_model, restore, inference, weights_file } = options;
        match self {
            Target::PyTorch => {
                let options = pytorch::Options { kit_model, restore, inference, weights_file };
                let pytorch::Generated { code, params } = pytorch::generate(graph, &options)?;
                Ok(Generated { code, params, model: None })
            }
            Target::Keras { version } => {
                let options = keras::Options { kit_model, weights_file, version };
                let keras::Generated { code, params, model } = keras::generate(graph, &options)?;
                Ok(Generated { code, params, model: Some(model) })
            }
        }
    }
}

/// The name of a file without what says its kind: `a/net` for `a/net.weights.h5`.
pub fn stem(path: &Path) -> PathBuf {
    let stem = path.with_extension("");
    if FileFormat::of(path) == Some(FileFormat::Weights) { stem.with_extension("") } else { stem }
}

/// Writes weights, or a whole model, to a file that the caller commits.
///
/// # Errors
/// When a tensor can't be read, the file can't be written, or its format can't say what is in the model.
pub fn write(file: &mut AtomicFile, kind: Kind, generated: &Generated, options: weights::Options) -> Result<()> {
    match (kind, &generated.model) {
        (Kind::Weights(format), _) => weights::write_to(file, format, &generated.params, options),
        (Kind::Keras(FileFormat::Weights, _), Some(model)) => {
            keras::read::write_weights(file, model, &generated.code, options.progress)
        }
        (Kind::Keras(format, version), Some(model)) => files::write_to(file, format, version, model, options.progress),
        (Kind::Keras(..), None) => Err(Problem::new("only Keras has such files").file(file.path()).into()),
    }
}

/// The model of generated Keras code and its weights.
///
/// # Errors
/// When the weights do not say what model they are of, or the code is not the one that they were written with.
pub fn read_keras(code: Option<&Path>, weights: &Path) -> Result<Generated> {
    let mut text = String::new();
    if let Some(path) = code {
        let failed = |error: std::io::Error| Problem::new(format!("can't be read: {error}")).file(path);
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(1 << 26).read_to_string(&mut text).map_err(failed)?;
    }
    let model = keras::read::read(weights, code.map(|path| (path, text.as_str())))?;
    Ok(Generated { code: text, params: model.params(), model: Some(model) })
}
