//! Writing: everything but the elements is laid out first, then the file is written from its beginning to its end.

use std::io::{self, Write};

use super::{Attribute, Attributes, Dataset, Group, MAGIC, Node, datatype};
use crate::{DType, Tensor};

const UNDEFINED: u64 = u64::MAX;
/// Half of the entries that a leaf and an inner node of a group's tree have; h5py's.
const LEAF: usize = 4;
const INNER: usize = 16;
/// Bytes of the superblock.
const SUPERBLOCK: usize = 96;
/// The least that a collection of strings takes.
const MIN_COLLECTION: usize = 4096;
/// Every array begins at a multiple of this.
const ALIGNMENT: u64 = 8;

/// A file that is laid out and can be written: its length is known before its elements are read.
#[derive(Debug)]
pub struct Plan<'a> {
    head: Vec<u8>,
    data: Vec<(u64, &'a Tensor)>,
    len: u64,
}

impl<'a> Plan<'a> {
    /// Lays out a file.
    ///
    /// # Errors
    /// When there is something that can't be written: a member or an attribute of another kind, or an attribute over
    /// 64 kB.
    pub fn of(root: &'a Group) -> Result<Plan<'a>, String> {
        let mut planner = Planner { head: vec![0; SUPERBLOCK], data: Vec::new() };
        let root = planner.group(root)?;
        let Planner { mut head, data } = planner;
        let mut end = (head.len() as u64).next_multiple_of(ALIGNMENT);
        let mut places = Vec::with_capacity(data.len());
        for (at, tensor) in data {
            let len = tensor.byte_len() as u64;
            let address = if len == 0 { UNDEFINED } else { end };
            if let Some(place) = head.get_mut(at..at + 8) {
                place.copy_from_slice(&address.to_le_bytes());
            }
            if len > 0 {
                places.push((end, tensor));
                end = (end + len).next_multiple_of(ALIGNMENT);
            }
        }
        let superblock = superblock(&root, end);
        if let Some(place) = head.get_mut(..SUPERBLOCK) {
            place.copy_from_slice(&superblock);
        }
        Ok(Plan { head, data: places, len: end })
    }

    /// Bytes of the whole file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to write; a file always has its superblock.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes the file: exactly [`Plan::len`] bytes.
    ///
    /// # Errors
    /// When a tensor can't be read, or the bytes can't be written.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let pad = |out: &mut dyn Write, from: u64, to: u64| {
            let zeros = [0; ALIGNMENT as usize];
            out.write_all(zeros.get(..(to - from) as usize).unwrap_or_default())
        };
        out.write_all(&self.head)?;
        let mut position = self.head.len() as u64;
        for (start, tensor) in &self.data {
            pad(out, position, *start)?;
            tensor.write_to(out)?;
            position = start + tensor.byte_len() as u64;
        }
        pad(out, position, self.len)
    }
}

/// Where a group is described.
struct Place {
    header: u64,
    tree: u64,
    heap: u64,
}

struct Planner<'a> {
    /// The file up to the elements.
    head: Vec<u8>,
    /// Tensors, and where in the head their addresses belong.
    data: Vec<(usize, &'a Tensor)>,
}

impl<'a> Planner<'a> {
    fn put(&mut self, bytes: &[u8]) -> u64 {
        let address = self.head.len() as u64;
        self.head.extend(bytes);
        self.head.resize(self.head.len().next_multiple_of(8), 0);
        address
    }

    fn group(&mut self, group: &'a Group) -> Result<Place, String> {
        let mut members: Vec<(&String, &Node)> = group.members.iter().collect();
        members.sort_by_key(|(name, _)| name.as_bytes());
        // Offset 0 of the heap is the empty name.
        let mut names = vec![0; 8];
        let mut entries = Vec::with_capacity(members.len());
        for (name, node) in members {
            if name.is_empty() || name.contains(['/', '\0']) || name == "." {
                return Err(format!("'{name}' is no name that an HDF5 file takes"));
            }
            let (header, group) = match node {
                Node::Group(group) => {
                    let place = self.group(group).map_err(|error| format!("{name}/{error}"))?;
                    (place.header, Some((place.tree, place.heap)))
                }
                Node::Dataset(dataset) => (self.dataset(dataset).map_err(|error| format!("{name}: {error}"))?, None),
                Node::Other(what) => return Err(format!("{name}: can't be written, it is {what}")),
            };
            entries.push(Entry { name: names.len() as u64, header, group });
            names.extend(name.as_bytes());
            names.resize((names.len() + 1).next_multiple_of(8), 0);
        }
        let tree = self.tree(&entries);
        let heap = self.heap(&names);
        let mut messages =
            vec![Message { kind: 0x11, flags: 0, body: [tree.to_le_bytes(), heap.to_le_bytes()].concat() }];
        self.attributes(&group.attributes, &mut messages)?;
        let (header, _) = self.header(&messages)?;
        Ok(Place { header, tree, heap })
    }

