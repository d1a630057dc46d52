//! Array bytes that do not lie in the file as they are: text of protocol 2.

use std::io;
use std::sync::Arc;

use crate::tensor::Storage;

/// Characters between two positions that are remembered.
const STEP: u64 = 1 << 16;

/// Bytes that Python 3 wrote with protocol 2: a string of the characters U+0000 to U+00FF, in UTF-8.
#[derive(Debug)]
pub(super) struct Latin1 {
    text: Arc<dyn Storage>,
    /// Where every `STEP`th character begins.
    positions: Vec<u64>,
    len: u64,
}

impl Latin1 {
    /// Reads the text once, to count its characters.
    ///
    /// # Errors
    /// When it is no such string.
    pub fn new(text: Arc<dyn Storage>) -> io::Result<Latin1> {
        let mut positions = Vec::new();
        let (mut len, mut position) = (0u64, 0u64);
        let mut chunk = vec![0; STEP as usize];
        let mut in_pair = false;
        while position < text.len() {
            let size = (text.len() - position).min(STEP) as usize;
            let part = chunk.get_mut(..size).unwrap_or_default();
            text.read_at(position, part)?;
            for &byte in part.iter() {
                match (in_pair, byte) {
                    (true, 0x80..=0xbf) => in_pair = false,
                    (false, 0x00..=0x7f | 0xc2 | 0xc3) => {
                        if len.is_multiple_of(STEP) {
                            positions.push(position);
                        }
                        len += 1;
                        in_pair = byte > 0x7f;
                    }
                    _ => return Err(invalid("an array's bytes are not encoded as latin-1")),
                }
                position += 1;
            }
        }
        if in_pair { Err(invalid("an array's bytes end early")) } else { Ok(Latin1 { text, positions, len }) }
    }
}

impl Storage for Latin1 {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(&start) = self.positions.get((offset / STEP) as usize) else { return Ok(()) };
        let mut skip = offset % STEP;
        let mut position = start;
        let mut targets = buffer.iter_mut();
        let mut chunk = vec![0; STEP as usize];
        let mut high = None;
        while targets.len() > 0 {
            let size = (self.text.len().saturating_sub(position)).min(STEP) as usize;
            let part = chunk.get_mut(..size).filter(|part| !part.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?;
            self.text.read_at(position, part)?;
            position += size as u64;
            for &byte in part.iter() {
                let byte = match (high.take(), byte) {
                    (Some(high), low) => high << 6 | low & 0x3f,
                    (None, 0xc2 | 0xc3) => {
                        high = Some(byte & 0x03);
                        continue;
                    }
                    (None, byte) => byte,
                };
                if skip > 0 {
                    skip -= 1;
                } else if let Some(target) = targets.next() {
                    *target = byte;
                } else {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
