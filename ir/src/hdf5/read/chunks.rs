//! Datasets in chunks, which may be compressed: unpacked when their elements are read.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use super::bytes::{Cursor, File};
use super::{Outcome, group};
use crate::tensor::Storage;

/// Unpacked chunks that are kept, in bytes: those of one row of chunks are read in turns.
const CACHE: usize = 32 << 20;
/// The most that deflate can shrink, and what a dataset may have beyond what its chunks can hold.
const MAX_RATIO: u64 = 1032;
const SLACK: u64 = 64 << 20;

/// What was done to the bytes of a chunk.
#[derive(Clone, Copy, Debug)]
pub enum Filter {
    Deflate,
    /// The first bytes of all elements of this size, then the second ones, ….
    Shuffle(usize),
    /// A checksum follows.
    Fletcher32,
}

/// How the chunks are found.
pub enum Index {
    /// A version 1 B-tree.
    Tree { tree: u64 },
    /// There is one, maybe packed into so many bytes with these filters left out.
    Single { address: u64, filtered: Option<(u64, u32)> },
    /// They follow each other, none packed.
    Implicit { address: u64 },
    /// A list of all.
    FixedArray { address: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    len: u64,
    /// Filters that were left out, a bit each.
    mask: u32,
}

/// The elements of a dataset in chunks, in C order. The last axis is counted in bytes.
#[derive(Debug)]
pub struct Chunked {
    file: Arc<dyn Storage>,
    shape: Vec<u64>,
    chunk: Vec<u64>,
    chunk_bytes: u64,
    /// By the number of the chunk in C order.
    places: HashMap<u64, Place>,
    filters: Vec<Filter>,
    fill: Vec<u8>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    chunks: HashMap<u64, Arc<Vec<u8>>>,
    bytes: usize,
}

impl Chunked {
    pub fn new(
        file: &File,
        shape: &[usize],
        chunk: &[u64],
        size: usize,
        filters: Vec<Filter>,
        fill: Vec<u8>,
        index: &Index,
    ) -> Outcome<Chunked> {
        let in_bytes = |sizes: &[u64]| -> Option<Vec<u64>> {
            let mut sizes = sizes.to_vec();
            let last = sizes.last_mut()?;
            *last = last.checked_mul(size as u64)?;
            Some(sizes)
        };
        let impossible = || "a dataset of impossible chunks".to_owned();
        let shape: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
        let shape = in_bytes(&shape).ok_or_else(impossible)?;
        let chunk = in_bytes(chunk).ok_or_else(impossible)?;
        let bytes = |sizes: &[u64]| sizes.iter().try_fold(1u64, |all, size| all.checked_mul(*size));
        let chunk_bytes = bytes(&chunk).filter(|bytes| *bytes <= u32::MAX.into()).ok_or_else(impossible)?;
        let total = bytes(&shape).ok_or_else(impossible)?;
        let storage = file.range(0, file.len())?;
        let mut chunked = Chunked {
            file: storage,
            shape,
            chunk,
            chunk_bytes,
            places: HashMap::new(),
            filters,
            fill,
            cache: Mutex::default(),
        };
        let count = chunked.grid().iter().try_fold(1u64, |all, size| all.checked_mul(*size)).ok_or_else(impossible)?;
        if total > 0 {
            chunked.find(file, index, count, size)?;
        }
        let stored: u64 = chunked.places.values().fold(0, |all, place| all.saturating_add(place.len));
        let most = if chunked.filters.is_empty() { stored } else { stored.saturating_mul(MAX_RATIO) };
        if total > most.saturating_add(SLACK) {
            return Err("a dataset that has far more elements than bytes".to_owned());
        }
        if chunked.places.values().any(|place| place.start.saturating_add(place.len) > chunked.file.len()) {
            return Err("a dataset that is cut short".to_owned());
        }
        Ok(chunked)
    }

    /// The number of chunks along every axis.
    fn grid(&self) -> Vec<u64> {
        self.shape.iter().zip(&self.chunk).map(|(size, chunk)| size.div_ceil(*chunk)).collect()
    }

