//! HDF5 files, as Keras keeps weights and whole networks in them: groups of datasets, with attributes.
//!
//! One tree stands for both directions. Reading makes it with tensors that are read when they are needed; writing
//! lays it out first and then goes through the file once, so that neither takes memory for the elements.
//! Format: HDF5 File Format Specification 3.0; written is its oldest form, which all readers know.

mod datatype;
mod read;
mod write;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::tensor::{FileBytes, Storage};
use crate::{Problem, Result, Tensor};

pub use write::Plan;

/// The first bytes of every file.
pub const MAGIC: [u8; 8] = *b"\x89HDF\r\n\x1a\n";

/// Longest attribute that an object header takes, less what its description may need; Keras' limit as well.
pub const MAX_ATTRIBUTE: usize = 64512;

/// Named facts of a group or a dataset.
pub type Attributes = IndexMap<String, Attribute>;

/// The value of an attribute.
#[derive(Clone, Debug)]
pub enum Attribute {
    /// One string; h5py has it as `str`.
    Text(String),
    /// A list of strings; h5py has it as an array of `bytes`.
    Texts(Vec<String>),
    /// Numbers of any shape.
    Numbers(Tensor),
    /// Anything else: what it is.
    Other(String),
}

/// An array of numbers.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Its elements.
    pub tensor: Tensor,
    /// Its attributes.
    pub attributes: Attributes,
}

/// What a group has under a name.
#[derive(Clone, Debug)]
pub enum Node {
    /// A group of its own.
    Group(Group),
    /// Numbers.
    Dataset(Dataset),
    /// Anything else, or what can't be read: what it is.
    Other(String),
}

/// Named members. Files are written in the order of names, which is the one that readers see.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Its attributes.
    pub attributes: Attributes,
    /// Its members.
    pub members: IndexMap<String, Node>,
}

impl Group {
    /// Reads the tree of a file. Members that can't be read are [`Node::Other`].
    ///
    /// # Errors
    /// When it is no HDF5 file, or is damaged.
    pub fn open(path: &Path) -> Result<Group> {
        let failed = |message: String| Problem::new(message).file(path);
        let file = FileBytes::open(path).map_err(|error| failed(format!("can't be read: {error}")))?;
        Group::read(file).map_err(|message| failed(message).into())
    }

    /// Reads the tree of a file that lies in `storage`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(storage: Arc<dyn Storage>) -> std::result::Result<Group, String> {
        read::tree(storage)
    }

    /// The member at a path with slashes.
    pub fn get(&self, path: &str) -> Option<&Node> {
        let mut group = self;
        let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            let node = group.members.get(name)?;
            match (node, names.peek()) {
                (node, None) => return Some(node),
                (Node::Group(inner), Some(_)) => group = inner,
                _ => return None,
            }
        }
        None
    }

    /// The group at a path with slashes; the empty path is this group.
    pub fn group(&self, path: &str) -> Option<&Group> {
        if path.split('/').all(str::is_empty) {
            return Some(self);
        }
        match self.get(path)? {
            Node::Group(group) => Some(group),
            _ => None,
        }
    }

    /// The dataset at a path with slashes.
    pub fn dataset(&self, path: &str) -> Option<&Dataset> {
        match self.get(path)? {
            Node::Dataset(dataset) => Some(dataset),
            _ => None,
        }
    }

    /// The dataset at a path with slashes.
    pub fn dataset_mut(&mut self, path: &str) -> Option<&mut Dataset> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut group = self;
        for name in folder.split('/').filter(|name| !name.is_empty()) {
            group = match group.members.get_mut(name)? {
                Node::Group(group) => group,
                _ => return None,
            };
        }
        match group.members.get_mut(name)? {
            Node::Dataset(dataset) => Some(dataset),
            _ => None,
        }
    }

    /// The group at a path with slashes, made where it is missing.
    ///
    /// # Errors
    /// When something else than a group is on the path.
    pub fn make(&mut self, path: &str) -> std::result::Result<&mut Group, String> {
        let mut group = self;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            group = match group.members.entry(name.to_owned()).or_insert_with(|| Node::Group(Group::default())) {
                Node::Group(group) => group,
                _ => return Err(format!("{path} goes through {name}, which is no group")),
            };
        }
        Ok(group)
    }

    /// Puts a tensor at a path with slashes.
    ///
    /// # Errors
    /// When something else than a group is on the path, or there is something already.
    pub fn put(&mut self, path: &str, tensor: Tensor) -> std::result::Result<(), String> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        match self.make(folder)?.members.insert(name.to_owned(), Node::Dataset(Dataset::from(tensor))) {
            None => Ok(()),
            Some(_) => Err(format!("there are two members at {path}")),
        }
    }

    /// All datasets below, with their paths.
    pub fn datasets(&self) -> Vec<(String, &Dataset)> {
        let mut found = Vec::new();
        self.walk("", &mut |path, node| {
            if let Node::Dataset(dataset) = node {
                found.push((path.to_owned(), dataset));
            }
        });
        found
    }

    /// Calls `visit` with the path of every node below and the node, in order.
    pub fn walk<'a>(&'a self, prefix: &str, visit: &mut dyn FnMut(&str, &'a Node)) {
        for (name, node) in &self.members {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            visit(&path, node);
            if let Node::Group(group) = node {
                group.walk(&path, visit);
            }
        }
    }

    /// A string attribute.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name)? {
            Attribute::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list of strings, also where it was too long for one attribute and is in `name0`, `name1`, ….
    pub fn texts(&self, name: &str) -> Option<Vec<String>> {
        let list = |name: &str| match self.attributes.get(name)? {
            Attribute::Texts(texts) => Some(texts.clone()),
            // An empty list has no type: h5py makes it one of numbers.
            Attribute::Numbers(tensor) if tensor.numel() == 0 => Some(Vec::new()),
            _ => None,
        };
        list(name).or_else(|| {
            let parts: Vec<Vec<String>> = (0..).map_while(|index| list(&format!("{name}{index}"))).collect();
            (!parts.is_empty()).then(|| parts.concat())
        })
    }

    /// Sets a list of strings, over several attributes where it is too long for one, in parts as even as Keras'.
    pub fn set_texts(&mut self, name: &str, texts: Vec<String>) {
        let width = texts.iter().map(String::len).max().unwrap_or(0).max(1);
        let mut parts = 1;
        // As `numpy.array_split`: the first `len % parts` parts have one more.
        while texts.len().div_ceil(parts) * width > MAX_ATTRIBUTE && parts < texts.len() {
            parts += 1;
        }
        if parts == 1 {
            self.attributes.insert(name.to_owned(), Attribute::Texts(texts));
            return;
        }
        let (size, longer) = (texts.len() / parts, texts.len() % parts);
        let mut rest = texts.into_iter();
        for part in 0..parts {
            let texts = rest.by_ref().take(size + usize::from(part < longer)).collect();
            self.attributes.insert(format!("{name}{part}"), Attribute::Texts(texts));
        }
    }
}

impl From<Tensor> for Dataset {
    fn from(tensor: Tensor) -> Dataset {
        Dataset { tensor, attributes: Attributes::new() }
    }
}
