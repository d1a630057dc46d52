//! Bounded access to the bytes of a file, and numbers in them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::Outcome;
use crate::tensor::Storage;

/// Longest piece that is read to understand a file.
const MAX_PIECE: u64 = 256 << 20;
/// All that may be read to understand a file.
const MAX_READ: u64 = 1 << 30;

/// A file that is being understood.
pub struct File {
    storage: Arc<dyn Storage>,
    /// What addresses count from.
    base: u64,
    /// Bytes of an address, and of a length.
    pub offsets: usize,
    pub lengths: usize,
    /// Bytes that may still be read.
    budget: Cell<u64>,
    /// Global heaps that were read, by address.
    heaps: RefCell<HashMap<u64, Arc<Heap>>>,
}

/// A global heap: its bytes, and where the objects are.
pub struct Heap {
    bytes: Vec<u8>,
    objects: HashMap<u32, Range<usize>>,
}

impl File {
    pub fn new(storage: Arc<dyn Storage>, base: u64) -> File {
        let budget = Cell::new(storage.len().saturating_mul(4).saturating_add(1 << 20).min(MAX_READ));
        File { storage, base, offsets: 8, lengths: 8, budget, heaps: RefCell::default() }
    }

    /// The file with other sizes of addresses and lengths.
    pub fn with(self, offsets: u8, lengths: u8) -> Outcome<File> {
        if ![2, 4, 8].contains(&offsets) || ![2, 4, 8].contains(&lengths) {
            return Err(format!("is damaged: it has addresses of {offsets} bytes and lengths of {lengths} bytes"));
        }
        Ok(File { offsets: offsets.into(), lengths: lengths.into(), ..self })
    }

    /// The file with addresses that count from `base`.
    pub fn based(self, base: u64) -> File {
        File { base, ..self }
    }

    pub fn len(&self) -> u64 {
        self.storage.len().saturating_sub(self.base)
    }

    /// The bytes at an address.
    pub fn read(&self, address: u64, len: u64) -> Outcome<Vec<u8>> {
        let outside = || format!("is damaged or cut short: there are no {len} bytes at {address}");
        let start = address.checked_add(self.base).ok_or_else(outside)?;
        let end = start.checked_add(len).ok_or_else(outside)?;
        if end > self.storage.len() || len > MAX_PIECE {
            return Err(outside());
        }
        let budget = self.budget.get().checked_sub(len.max(16));
        self.budget.set(budget.ok_or("is damaged: its parts refer to each other without an end")?);
        let mut bytes = vec![0; len as usize];
        self.storage.read_at(start, &mut bytes).map_err(|error| format!("can't be read: {error}"))?;
        Ok(bytes)
    }

    /// The bytes at an address, fewer at the end of the file.
    pub fn read_up_to(&self, address: u64, len: u64) -> Outcome<Vec<u8>> {
        self.read(address, len.min(self.len().saturating_sub(address)))
    }

    /// A range of the file, to be read later.
    pub fn range(&self, address: u64, len: u64) -> Outcome<Arc<dyn Storage>> {
        let start = address.checked_add(self.base);
        match start.and_then(|start| Some((start, start.checked_add(len)?))) {
            Some((start, end)) if end <= self.storage.len() => {
                Ok(Arc::new(Part { storage: self.storage.clone(), start, len }))
            }
            _ => Err(format!("elements that are cut short: there are no {len} bytes at {address}")),
        }
    }

    /// A copy of an object of the global heap at an address.
    pub fn heap_object(&self, address: u64, index: u32) -> Outcome<Vec<u8>> {
        let cached = self.heaps.borrow().get(&address).cloned();
        let heap = match cached {
            Some(heap) => heap,
            None => {
                let heap = Arc::new(self.heap(address)?);
                self.heaps.borrow_mut().insert(address, heap.clone());
                heap
            }
        };
        let bytes = heap.objects.get(&index).and_then(|range| heap.bytes.get(range.clone()));
        let bytes = bytes.ok_or("is damaged: a string is missing")?;
        // Many references to one object are memory as well.
        let budget = self.budget.get().checked_sub(bytes.len() as u64);
        self.budget.set(budget.ok_or("is damaged: its strings are longer than the file")?);
        Ok(bytes.to_vec())
    }

    fn heap(&self, address: u64) -> Outcome<Heap> {
        let damaged = || "is damaged: a heap of strings is none".to_owned();
        let head = self.read(address, 8 + self.lengths as u64)?;
        let mut cursor = Cursor::of(&head, self);
        cursor.expect(b"GCOL")?;
        cursor.skip(4)?;
        let size = cursor.length()?;
        let bytes = self.read(address, size)?;
        let mut cursor = Cursor::of(&bytes, self);
        cursor.skip(8 + self.lengths).map_err(|_| damaged())?;
        let mut objects = HashMap::new();
        while cursor.rest().len() >= 8 + self.lengths {
            let index = cursor.u16()?;
            cursor.skip(6)?;
            let len = usize::try_from(cursor.length()?).map_err(|_| damaged())?;
            if index == 0 {
                break;
            }
            let start = cursor.position();
            let end = start.checked_add(len).ok_or_else(damaged)?;
            objects.insert(index.into(), start..end);
            if cursor.skip(len.next_multiple_of(8)).is_err() {
                break;
            }
        }
        Ok(Heap { bytes, objects })
    }
}

#[derive(Debug)]
struct Part {
    storage: Arc<dyn Storage>,
    start: u64,
    len: u64,
}

impl Storage for Part {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        match offset.checked_add(buffer.len() as u64) {
            Some(end) if end <= self.len => self.storage.read_at(self.start + offset, buffer),
            _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Numbers in bytes, one after the other.
#[derive(Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    offsets: usize,
    lengths: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], offsets: usize, lengths: usize) -> Self {
        Cursor { bytes, position: 0, offsets, lengths }
    }

    pub fn of(bytes: &'a [u8], file: &File) -> Self {
        Cursor::new(bytes, file.offsets, file.lengths)
    }

    pub fn with(self, file: &File) -> Self {
        Cursor { offsets: file.offsets, lengths: file.lengths, ..self }
    }

    pub fn position(&self) -> usize {
        self.position
    }

    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    pub fn take(&mut self, len: usize) -> Outcome<&'a [u8]> {
        let bytes = self.rest().get(..len).ok_or("is damaged: a description is cut short")?;
        self.position += len;
        Ok(bytes)
    }

    pub fn skip(&mut self, len: usize) -> Outcome<()> {
        self.take(len).map(|_| ())
    }

    pub fn expect(&mut self, signature: &[u8]) -> Outcome<()> {
        if self.take(signature.len())? == signature {
            return Ok(());
        }
        Err(format!("is damaged: expected a part that begins with {}", String::from_utf8_lossy(signature)))
    }

    /// An unsigned number of up to eight bytes.
    pub fn uint(&mut self, size: usize) -> Outcome<u64> {
        let bytes = self.take(size)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub fn u8(&mut self) -> Outcome<u8> {
        self.uint(1).map(|number| number as u8)
    }

    pub fn u16(&mut self) -> Outcome<u16> {
        self.uint(2).map(|number| number as u16)
    }

    pub fn u32(&mut self) -> Outcome<u32> {
        self.uint(4).map(|number| number as u32)
    }

    pub fn length(&mut self) -> Outcome<u64> {
        self.uint(self.lengths)
    }

    /// An address; none where it is undefined.
    pub fn address(&mut self) -> Outcome<Option<u64>> {
        let undefined = u64::MAX >> (64 - 8 * self.offsets);
        self.uint(self.offsets).map(|address| (address != undefined).then_some(address))
    }
}