    fn dataset(&mut self, dataset: &'a Dataset) -> Result<u64, String> {
        let Dataset { tensor, attributes } = dataset;
        let mut layout = vec![3, 1];
        layout.extend(UNDEFINED.to_le_bytes());
        layout.extend((tensor.byte_len() as u64).to_le_bytes());
        let mut messages = vec![
            Message { kind: 0x01, flags: 0, body: dataspace(&tensor.shape()) },
            Message { kind: 0x03, flags: 1, body: datatype::encode(tensor.dtype()) },
            // No fill value is defined but zero; space is allocated at once.
            Message { kind: 0x05, flags: 1, body: vec![2, 2, 2, 1, 0, 0, 0, 0] },
            Message { kind: 0x08, flags: 0, body: layout },
        ];
        let marked;
        let attributes = if tensor.dtype() == DType::BFloat16 && !attributes.contains_key("dtype") {
            let mut with_mark = attributes.clone();
            with_mark.insert("dtype".to_owned(), Attribute::Text("bfloat16".to_owned()));
            marked = with_mark;
            &marked
        } else {
            attributes
        };
        self.attributes(attributes, &mut messages)?;
        let (header, bodies) = self.header(&messages)?;
        let layout = bodies.get(3).copied().unwrap_or_default();
        self.data.push((layout + 2, tensor));
        Ok(header)
    }

