//! Large numbers of links or attributes: objects in a fractal heap, found through a version 2 B-tree by name.

use std::collections::HashMap;

use super::Outcome;
use super::bytes::{Cursor, File};

/// Kinds of trees: links and attributes by name.
const LINKS: u8 = 5;
const ATTRIBUTES: u8 = 8;
/// Objects that are too large for their heap.
const HUGE: u8 = 1;
/// Deepest trees.
const MAX_DEPTH: u16 = 32;

/// All objects of a heap, in the order of the index.
pub fn objects(file: &File, heap: u64, index: u64) -> Outcome<Vec<Vec<u8>>> {
    let heap = Heap::read(file, heap)?;
    let mut objects = Vec::new();
    Tree::read(file, index, &mut |kind, record| {
        // Links have the hash of their name first, attributes behind.
        let id = match kind {
            LINKS => record.get(4..),
            ATTRIBUTES => Some(record),
            _ => return Err("is damaged: an index is of the wrong kind".to_owned()),
        };
        let id = id.and_then(|rest| rest.get(..heap.id_len)).ok_or("is damaged: an index is too narrow")?;
        objects.push(heap.object(file, id)?);
        Ok(())
    })?;
    Ok(objects)
}

struct Heap {
    id_len: usize,
    /// Bytes of an offset and of a length in an id.
    offset_size: usize,
    length_size: usize,
    /// Blocks in a row, and bytes of those of the first two rows; further rows have twice those of the row before.
    width: u64,
    start: u64,
    max_direct: u64,
    root: Option<u64>,
    /// Rows of the root; 0 if it is a block of objects itself.
    rows: u64,
    /// Address and length of large objects, by their number.
    huge: HashMap<u64, (u64, u64)>,
}

impl Heap {
    fn read(file: &File, address: u64) -> Outcome<Heap> {
        let bytes = file.read_up_to(address, 256)?;
        let mut cursor = Cursor::of(&bytes, file);
        cursor.expect(b"FRHP")?;
        cursor.skip(1)?;
        let id_len = cursor.u16()?.into();
        if cursor.u16()? != 0 {
            return Err("has a heap that is compressed, which is not known".to_owned());
        }
        cursor.skip(1)?;
        let max_managed = u64::from(cursor.u32()?);
        cursor.skip(file.lengths)?;
        let large = cursor.address()?;
        cursor.skip(file.offsets + 9 * file.lengths)?;
        let (width, start, max_direct) = (cursor.u16()?.into(), cursor.length()?, cursor.length()?);
        let bits = cursor.u16()?;
        cursor.skip(2)?;
        let (root, rows) = (cursor.address()?, cursor.u16()?.into());
        if width == 0 || !start.is_power_of_two() || !max_direct.is_power_of_two() || max_direct < start || bits > 64 {
            return Err("is damaged: a heap has blocks of impossible sizes".to_owned());
        }
        let length_size = width_of(max_direct).min(width_of(max_managed));
        let offset_size = usize::from(bits).div_ceil(8);
        let mut huge = HashMap::new();
        if let Some(tree) = large {
            Tree::read(file, tree, &mut |kind, record| {
                let mut cursor = Cursor::of(record, file);
                let (address, len) = (cursor.address()?, cursor.length()?);
                // Other kinds say the address in the id, or are compressed.
                if let (HUGE, Some(address)) = (kind, address) {
                    huge.insert(cursor.length()?, (address, len));
                }
                Ok(())
            })?;
        }
        Ok(Heap { id_len, offset_size, length_size, width, start, max_direct, root, rows, huge })
    }

    fn object(&self, file: &File, id: &[u8]) -> Outcome<Vec<u8>> {
        let mut cursor = Cursor::of(id, file);
        let head = cursor.u8()?;
        match head >> 4 & 3 {
            0 => {
                let (offset, len) = (cursor.uint(self.offset_size)?, cursor.uint(self.length_size)?);
                let address = self.locate(file, offset)?;
                file.read(address, len)
            }
            1 => {
                let number = cursor.uint(cursor.rest().len().min(8))?;
                let found = self.huge.get(&number).copied();
                let (address, len) = found.ok_or("has a link or an attribute that is too large to be read")?;
                file.read(address, len)
            }
            2 => Ok(cursor.take(usize::from(head & 15) + 1)?.to_vec()),
            _ => Err("has a link or an attribute that is too large to be read".to_owned()),
        }
    }

    /// Bytes of a block of a row, and where the row begins.
    fn row(&self, row: u64) -> Option<(u64, u64)> {
        match row {
            0 => Some((self.start, 0)),
            row => {
                let factor = 1u64.checked_shl(u32::try_from(row - 1).ok()?)?;
                Some((self.start.checked_mul(factor)?, self.start.checked_mul(self.width)?.checked_mul(factor)?))
            }
        }
    }

