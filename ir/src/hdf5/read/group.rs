//! The members of groups: in symbol tables (the old way), in messages, or in a heap with an index.

use super::bytes::{Cursor, File};
use super::header::{self, Header};
use super::{Outcome, dense};

/// What a name in a group stands for.
pub enum Link {
    /// The object whose header is there.
    Hard(u64),
    /// Something else.
    Other(&'static str),
}

const SOFT: Link = Link::Other("a soft link");

/// The members of a group, none if it is none.
pub fn links(file: &File, header: &Header) -> Outcome<Option<Vec<(String, Link)>>> {
    if let Some(table) = header.first(header::SYMBOL_TABLE) {
        let mut cursor = Cursor::of(&table.body, file);
        let (tree, heap) = (cursor.address()?, cursor.address()?);
        let mut links = Vec::new();
        if let (Some(tree), Some(heap)) = (tree, heap) {
            let names = local_heap(file, heap)?;
            symbols(file, tree, None, &names, &mut links)?;
        }
        return Ok(Some(links));
    }
    let info = header.first(header::LINK_INFO);
    let mut links: Vec<(String, Link)> =
        header.all(header::LINK).map(|message| link(file, &message.body)).collect::<Outcome<_>>()?;
    if info.is_none() && links.is_empty() {
        return Ok(None);
    }
    if let Some(info) = info {
        let mut cursor = Cursor::of(&info.body, file);
        cursor.skip(1)?;
        let flags = cursor.u8()?;
        cursor.skip(if flags & 1 != 0 { 8 } else { 0 })?;
        if let (Some(heap), Some(index)) = (cursor.address()?, cursor.address()?) {
            for body in dense::objects(file, heap, index)? {
                links.push(link(file, &body)?);
            }
        }
    }
    Ok(Some(links))
}

fn link(file: &File, body: &[u8]) -> Outcome<(String, Link)> {
    let mut cursor = Cursor::of(body, file);
    cursor.skip(1)?;
    let flags = cursor.u8()?;
    let kind = if flags & 0x08 != 0 { cursor.u8()? } else { 0 };
    cursor.skip(if flags & 0x04 != 0 { 8 } else { 0 })?;
    cursor.skip(if flags & 0x10 != 0 { 1 } else { 0 })?;
    let len = cursor.uint(1 << (flags & 3))?;
    let name = cursor.take(usize::try_from(len).unwrap_or(usize::MAX))?;
    let name = String::from_utf8_lossy(name).into_owned();
    let link = match kind {
        0 => Link::Hard(cursor.address()?.ok_or("is damaged: a link leads nowhere")?),
        1 => SOFT,
        64 => Link::Other("a link to another file"),
        _ => Link::Other("a link of an unknown kind"),
    };
    Ok((name, link))
}

/// The bytes of a local heap, in which names are.
fn local_heap(file: &File, address: u64) -> Outcome<Vec<u8>> {
    let head = file.read(address, 8 + 2 * file.lengths as u64 + file.offsets as u64)?;
    let mut cursor = Cursor::of(&head, file);
    cursor.expect(b"HEAP")?;
    cursor.skip(4)?;
    let size = cursor.length()?;
    cursor.length()?;
    let data = cursor.address()?.ok_or("is damaged: a group has no names")?;
    file.read(data, size)
}

/// All entries below a node of a group's tree. `below` is the level of the node above.
fn symbols(file: &File, address: u64, below: Option<u8>, names: &[u8], links: &mut Vec<(String, Link)>) -> Outcome<()> {
    let (level, children) = tree_node(file, address, 0, below, file.lengths)?;
    for (_, child) in children {
        match level {
            0 => leaf(file, child, names, links)?,
            _ => symbols(file, child, Some(level), names, links)?,
        }
    }
    Ok(())
}

/// The children of a node of a B-tree, each with the key before it.
pub type Children = Vec<(Vec<u8>, u64)>;

/// A node of a version 1 B-tree: its level, and its children. `kind` is 0 for groups and 1 for chunks, `below` the
/// level of the node above, `key` the bytes of a key.
pub fn tree_node(file: &File, address: u64, kind: u8, below: Option<u8>, key: usize) -> Outcome<(u8, Children)> {
    let head = 8 + 2 * file.offsets as u64;
    let bytes = file.read(address, head)?;
    let mut cursor = Cursor::of(&bytes, file);
    cursor.expect(b"TREE")?;
    let (found, level, count) = (cursor.u8()?, cursor.u8()?, cursor.u16()?);
    if found != kind || below.is_some_and(|above| level >= above) {
        return Err("is damaged: an index has a node in the wrong place".to_owned());
    }
    let bytes = file.read(address.saturating_add(head), u64::from(count) * (key + file.offsets) as u64)?;
    let mut cursor = Cursor::of(&bytes, file);
    let mut entries = Vec::with_capacity(count.into());
    for _ in 0..count {
        let key = cursor.take(key)?.to_vec();
        entries.push((key, cursor.address()?.ok_or("is damaged: an index leads nowhere")?));
    }
    Ok((level, entries))
}

fn leaf(file: &File, address: u64, names: &[u8], links: &mut Vec<(String, Link)>) -> Outcome<()> {
    let head = file.read(address, 8)?;
    let mut cursor = Cursor::of(&head, file);
    cursor.expect(b"SNOD")?;
    cursor.skip(2)?;
    let count = cursor.u16()?;
    let entry = 2 * file.offsets + 24;
    let bytes = file.read(address.saturating_add(8), u64::from(count) * entry as u64)?;
    let mut cursor = Cursor::of(&bytes, file);
    for _ in 0..count {
        let name = cursor.uint(file.offsets)?;
        let header = cursor.address()?;
        let cache = cursor.u32()?;
        cursor.skip(20)?;
        let name = usize::try_from(name).ok().and_then(|start| names.get(start..));
        let name = name.and_then(|rest| rest.split(|byte| *byte == 0).next());
        let name = String::from_utf8_lossy(name.ok_or("is damaged: a name is missing")?).into_owned();
        let link = match (cache, header) {
            (2, _) => SOFT,
            (_, Some(header)) => Link::Hard(header),
            _ => return Err("is damaged: a link leads nowhere".to_owned()),
        };
        links.push((name, link));
    }
    Ok(())
}