    fn find(&mut self, file: &File, index: &Index, count: u64, size: usize) -> Outcome<()> {
        let whole = self.chunk_bytes;
        match *index {
            Index::Tree { tree } => self.find_in_tree(file, tree, None, size as u64)?,
            Index::Single { address, filtered } => {
                let (len, mask) = filtered.unwrap_or((whole, 0));
                self.places.insert(0, Place { start: address, len, mask });
            }
            Index::Implicit { address } => {
                if count.checked_mul(whole).is_none_or(|bytes| bytes > file.len()) {
                    return Err("a dataset that is cut short".to_owned());
                }
                self.places.extend((0..count).map(|number| {
                    let place = Place { start: address.saturating_add(number * whole), len: whole, mask: 0 };
                    (number, place)
                }));
            }
            Index::FixedArray { address } => self.find_in_array(file, address, count)?,
        }
        Ok(())
    }

    fn find_in_tree(&mut self, file: &File, address: u64, below: Option<u8>, size: u64) -> Outcome<()> {
        let key = 8 + 8 * (self.shape.len() + 1);
        let (level, entries) = group::tree_node(file, address, 1, below, key)?;
        let grid = self.grid();
        for (key, child) in entries {
            if level > 0 {
                self.find_in_tree(file, child, Some(level), size)?;
                continue;
            }
            let mut cursor = Cursor::of(&key, file);
            let (len, mask) = (cursor.u32()?.into(), cursor.u32()?);
            let mut number = Some(0u64);
            for (axis, (chunk, count)) in self.chunk.iter().zip(&grid).enumerate() {
                let mut offset = cursor.uint(8)?;
                if axis + 1 == grid.len() {
                    offset = offset.saturating_mul(size);
                }
                let at = offset / chunk;
                // Chunks beyond a dataset that was made smaller stay in the index.
                number = number.filter(|_| at < *count).map(|number| number * count + at);
            }
            if let Some(number) = number {
                self.places.insert(number, Place { start: child, len, mask });
            }
        }
        Ok(())
    }

    /// The list of chunks that HDF5 1.10 has for datasets of fixed size.
    fn find_in_array(&mut self, file: &File, address: u64, count: u64) -> Outcome<()> {
        let bytes = file.read(address, 8 + file.lengths as u64 + file.offsets as u64)?;
        let mut cursor = Cursor::of(&bytes, file);
        cursor.expect(b"FAHD")?;
        cursor.skip(1)?;
        let (is_filtered, entry, page_bits) = (cursor.u8()? == 1, usize::from(cursor.u8()?), cursor.u8()?);
        let entries = cursor.length()?;
        let block = cursor.address()?;
        let page = 1u64.checked_shl(page_bits.into()).unwrap_or(u64::MAX);
        let widths = file.offsets + if is_filtered { 4 } else { 0 };
        if entries < count || entry < widths || (is_filtered && entry - widths > 8) {
            return Err("a dataset with an impossible index".to_owned());
        }
        let Some(block) = block else { return Ok(()) };
        let head = file.read(block, 6 + file.offsets as u64)?;
        Cursor::of(&head, file).expect(b"FADB")?;
        let mut at = block.saturating_add(6 + file.offsets as u64);
        let pages = entries.div_ceil(page);
        let is_paged = entries > page;
        if is_paged {
            // Which pages are there, and a checksum.
            at = at.saturating_add(pages.div_ceil(8) + 4);
        }
        let mut number = 0;
        while number < count {
            let in_page = if is_paged { page.min(entries - number) } else { entries };
            let len = in_page.checked_mul(entry as u64).ok_or("a dataset with an impossible index")?;
            let bytes = file.read(at, len)?;
            let mut cursor = Cursor::of(&bytes, file);
            for _ in 0..in_page.min(count - number) {
                let start = cursor.address()?;
                let (len, mask) = match is_filtered {
                    true => (cursor.uint(entry - widths)?, cursor.u32()?),
                    false => (self.chunk_bytes, 0),
                };
                if let Some(start) = start {
                    self.places.insert(number, Place { start, len, mask });
                }
                number += 1;
            }
            // Every page has a checksum.
            at = at.saturating_add(len + 4);
        }
        Ok(())
    }

