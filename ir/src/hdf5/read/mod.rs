//! Reading: superblock, object headers of both versions, old and new groups, and datasets of all layouts but virtual
//! ones.
//!
//! Files come from strangers. All that is read to understand a file is counted, and may not be more than a small
//! multiple of the file: that bounds memory and time whatever circles or claims are in it.

mod attribute;
mod bytes;
mod chunks;
mod dataset;
mod dense;
mod group;
mod header;

use std::sync::Arc;

use super::{Group, MAGIC, Node};
use crate::tensor::Storage;
use bytes::{Cursor, File};

/// Deepest nesting of groups.
const MAX_DEPTH: usize = 64;

type Outcome<T> = Result<T, String>;

/// Reads the whole tree.
pub fn tree(storage: Arc<dyn Storage>) -> Outcome<Group> {
    let (file, root) = superblock(storage)?;
    match object(&file, root, 0)? {
        Node::Group(group) => Ok(group),
        _ => Err("is damaged: its root is no group".to_owned()),
    }
}

/// The file with the sizes that its numbers have, and the address of the root's header.
fn superblock(storage: Arc<dyn Storage>) -> Outcome<(File, u64)> {
    // Other data may precede it, of a size that is a power of two.
    let starts = std::iter::once(0).chain((9..48).map(|bit| 1 << bit));
    let is_here = |start: &u64| {
        let mut magic = [0; 8];
        storage.read_at(*start, &mut magic).is_ok() && magic == MAGIC
    };
    let start = starts.take_while(|start| start + 8 <= storage.len()).find(is_here);
    let start = start.ok_or("is no HDF5 file")?;
    let file = File::new(storage, 0);
    let head = file.read_up_to(start, 128)?;
    let mut cursor = Cursor::new(&head, 8, 8);
    cursor.skip(8)?;
    let version = cursor.u8()?;
    match version {
        0 | 1 => {
            cursor.skip(4)?;
            let (offsets, lengths) = (cursor.u8()?, cursor.u8()?);
            cursor.skip(if version == 0 { 9 } else { 13 })?;
            let file = file.with(offsets, lengths)?;
            let mut cursor = cursor.with(&file);
            let base = cursor.address()?.unwrap_or(0);
            // Free space, end of file, driver, and the name of the root.
            for _ in 0..4 {
                cursor.address()?;
            }
            let root = cursor.address()?.ok_or("is damaged: it has no root")?;
            Ok((file.based(base), root))
        }
        2 | 3 => {
            let (offsets, lengths) = (cursor.u8()?, cursor.u8()?);
            cursor.skip(1)?;
            let file = file.with(offsets, lengths)?;
            let mut cursor = cursor.with(&file);
            let base = cursor.address()?.unwrap_or(0);
            cursor.address()?;
            cursor.address()?;
            let root = cursor.address()?.ok_or("is damaged: it has no root")?;
            Ok((file.based(base), root))
        }
        other => Err(format!("is of HDF5's superblock version {other}, which is not known")),
    }
}

/// The group or dataset whose header is at an address.
fn object(file: &File, address: u64, depth: usize) -> Outcome<Node> {
    if depth > MAX_DEPTH {
        return Err(format!("is damaged: its groups are nested more than {MAX_DEPTH} deep"));
    }
    let header = header::read(file, address)?;
    if let Some(links) = group::links(file, &header)? {
        let mut group = Group { attributes: attribute::all(file, &header)?, ..Group::default() };
        for (name, link) in links {
            let node = match link {
                group::Link::Hard(address) => object(file, address, depth + 1)?,
                group::Link::Other(what) => Node::Other(what.to_owned()),
            };
            group.members.insert(name, node);
        }
        return Ok(Node::Group(group));
    }
    if header.first(header::LAYOUT).is_none() {
        return Ok(Node::Other("a type without data".to_owned()));
    }
    let attributes = attribute::all(file, &header)?;
    Ok(match dataset::tensor(file, &header, &attributes) {
        Ok(tensor) => Node::Dataset(super::Dataset { tensor, attributes }),
        Err(what) => Node::Other(what),
    })
}
