//! Thousands of damaged files: each is read or refused, and nothing panics, hangs or takes memory that a file of a few
//! kilobytes can't ask for.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use modelport_frontends::{Source, pytorch};

/// Damaged versions of every file.
const VERSIONS: usize = 250;
/// Tensors up to this many bytes are read.
const SMALL: usize = 1 << 20;

/// Numbers without order, the same on every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// One to four changes of the kinds that transfers, disks and enemies make.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => bytes[at] = random.below(256) as u8,
            2 => bytes[at] ^= 1 << random.below(8),
            3 => bytes[at] = [0x00, 0xff, 0x7f, 0x80, b'.', b'(', b'R', b'b'][random.below(8)],
            4 => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = 0xff),
            5 => {
                let len = random.below(64).min(bytes.len() - at);
                let part = bytes[at..at + len].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, part);
            }
            _ => {
                let end = (at + random.below(32)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
        if bytes.is_empty() {
            return;
        }
    }
}

fn look(path: &Path) -> bool {
    let _ = pytorch::read_module(path);
    let is_program = path.extension().is_some_and(|extension| extension == "pt2" || extension == "pt");
    if is_program {
        let source = Source { network: Some(path.to_owned()), ..Source::default() };
        return pytorch::read(&source).is_ok();
    }
    let Ok(state) = pytorch::read_state(path) else { return false };
    for tensor in state.tensors.values().chain(state.counters.values()).filter(|tensor| tensor.byte_len() <= SMALL) {
        let _ = tensor.to_f64();
    }
    true
}

#[test]
fn damaged_files_are_read_or_refused() {
    let fixtures = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pytorch"));
    let mut files: Vec<PathBuf> = fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut read, mut refused) = (0, 0);
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension != "txt")) {
        let whole = fs::read(file).unwrap();
        let path = folder.path().join(file.file_name().unwrap());
        for _ in 0..VERSIONS {
            let mut bytes = whole.clone();
            damage(&mut bytes, &mut random);
            fs::write(&path, &bytes).unwrap();
            match look(&path) {
                true => read += 1,
                false => refused += 1,
            }
        }
    }
    assert!(read > 100 && refused > 1000, "{read} were read, {refused} refused: the damage is too little or too much");
}
