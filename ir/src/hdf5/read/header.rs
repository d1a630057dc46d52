//! Object headers: lists of messages, in blocks that continue each other.

use std::collections::HashSet;

use super::Outcome;
use super::bytes::{Cursor, File};

/// Kinds of messages.
pub const DATASPACE: u16 = 0x01;
pub const LINK_INFO: u16 = 0x02;
pub const DATATYPE: u16 = 0x03;
pub const FILL_VALUE: u16 = 0x05;
pub const LINK: u16 = 0x06;
pub const EXTERNAL: u16 = 0x07;
pub const LAYOUT: u16 = 0x08;
pub const FILTERS: u16 = 0x0b;
pub const ATTRIBUTE: u16 = 0x0c;
const CONTINUATION: u16 = 0x10;
pub const SYMBOL_TABLE: u16 = 0x11;
pub const ATTRIBUTE_INFO: u16 = 0x15;

/// A message is elsewhere.
const SHARED: u8 = 2;

/// One message.
pub struct Message {
    pub kind: u16,
    pub flags: u8,
    pub body: Vec<u8>,
}

/// What is said of an object.
pub struct Header {
    pub messages: Vec<Message>,
}

impl Header {
    pub fn all(&self, kind: u16) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(move |message| message.kind == kind)
    }

    pub fn first(&self, kind: u16) -> Option<&Message> {
        self.all(kind).next()
    }
}

/// Reads all messages of the header at an address.
pub fn read(file: &File, address: u64) -> Outcome<Header> {
    let start = file.read_up_to(address, 64)?;
    let mut cursor = Cursor::of(&start, file);
    let is_new = start.starts_with(b"OHDR");
    let (has_order, body, len) = if is_new {
        cursor.skip(4)?;
        let version = cursor.u8()?;
        if version != 2 {
            return Err(format!("has an object of header version {version}, which is not known"));
        }
        let flags = cursor.u8()?;
        cursor.skip(if flags & 0x20 != 0 { 16 } else { 0 })?;
        cursor.skip(if flags & 0x10 != 0 { 4 } else { 0 })?;
        let len = cursor.uint(1 << (flags & 3))?;
        (flags & 4 != 0, cursor.position(), len)
    } else {
        let version = cursor.u8()?;
        if version != 1 {
            return Err(format!("is damaged: there is no object at {address}"));
        }
        cursor.skip(7)?;
        let len = cursor.u32()?;
        (false, 16, len.into())
    };
    let mut blocks = vec![(address.saturating_add(body as u64), len)];
    let mut seen = HashSet::new();
    let mut messages = Vec::new();
    while let Some((address, len)) = blocks.pop() {
        if !seen.insert(address) {
            return Err("is damaged: the description of an object continues in itself".to_owned());
        }
        let bytes = file.read(address, len)?;
        let mut cursor = Cursor::of(&bytes, file);
        let head = if is_new { 4 + 2 * usize::from(has_order) } else { 8 };
        // What is left of a block is a gap.
        while cursor.rest().len() >= head {
            let (kind, size, flags);
            if is_new {
                kind = cursor.u8()?.into();
                size = cursor.u16()?;
                flags = cursor.u8()?;
                cursor.skip(2 * usize::from(has_order))?;
            } else {
                kind = cursor.u16()?;
                size = cursor.u16()?;
                flags = cursor.u8()?;
                cursor.skip(3)?;
            }
            let body = cursor.take(size.into())?;
            if kind != CONTINUATION {
                messages.push(Message { kind, flags, body: body.to_vec() });
                continue;
            }
            let mut next = Cursor::of(body, file);
            let at = next.address()?.ok_or("is damaged: the description of an object is cut short")?;
            let len = next.length()?;
            blocks.push(match is_new {
                // Without the signature before and the checksum behind.
                true => (at.saturating_add(4), len.checked_sub(8).ok_or("is damaged: a block is too short")?),
                false => (at, len),
            });
        }
    }
    Ok(Header { messages })
}

/// The body of a message, which for one that is shared is in another object.
pub fn body(file: &File, message: &Message) -> Outcome<Vec<u8>> {
    if message.flags & SHARED == 0 {
        return Ok(message.body.clone());
    }
    shared(file, &message.body, message.kind)
}

/// The message of this kind that a reference means.
pub fn shared(file: &File, reference: &[u8], kind: u16) -> Outcome<Vec<u8>> {
    let mut cursor = Cursor::of(reference, file);
    let (version, place) = (cursor.u8()?, cursor.u8()?);
    match version {
        1 => cursor.skip(6)?,
        3 if place != 2 => return Err("of a type that is in the table of shared messages".to_owned()),
        _ => {}
    }
    let address = cursor.address()?.ok_or("is damaged: a type is missing")?;
    let header = read(file, address)?;
    let found = header.first(kind).filter(|message| message.flags & SHARED == 0);
    found.map(|message| message.body.clone()).ok_or_else(|| "is damaged: a type is missing".to_owned())
}