    /// The bytes of a chunk, none if it was never written.
    fn unpacked(&self, number: u64) -> io::Result<Option<Arc<Vec<u8>>>> {
        let Some(place) = self.places.get(&number) else { return Ok(None) };
        let mut cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(chunk) = cache.chunks.get(&number) {
            return Ok(Some(chunk.clone()));
        }
        let chunk = Arc::new(self.unpack(place)?);
        if cache.bytes + chunk.len() > CACHE {
            *cache = Cache::default();
        }
        cache.bytes += chunk.len();
        cache.chunks.insert(number, chunk.clone());
        Ok(Some(chunk))
    }

    fn unpack(&self, place: &Place) -> io::Result<Vec<u8>> {
        let damaged = |message: &str| io::Error::new(io::ErrorKind::InvalidData, message);
        let mut bytes = vec![0; place.len as usize];
        self.file.read_at(place.start, &mut bytes)?;
        for (index, filter) in self.filters.iter().enumerate().rev() {
            if place.mask.checked_shr(index as u32).is_some_and(|bits| bits & 1 != 0) {
                continue;
            }
            match *filter {
                Filter::Deflate => {
                    let mut inflated = Vec::new();
                    // With room for a checksum that was added before.
                    let limit = self.chunk_bytes + 64;
                    flate2::read::ZlibDecoder::new(bytes.as_slice()).take(limit).read_to_end(&mut inflated)?;
                    bytes = inflated;
                }
                Filter::Shuffle(size) => bytes = unshuffled(&bytes, size),
                Filter::Fletcher32 => {
                    let len = bytes.len().checked_sub(4).ok_or_else(|| damaged("a chunk is too short"))?;
                    bytes.truncate(len);
                }
            }
        }
        if bytes.len() as u64 != self.chunk_bytes {
            return Err(damaged("a chunk does not have as many elements as it should"));
        }
        Ok(bytes)
    }
}

fn unshuffled(bytes: &[u8], size: usize) -> Vec<u8> {
    let count = bytes.len().checked_div(size).unwrap_or(0);
    if size < 2 || count < 2 {
        return bytes.to_vec();
    }
    let mut result = Vec::with_capacity(bytes.len());
    for element in 0..count {
        result.extend(bytes.iter().skip(element).step_by(count).take(size));
    }
    // What does not fill an element stays at the end.
    result.extend(bytes.get(count * size..).unwrap_or_default());
    result
}

impl Storage for Chunked {
    fn len(&self) -> u64 {
        self.shape.iter().product()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let grid = self.grid();
        let mut last: Option<(u64, Option<Arc<Vec<u8>>>)> = None;
        let mut done = 0;
        while done < buffer.len() {
            // The place in the dataset: number of the chunk, offset in it, and how far both go on.
            let (mut rest, mut number, mut inside) = (offset + done as u64, 0, 0);
            let (mut chunks, mut stride, mut run) = (1, 1, 0);
            for axis in (0..self.shape.len()).rev() {
                let (size, chunk) = (self.shape[axis], self.chunk[axis]);
                let at = rest % size;
                rest /= size;
                number += at / chunk * chunks;
                inside += at % chunk * stride;
                chunks *= grid[axis];
                stride *= chunk;
                if axis + 1 == self.shape.len() {
                    run = (chunk - at % chunk).min(size - at);
                }
            }
            let run = (run as usize).min(buffer.len() - done);
            let chunk = match &last {
                Some((known, chunk)) if *known == number => chunk.clone(),
                _ => self.unpacked(number)?,
            };
            let target = buffer.get_mut(done..done + run).unwrap_or_default();
            match &chunk {
                Some(chunk) => {
                    let source = chunk.get(inside as usize..inside as usize + run).unwrap_or_default();
                    target.copy_from_slice(source);
                }
                None => {
                    let phase = (inside % self.fill.len().max(1) as u64) as usize;
                    let fill = self.fill.iter().cycle().skip(phase);
                    target.iter_mut().zip(fill).for_each(|(byte, fill)| *byte = *fill);
                }
            }
            last = Some((number, chunk));
            done += run;
        }
        Ok(())
    }
}