    /// An object header with all messages in one block; also where their bodies are.
    fn header(&mut self, messages: &[Message]) -> Result<(u64, Vec<usize>), String> {
        let count = u16::try_from(messages.len()).map_err(|_| "has too many attributes".to_owned())?;
        let size: usize = messages.iter().map(|message| 8 + message.body.len().next_multiple_of(8)).sum();
        let size = u32::try_from(size).map_err(|_| "has too large attributes".to_owned())?;
        let mut bytes = vec![1, 0];
        bytes.extend(count.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend([0; 4]);
        let mut bodies = Vec::with_capacity(messages.len());
        for Message { kind, flags, body } in messages {
            let padded = body.len().next_multiple_of(8);
            let size = u16::try_from(padded).map_err(|_| "has an attribute over 64 kB".to_owned())?;
            bytes.extend(kind.to_le_bytes());
            bytes.extend(size.to_le_bytes());
            bytes.extend([*flags, 0, 0, 0]);
            bodies.push(self.head.len() + bytes.len());
            bytes.extend(body);
            bytes.resize(bytes.len() + padded - body.len(), 0);
        }
        Ok((self.put(&bytes), bodies))
    }

    fn attributes(&mut self, attributes: &Attributes, messages: &mut Vec<Message>) -> Result<(), String> {
        // All strings of an object are in one collection, so that each refers to it by its place in order.
        let texts: Vec<&str> = attributes.values().filter_map(Attribute::as_text).collect();
        let collection = if texts.is_empty() { 0 } else { self.collection(&texts)? };
        let mut index = 0u32;
        for (name, attribute) in attributes {
            let (datatype, dataspace, value) = match attribute {
                Attribute::Text(text) => {
                    index += 1;
                    let mut value = (text.len() as u32).to_le_bytes().to_vec();
                    value.extend(collection.to_le_bytes());
                    value.extend(index.to_le_bytes());
                    (datatype::encode_text(), dataspace(&[]), value)
                }
                Attribute::Texts(texts) if texts.is_empty() => {
                    (datatype::encode(DType::Float64), dataspace(&[0]), Vec::new())
                }
                Attribute::Texts(texts) => {
                    let width = texts.iter().map(String::len).max().unwrap_or(0).max(1);
                    if texts.len().saturating_mul(width) > u16::MAX.into() {
                        return Err(format!("the attribute {name} is over 64 kB"));
                    }
                    let mut value = Vec::with_capacity(texts.len() * width);
                    for text in texts {
                        value.extend(text.as_bytes());
                        value.resize(value.len() + width - text.len(), 0);
                    }
                    (datatype::encode_fixed(width), dataspace(&[texts.len()]), value)
                }
                Attribute::Numbers(tensor) => {
                    if tensor.byte_len() > u16::MAX.into() {
                        return Err(format!("the attribute {name} is over 64 kB"));
                    }
                    let value = tensor.to_bytes().map_err(|error| format!("{name} can't be read: {error}"))?;
                    (datatype::encode(tensor.dtype()), dataspace(&tensor.shape()), value)
                }
                Attribute::Other(what) => return Err(format!("the attribute {name} can't be written, it is {what}")),
            };
            let mut body = vec![3, 0];
            for len in [name.len() + 1, datatype.len(), dataspace.len()] {
                let len = u16::try_from(len).map_err(|_| "an attribute's name is too long".to_owned())?;
                body.extend(len.to_le_bytes());
            }
            body.push(1);
            body.extend(name.as_bytes());
            body.push(0);
            body.extend(datatype);
            body.extend(dataspace);
            body.extend(value);
            messages.push(Message { kind: 0x0c, flags: 0, body });
        }
        Ok(())
    }

    /// Strings, numbered from 1 on.
    fn collection(&mut self, texts: &[&str]) -> Result<u64, String> {
        let mut bytes = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let index = u16::try_from(index + 1).map_err(|_| "has too many attributes".to_owned())?;
            u32::try_from(text.len()).map_err(|_| "has an attribute over 4 GB".to_owned())?;
            bytes.extend(index.to_le_bytes());
            bytes.extend([0; 6]);
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        // What is left is an object of its own, numbered 0.
        let size = (16 + bytes.len() + 16).max(MIN_COLLECTION);
        let free = (size - 16 - bytes.len()) as u64;
        bytes.extend([0; 8]);
        bytes.extend(free.to_le_bytes());
        let mut collection = b"GCOL\x01\0\0\0".to_vec();
        collection.extend((size as u64).to_le_bytes());
        collection.extend(bytes);
        collection.resize(size, 0);
        Ok(self.put(&collection))
    }

    /// The names of a group's members.
    fn heap(&mut self, names: &[u8]) -> u64 {
        let mut header = b"HEAP\0\0\0\0".to_vec();
        header.extend((names.len() as u64).to_le_bytes());
        // There is no free space.
        header.extend(1u64.to_le_bytes());
        header.extend((self.head.len() as u64 + 32).to_le_bytes());
        let address = self.put(&header);
        self.put(names);
        address
    }

    /// A B-tree over members in the order of their names.
    fn tree(&mut self, entries: &[Entry]) -> u64 {
        // Addresses of nodes, and the name of the last member below.
        let mut nodes: Vec<(u64, u64)> = Vec::new();
        for entries in entries.chunks(2 * LEAF) {
            let mut leaf = b"SNOD\x01\0".to_vec();
            leaf.extend((entries.len() as u16).to_le_bytes());
            entries.iter().for_each(|entry| leaf.extend(entry.bytes()));
            leaf.resize(8 + 2 * LEAF * 40, 0);
            nodes.push((self.put(&leaf), entries.last().map_or(0, |entry| entry.name)));
        }
        let mut level = 0;
        loop {
            let count = nodes.len().div_ceil(2 * INNER).max(1);
            let start = self.head.len() as u64;
            let size = (24 + (4 * INNER + 1) * 8) as u64;
            let mut above = Vec::with_capacity(count);
            let mut first = 0;
            for (index, children) in chunks(&nodes, 2 * INNER).enumerate() {
                let sibling = |at: Option<usize>| match at {
                    Some(at) if at < count => start + at as u64 * size,
                    _ => UNDEFINED,
                };
                let mut node = b"TREE\0".to_vec();
                node.push(level);
                node.extend((children.len() as u16).to_le_bytes());
                node.extend(sibling(index.checked_sub(1)).to_le_bytes());
                node.extend(sibling(Some(index + 1)).to_le_bytes());
                node.extend(u64::to_le_bytes(first));
                for (address, last) in children {
                    node.extend(address.to_le_bytes());
                    node.extend(last.to_le_bytes());
                    first = *last;
                }
                node.resize(size as usize, 0);
                above.push((self.put(&node), first));
            }
            match above.as_slice() {
                [(root, _)] => return *root,
                _ => nodes = above,
            }
            level += 1;
        }
    }
}

/// Slices of at most `size` elements; one that is empty where there are none.
fn chunks<T>(items: &[T], size: usize) -> impl Iterator<Item = &[T]> {
    let empty = items.is_empty().then_some(items);
    empty.into_iter().chain(items.chunks(size))
}

struct Message {
    kind: u16,
    flags: u8,
    body: Vec<u8>,
}

/// A member of a group.
struct Entry {
    /// Where its name is in the heap.
    name: u64,
    header: u64,
    /// Its tree and heap, if it is a group.
    group: Option<(u64, u64)>,
}

impl Entry {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.name.to_le_bytes().to_vec();
        bytes.extend(self.header.to_le_bytes());
        bytes.extend(u64::from(self.group.is_some()).to_le_bytes());
        let (tree, heap) = self.group.unwrap_or_default();
        bytes.extend(tree.to_le_bytes());
        bytes.extend(heap.to_le_bytes());
        bytes
    }
}

fn superblock(root: &Place, end: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([0, 0, 0, 0, 0, 8, 8, 0]);
    bytes.extend((LEAF as u16).to_le_bytes());
    bytes.extend((INNER as u16).to_le_bytes());
    bytes.extend([0; 4]);
    for address in [0, UNDEFINED, end, UNDEFINED] {
        bytes.extend(address.to_le_bytes());
    }
    bytes.extend(Entry { name: 0, header: root.header, group: Some((root.tree, root.heap)) }.bytes());
    bytes
}

/// The description of a shape; no axes are a scalar.
fn dataspace(shape: &[usize]) -> Vec<u8> {
    let mut bytes = vec![1, shape.len() as u8, 0, 0, 0, 0, 0, 0];
    shape.iter().for_each(|size| bytes.extend((*size as u64).to_le_bytes()));
    bytes
}

impl Attribute {
    fn as_text(&self) -> Option<&str> {
        match self {
            Attribute::Text(text) => Some(text),
            _ => None,
        }
    }
}
