//! Files of weights: PyTorch's archives, safetensors and NumPy dictionaries.
//!
//! Writing streams: every tensor passes through once, in the order of the file, so that memory does not grow with the
//! network. Equal weights give equal bytes. (Frontends read these files.)

pub(crate) mod archive;
mod npy;
mod pipe;
mod safetensors;
mod torch;

#[cfg(test)]
mod tests;

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use modelport_ir::atomic::AtomicFile;
use modelport_ir::{Problem, Result};

use crate::plan::Param;
use pipe::Failure;

/// Formats of weights, told by their extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A state dict in PyTorch's zip archive, `.pth` or `.pt`.
    Torch,
    /// `.safetensors`; has no notion of tied weights, they are written as often as they occur.
    Safetensors,
    /// A dictionary of layers of arrays in NumPy's pickle, `.npy`.
    Npy,
}

impl Format {
    /// Extensions, without the dot.
    pub const EXTENSIONS: [&str; 4] = ["pth", "pt", "safetensors", "npy"];

    /// The format of this extension (without the dot).
    pub fn from_extension(extension: &str) -> Option<Format> {
        match extension.to_ascii_lowercase().as_str() {
            "pth" | "pt" => Some(Format::Torch),
            "safetensors" => Some(Format::Safetensors),
            "npy" => Some(Format::Npy),
            _ => None,
        }
    }

    /// The format of a file of this name.
    ///
    /// # Errors
    /// When the extension is none of [`Format::EXTENSIONS`].
    pub fn of(path: &Path) -> Result<Format> {
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        Format::from_extension(&extension).ok_or_else(|| {
            let known = Format::EXTENSIONS.map(|extension| format!(".{extension}")).join(", ");
            let message = match extension.as_ref() {
                "" => "has no extension that tells the format of weights".to_owned(),
                other => format!("weights can't be .{other}"),
            };
            Problem::new(message).file(path).hint(format!("expected one of {known}")).into()
        })
    }
}

/// How to write weights.
#[derive(Default)]
pub struct Options<'a> {
    /// For [`Format::Torch`]: makes the file that of the whole network, which `torch.load(path, weights_only=False)`
    /// gets by calling `_restore(state_dict)` of the module with this name.
    pub module: Option<&'a str>,
    /// Is told of every chunk of bytes that was written.
    pub progress: Progress<'a>,
}

/// Writes weights to a file that appears when it is complete, in the format of its extension.
///
/// # Errors
/// When the extension is unknown, a tensor can't be read, or the file can't be written.
pub fn write(path: &Path, params: &[Param]) -> Result<()> {
    let format = Format::of(path)?;
    let mut file = AtomicFile::create(path)?;
    write_to(&mut file, format, params, Options::default())?;
    file.commit()
}

/// Writes weights to a file that the caller commits.
///
/// # Errors
/// When a tensor can't be read, the file can't be written, or the format has no whole networks.
pub fn write_to(file: &mut AtomicFile, format: Format, params: &[Param], options: Options) -> Result<()> {
    let path = file.path().to_owned();
    if options.module.is_some() && format != Format::Torch {
        return Err(Problem::new("only .pth and .pt files hold a whole network").file(path).into());
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    stream(file, options.progress, |out| match format {
        Format::Torch => torch::write(out, &stem, params, options.module),
        Format::Safetensors => safetensors::write(out, params).map(|()| Vec::new()),
        Format::Npy => npy::write(out, params).map(|()| Vec::new()),
    })
}

/// Who is told of every chunk of bytes that was written.
pub type Progress<'a> = Option<&'a mut dyn FnMut(u64)>;

/// Writes to a file what `make` makes, on a thread of its own, and the patches that are known in the end.
pub(crate) fn stream(
    file: &mut AtomicFile,
    mut progress: Progress,
    make: impl FnOnce(&mut dyn Write) -> io::Result<Vec<archive::Patch>>,
) -> Result<()> {
    let path = file.path().to_owned();
    let written = pipe::through(&mut *file, |pipe| match &mut progress {
        Some(progress) => make(&mut Counted { inner: pipe, progress: *progress }),
        None => make(pipe),
    });
    let failed = |error: io::Error| Problem::new(format!("can't be written: {error}")).file(&path);
    let patches = written.map_err(|failure| match failure {
        Failure::Written(error) => failed(error),
        Failure::Made(error) => Problem::new(format!("a weight can't be read: {error}")),
    })?;
    patch(file, &patches).map_err(failed)?;
    Ok(())
}

fn patch(file: &mut AtomicFile, patches: &[archive::Patch]) -> io::Result<()> {
    let file = file.as_file_mut()?;
    patches.iter().try_for_each(|patch| {
        file.seek(SeekFrom::Start(patch.offset))?;
        file.write_all(&patch.bytes)
    })
}

/// Tells of the bytes that pass.
struct Counted<'a> {
    inner: &'a mut dyn Write,
    progress: &'a mut dyn FnMut(u64),
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        (self.progress)(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
