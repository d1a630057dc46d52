//! Reading a state dict takes memory for a chunk, however long the file is: 7 GB here, of which the disk has a few
//! pages.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use modelport_frontends::pytorch::read_state;

/// Tensors in the file, and elements of each.
const COUNT: u32 = 56;
const ELEMENTS: u32 = 1 << 25;

/// What `torch.save` would write, with holes for zeros. Offsets from 4 GB on are in zip's 64-bit fields.
fn write(path: &Path) -> io::Result<()> {
    let text = |text: &str| [b"X", (text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat();
    let int = |number: u32| [b"J".as_slice(), &number.to_le_bytes()].concat();
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for index in 0..COUNT {
        let parts = [
            text(&format!("layers.{index}.weight")),
            b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
            text("storage"),
            b"ctorch\nFloatStorage\n".to_vec(),
            text(&index.to_string()),
            text("cpu"),
            int(ELEMENTS),
            b"tQK\x00".to_vec(),
            int(ELEMENTS),
            b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR".to_vec(),
        ];
        pickle.extend(parts.concat());
    }
    pickle.extend(b"u.");
    let mut file = File::create(path)?;
    let mut directory = Vec::new();
    let names = std::iter::once("a/data.pkl".to_owned()).chain((0..COUNT).map(|index| format!("a/data/{index}")));
    for (place, name) in names.enumerate() {
        let offset = file.stream_position()?;
        let size = if place == 0 { pickle.len() as u32 } else { ELEMENTS * 4 };
        let sizes = [size.to_le_bytes(), size.to_le_bytes()].concat();
        let name_len = (name.len() as u16).to_le_bytes();
        file.write_all(b"PK\x03\x04\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0")?;
        file.write_all(&[&sizes, name_len.as_slice(), b"\0\0", name.as_bytes()].concat())?;
        match place {
            0 => file.write_all(&pickle)?,
            _ => drop(file.seek(SeekFrom::Current(size.into()))?),
        }
        directory.extend(b"PK\x01\x02\x2d\0\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0");
        directory.extend([&sizes, name_len.as_slice(), &12u16.to_le_bytes(), &[0; 10], &[0xff; 4]].concat());
        directory.extend(name.as_bytes());
        directory.extend([b"\x01\0\x08\0".as_slice(), &offset.to_le_bytes()].concat());
    }
    let start = file.stream_position()?;
    file.write_all(&directory)?;
    let end = file.stream_position()?;
    let count = u64::from(COUNT + 1).to_le_bytes();
    let len = (directory.len() as u64).to_le_bytes();
    file.write_all(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x2d\0\x2d\0\0\0\0\0\0\0\0\0")?;
    file.write_all(&[count, count, len, start.to_le_bytes()].concat())?;
    file.write_all(&[b"PK\x06\x07\0\0\0\0".as_slice(), &end.to_le_bytes(), b"\x01\0\0\0"].concat())?;
    file.write_all(&[b"PK\x05\x06\0\0\0\0".as_slice(), &[0xff; 12], b"\0\0"].concat())
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn seven_gigabytes_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.pth");
    write(&path).unwrap();
    let before = peak();
    let state = read_state(&path).unwrap();
    let bytes: u64 = state.tensors.values().map(|tensor| tensor.byte_len() as u64).sum();
    assert_eq!((state.tensors.len(), bytes), (56, 56 * (128 << 20)));
    // Every eighth is read.
    for tensor in state.tensors.values().step_by(8) {
        tensor.write_to(&mut io::sink()).unwrap();
    }
    let grown = peak() - before;
    assert!(grown < 16 << 20, "reading took {grown} bytes");
}
