//! The bytes of a pickle, read forwards, and the strings of its text opcodes.

use std::sync::Arc;

use crate::tensor::Storage;

/// Of a line of the text opcodes, but for strings.
pub(super) const MAX_LINE: usize = 1 << 10;

/// The file, read forwards in chunks.
pub(super) struct Input {
    pub file: Arc<dyn Storage>,
    pub position: u64,
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl Input {
    const CHUNK: u64 = 1 << 16;

    pub fn new(file: Arc<dyn Storage>, start: u64) -> Input {
        Input { file, position: start, buffer: Vec::new(), buffer_start: start }
    }

    pub fn byte(&mut self) -> Result<u8, String> {
        let at = self.position.wrapping_sub(self.buffer_start);
        let byte = match usize::try_from(at).ok().and_then(|at| self.buffer.get(at)) {
            Some(&byte) => byte,
            None => {
                let len = self.file.len().saturating_sub(self.position).min(Self::CHUNK);
                self.buffer.resize(len as usize, 0);
                self.buffer_start = self.position;
                self.file.read_at(self.position, &mut self.buffer).map_err(|e| e.to_string())?;
                self.buffer.first().copied().ok_or("there are no more bytes")?
            }
        };
        self.position += 1;
        Ok(byte)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    pub fn skip(&mut self, len: u64) -> Result<(), String> {
        match self.position.checked_add(len) {
            Some(end) if end <= self.file.len() => {
                self.position = end;
                Ok(())
            }
            _ => Err(format!("{len} bytes are announced, {} are left", self.file.len().saturating_sub(self.position))),
        }
    }

    pub fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return String::from_utf8(line).map_err(|_| "a name is not UTF-8".to_owned()),
                _ if line.len() >= MAX_LINE => return Err("a line is too long".to_owned()),
                byte => line.push(byte),
            }
        }
    }

    /// A line that may hold an array: bounded by the file only.
    pub fn long_line(&mut self) -> Result<Vec<u8>, String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                byte => line.push(byte),
            }
        }
    }
}

/// The bytes of a Python 2 string literal, quotes included.
pub(super) fn unescape(literal: &[u8]) -> Result<Vec<u8>, String> {
    let damaged = || "a string is not quoted".to_owned();
    let (quote, inner) = match literal {
        [quote @ (b'\'' | b'"'), inner @ .., end] if quote == end => (*quote, inner),
        _ => return Err(damaged()),
    };
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        if byte == quote {
            return Err(damaged());
        }
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next().ok_or_else(damaged)? {
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'x' => {
                let mut digit = || rest.next().and_then(|d| char::from(d).to_digit(16)).ok_or_else(damaged);
                bytes.push((digit()? * 16 + digit()?) as u8);
            }
            other @ (b'\\' | b'\'' | b'"') => bytes.push(other),
            _ => return Err("a string has an escape that Python does not write".to_owned()),
        }
    }
    Ok(bytes)
}

/// UTF-8 of a raw-unicode-escape line: latin-1 with `\uXXXX` and `\UXXXXXXXX`.
pub(super) fn unescape_unicode(line: &[u8]) -> Result<Vec<u8>, String> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line.iter().copied();
    while let Some(byte) = rest.next() {
        let digits = match (byte, rest.clone().next()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(byte));
                continue;
            }
        };
        rest.next();
        let mut code = 0u32;
        for _ in 0..digits {
            let digit = rest.next().and_then(|d| char::from(d).to_digit(16)).ok_or("an escape is cut short")?;
            code = code << 4 | digit;
        }
        text.push(char::from_u32(code).ok_or("an escape is no character")?);
    }
    Ok(text.into_bytes())
}
