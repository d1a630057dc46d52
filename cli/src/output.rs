//! Which files a conversion writes, and that they appear together or not at all.

use std::path::{Path, PathBuf};

use modelport_ir::atomic::AtomicFile;
use modelport_ir::{Error, Problem, Result};

use crate::target::{Target, stem};

/// The code and the weights that `-om` asks for: `NAME.EXTENSION` says the kind of the weights' file, the code is
/// `NAME.py`; without an extension, or with `.py`, the weights are `NAME.pth` or what the target has.
///
/// # Errors
/// When the extension is of no kind that the target has.
pub fn code_and_weights(output: &Path, target: Target) -> Result<(PathBuf, PathBuf)> {
    let extension = output.extension().unwrap_or_default();
    if extension.is_empty() || extension == "py" {
        return Ok((output.with_extension("py"), output.with_extension(target.model_extension())));
    }
    target.kind(output)?;
    Ok((stem(output).with_extension("py"), output.to_owned()))
}

/// The code that `to-code -o` asks for.
pub fn code(output: &Path) -> PathBuf {
    if output.extension().is_some_and(|extension| extension == "py") {
        return output.to_owned();
    }
    let mut name = output.as_os_str().to_owned();
    name.push(".py");
    name.into()
}

/// The name of the files that `to-ir -o` asks for, without their extensions.
pub fn base(output: &Path) -> PathBuf {
    match output.extension().and_then(|extension| extension.to_str()) {
        Some("json" | "pb" | "npy") => output.with_extension(""),
        _ => output.to_owned(),
    }
}

/// Begins all files, so that what can't be written is known before any work is done.
///
/// # Errors
/// All files that can't be written.
pub fn begin<const N: usize>(paths: [&Path; N]) -> Result<[AtomicFile; N]> {
    let mut files = Vec::with_capacity(N);
    let mut problems = Vec::new();
    for path in paths {
        match AtomicFile::create(path) {
            Ok(file) => files.push(file),
            Err(error) => problems.extend(error.problems),
        }
    }
    Error::collect(problems)?;
    files.try_into().map_err(|_| Error::new("a file is missing"))
}

/// The module that a file of code is when it is imported.
///
/// # Errors
/// When the file's name is no name of a module.
pub fn module(code: &Path) -> Result<String> {
    let stem = code.file_stem().unwrap_or_default().to_string_lossy();
    if is_identifier(&stem) {
        return Ok(stem.into_owned());
    }
    let message = "a whole module needs code that can be imported by name, of letters, digits and underscores";
    Err(Problem::new(message).file(code).hint("choose another name, or leave out --whole-module").into())
}

/// Whether Python can import a module of this name.
pub fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_') && chars.all(|c| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        let pair = |name: &str| {
            code_and_weights(Path::new(name), Target::PyTorch)
                .map(|(code, weights)| format!("{} {}", code.display(), weights.display()))
        };
        assert_eq!(pair("a/net.pth").unwrap(), "a/net.py a/net.pth");
        assert_eq!(pair("net.npy").unwrap(), "net.py net.npy");
        assert_eq!(pair("net").unwrap(), "net.py net.pth");
        assert_eq!(pair("net.py").unwrap(), "net.py net.pth");
        assert!(pair("net.h5").unwrap_err().to_string().contains("weights can't be .h5"));
        let keras = Target::Keras { version: 3 };
        let pair = |name: &str| code_and_weights(Path::new(name), keras).map(|pair| pair.1.display().to_string());
        assert_eq!(pair("net").unwrap(), "net.keras");
        let files = code_and_weights(Path::new("a/net.weights.h5"), keras).unwrap();
        assert_eq!(files, (PathBuf::from("a/net.py"), PathBuf::from("a/net.weights.h5")));
        assert!(pair("net.pth").unwrap_err().to_string().contains("a Keras network can't be .pth"));
        assert_eq!(code(Path::new("net.v2")), Path::new("net.v2.py"));
        assert_eq!(base(Path::new("net.json")), Path::new("net"));
        assert_eq!(base(Path::new("net.v2")), Path::new("net.v2"));
        assert_eq!(module(Path::new("a/net_2.py")).unwrap(), "net_2");
        assert!(module(Path::new("2-net.py")).is_err());
    }

    #[test]
    fn all_that_can_not_be_written_is_named() {
        let error = begin([Path::new("/nonexistent/a.py"), Path::new("/nonexistent/a.pth")]).unwrap_err();
        assert_eq!(error.problems.len(), 2);
    }
}
