//! What went wrong, where, and what to try: errors are collected, located and written for the person who reads them.

use std::fmt;
use std::path::{Path, PathBuf};

/// Result of anything that can fail on a model.
pub type Result<T> = std::result::Result<T, Error>;

/// One thing that is wrong: a message, where it was found, and a hint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// One sentence without a full stop: what was found and what was expected.
    pub message: String,
    /// The file that was being read or written.
    pub file: Option<PathBuf>,
    /// The node (its name in the source).
    pub node: Option<String>,
    /// The operator, as the source calls it. Problems of the same message and operator are listed together.
    pub op: Option<String>,
    /// Shapes of the node's inputs, as text.
    pub inputs: Option<String>,
    /// What to try.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem with a message and nothing else.
    pub fn new(message: impl Into<String>) -> Self {
        Problem { message: message.into(), ..Problem::default() }
    }

    /// Names the file.
    #[must_use]
    pub fn file(mut self, file: impl AsRef<Path>) -> Self {
        self.file = Some(file.as_ref().to_owned());
        self
    }

    /// Names the node.
    #[must_use]
    pub fn node(mut self, node: impl Into<String>) -> Self {
        self.node = Some(node.into());
        self
    }

    /// Names the operator.
    #[must_use]
    pub fn op(mut self, op: impl Into<String>) -> Self {
        self.op = Some(op.into());
        self
    }

    /// Tells the shapes of the node's inputs.
    #[must_use]
    pub fn inputs(mut self, inputs: impl Into<String>) -> Self {
        self.inputs = Some(inputs.into());
        self
    }

    /// Says what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// All problems that were found in one run; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The problems, in the order in which they were found.
    pub problems: Vec<Problem>,
}

impl Error {
    /// An error with one problem that is only a message.
    pub fn new(message: impl Into<String>) -> Self {
        Problem::new(message).into()
    }

    /// `Err` with all of `problems`, or `Ok` if there are none.
    pub fn collect(problems: Vec<Problem>) -> Result<()> {
        if problems.is_empty() { Ok(()) } else { Err(Error { problems }) }
    }

    /// Names `file` in every problem that names none.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        for problem in &mut self.problems {
            problem.file.get_or_insert_with(|| file.to_owned());
        }
        self
    }

    /// Names `node` in every problem that names none.
    #[must_use]
    pub fn at_node(mut self, node: &str) -> Self {
        for problem in &mut self.problems {
            problem.node.get_or_insert_with(|| node.to_owned());
        }
        self
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Error { problems: vec![problem] }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        f.write_str(&self.message)?;
        if let Some(op) = &self.op {
            write!(f, " [{op}]")?;
        }
        if let Some(node) = &self.node {
            write!(f, "\n    at {node}")?;
            if let Some(inputs) = &self.inputs {
                write!(f, " {inputs}")?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n    {hint}")?;
        }
        Ok(())
    }
}

/// Problems with the same file, message, operator and hint are printed once, with all their nodes below.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = |p: &Problem| (p.file.clone(), p.message.clone(), p.op.clone(), p.hint.clone());
        let mut printed: Vec<_> = Vec::new();
        for problem in &self.problems {
            let this = key(problem);
            if printed.contains(&this) {
                continue;
            }
            let same: Vec<&Problem> = self.problems.iter().filter(|p| key(p) == this).collect();
            if !printed.is_empty() {
                f.write_str("\n")?;
            }
            if same.len() == 1 {
                write!(f, "{problem}")?;
            } else {
                let head = Problem { node: None, inputs: None, hint: None, ..problem.clone() };
                write!(f, "{head} ({} nodes)", same.len())?;
                for p in &same {
                    write!(f, "\n    at {}", p.node.as_deref().unwrap_or("?"))?;
                    if let Some(inputs) = &p.inputs {
                        write!(f, " {inputs}")?;
                    }
                }
                if let Some(hint) = &problem.hint {
                    write!(f, "\n    {hint}")?;
                }
            }
            printed.push(this);
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_problems_are_printed_together() {
        let at = |node: &str| Problem::new("no translation").op("MatrixInverse").node(node).hint("cut it off");
        let error = Error { problems: vec![at("a"), Problem::new("other"), at("b")] };
        assert_eq!(
            error.to_string(),
            "no translation [MatrixInverse] (2 nodes)\n    at a\n    at b\n    cut it off\nother"
        );
    }
}
