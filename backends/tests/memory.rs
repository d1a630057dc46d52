//! Writing weights takes memory for one tensor, however many there are, and for a part of one that is large.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::Arc;

use modelport_backends::keras::files;
use modelport_backends::plan::Param;
use modelport_backends::weights;
use modelport_ir::atomic::AtomicFile;
use modelport_ir::hdf5::Group;
use modelport_ir::tensor::Storage;
use modelport_ir::{DType, Tensor};

/// Bytes that take no memory.
#[derive(Debug)]
struct Ones(u64);

impl Storage for Ones {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(1);
        Ok(())
    }
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn memory_is_flat() {
    let (count, shape) = (96, [512, 1024]);
    let bytes = 512 * 1024 * 4;
    let params: Vec<Param> = (0..count)
        .map(|index| {
            let tensor = Tensor::new(DType::Float32, &shape, Arc::new(Ones(bytes))).unwrap();
            // Some are transposed.
            let tensor = if index % 32 == 0 { tensor.permuted(&[1, 0]).unwrap() } else { tensor };
            Param { key: format!("layer{index}.weight"), tensor, source: String::new() }
        })
        .collect();
    let before = peak();
    let folder = tempfile::tempdir().unwrap();
    for name in ["w.pth", "w.safetensors", "w.npy"] {
        let path = folder.path().join(name);
        weights::write(&path, &params).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() > count * bytes, "{name}");
        std::fs::remove_file(&path).unwrap();
        let grown = peak() - before;
        assert!(grown < 16 << 20, "{name} took {grown} bytes for {count} tensors of {bytes} bytes");
    }

    // Keras' files, and one that is made of another.
    let mut root = Group::default();
    for param in &params {
        root.put(&format!("layers/{}/vars/0", param.key), param.tensor.clone()).unwrap();
    }
    let (plain, archive) = (folder.path().join("net.weights.h5"), folder.path().join("net.keras"));
    let mut file = AtomicFile::create(&plain).unwrap();
    files::write_hdf5(&mut file, &root, None).unwrap();
    file.commit().unwrap();
    let mut file = AtomicFile::create(&archive).unwrap();
    files::write_archive(&mut file, "{}", &Group::open(&plain).unwrap(), &[], None).unwrap();
    file.commit().unwrap();
    for path in [plain, archive] {
        assert!(std::fs::metadata(&path).unwrap().len() > count * bytes, "{}", path.display());
    }
    let grown = peak() - before;
    assert!(grown < 16 << 20, "Keras' files took {grown} bytes for {count} tensors of {bytes} bytes");

    // One that is turned takes memory for a part of it.
    let bytes = 4096 * 4096 * 8;
    let kernel = Tensor::new(DType::Float64, &[4096, 4096], Arc::new(Ones(bytes))).unwrap().permuted(&[1, 0]).unwrap();
    let mut root = Group::default();
    root.put("layers/dense/vars/0", kernel).unwrap();
    let path = folder.path().join("large.weights.h5");
    let mut file = AtomicFile::create(&path).unwrap();
    files::write_hdf5(&mut file, &root, None).unwrap();
    file.commit().unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() > bytes);
    let grown = peak() - before;
    assert!(grown < 64 << 20, "a kernel of {bytes} bytes took {grown}");
}