    /// The address of what is at an offset of the heap.
    fn locate(&self, file: &File, mut offset: u64) -> Outcome<u64> {
        let damaged = || "is damaged: a heap has no such object".to_owned();
        let mut block = self.root.ok_or_else(damaged)?;
        let mut rows = self.rows;
        while rows > 0 {
            let row = (0..rows)
                .rev()
                .find(|row| self.row(*row).is_some_and(|(_, begin)| begin <= offset))
                .ok_or_else(damaged)?;
            let (size, begin) = self.row(row).ok_or_else(damaged)?;
            let column = (offset - begin) / size;
            if column >= self.width {
                return Err(damaged());
            }
            let head = 5 + file.offsets + self.offset_size;
            let entry = (row * self.width + column) * file.offsets as u64;
            let bytes = file.read(block.saturating_add(head as u64 + entry), file.offsets as u64)?;
            block = Cursor::of(&bytes, file).address()?.ok_or_else(damaged)?;
            offset -= begin + column * size;
            // Blocks that are larger than any of objects have rows of their own, always fewer.
            rows =
                if size <= self.max_direct { 0 } else { (0..row).filter(|row| self.fits(*row, size)).count() as u64 };
        }
        block.checked_add(offset).ok_or_else(damaged)
    }

    /// Whether a row is inside of a block of `size` bytes that has rows of its own.
    fn fits(&self, row: u64, size: u64) -> bool {
        self.row(row).is_some_and(|(_, begin)| begin < size)
    }
}

/// Bytes that a number up to `limit` takes.
fn width_of(limit: u64) -> usize {
    (limit.max(1).ilog2() / 8 + 1) as usize
}

struct Tree<'a> {
    file: &'a File,
    kind: u8,
    node: u64,
    record: usize,
    /// For every depth the largest number of records in a node, and below and in it.
    most: Vec<(u64, u64)>,
}

type Visit<'a> = dyn FnMut(u8, &[u8]) -> Outcome<()> + 'a;

impl<'a> Tree<'a> {
    /// Calls `visit` with the kind of the tree and every record.
    fn read(file: &'a File, address: u64, visit: &mut Visit) -> Outcome<()> {
        let damaged = || "is damaged: an index has impossible sizes".to_owned();
        let bytes = file.read(address, 16 + file.offsets as u64 + 2)?;
        let mut cursor = Cursor::of(&bytes, file);
        cursor.expect(b"BTHD")?;
        cursor.skip(1)?;
        let (kind, node, record, depth) = (cursor.u8()?, cursor.u32()?.into(), cursor.u16()?, cursor.u16()?);
        cursor.skip(2)?;
        let root = cursor.address()?;
        let count = cursor.u16()?;
        let Some(root) = root else { return Ok(()) };
        if record == 0 || depth > MAX_DEPTH {
            return Err(damaged());
        }
        let mut tree = Tree { file, kind, node, record: record.into(), most: Vec::new() };
        for level in 0..=depth {
            let pointer = if level == 0 { 0 } else { tree.pointer(level).ok_or_else(damaged)? } as u64;
            let room = node.checked_sub(10 + pointer).ok_or_else(damaged)?;
            let most = room / (u64::from(record) + pointer);
            let below = tree.most.last().map_or(0, |(_, total)| *total);
            let total = (most + 1).checked_mul(below).and_then(|total| total.checked_add(most));
            tree.most.push((most, total.ok_or_else(damaged)?));
        }
        tree.walk(root, count.into(), depth, visit)
    }

    /// Bytes of a child in a node of this level above the leaves.
    fn pointer(&self, level: u16) -> Option<usize> {
        let records = width_of(self.most.first()?.0);
        let total = match level {
            0 | 1 => 0,
            _ => width_of(self.most.get(usize::from(level) - 1)?.1),
        };
        Some(self.file.offsets + records + total)
    }

    fn walk(&self, address: u64, count: u64, level: u16, visit: &mut Visit) -> Outcome<()> {
        let damaged = || "is damaged: an index has an impossible node".to_owned();
        if self.most.get(usize::from(level)).is_none_or(|(most, _)| count > *most) {
            return Err(damaged());
        }
        let bytes = self.file.read(address, self.node)?;
        let mut cursor = Cursor::of(&bytes, self.file);
        cursor.expect(if level == 0 { b"BTLF" } else { b"BTIN" })?;
        cursor.skip(2)?;
        let mut records = Vec::new();
        for _ in 0..count {
            records.push(cursor.take(self.record)?);
        }
        if level == 0 {
            return records.into_iter().try_for_each(|record| visit(self.kind, record));
        }
        let width = width_of(self.most.first().ok_or_else(damaged)?.0);
        let rest = self.pointer(level).ok_or_else(damaged)? - self.file.offsets - width;
        for index in 0..=count {
            let child = cursor.address()?.ok_or_else(damaged)?;
            let inside = cursor.uint(width)?;
            cursor.skip(rest)?;
            self.walk(child, inside, level - 1, visit)?;
            if let Some(record) = records.get(index as usize) {
                visit(self.kind, record)?;
            }
        }
        Ok(())
    }
}
