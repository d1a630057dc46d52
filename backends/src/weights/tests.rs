use std::io::Read;
use std::path::PathBuf;

use modelport_ir::tensor::Storage;
use modelport_ir::{DType, Tensor};

use super::*;

fn param(key: &str, tensor: &Tensor) -> Param {
    Param { key: key.to_owned(), tensor: tensor.clone(), source: String::new() }
}

/// A kernel in another order than its storage's, a tied weight, every element type, a scalar, nothing, long axes.
fn params() -> Vec<Param> {
    let numbers: Vec<f32> = (0..24).map(|i| i as f32 / 2.0).collect();
    let kernel = Tensor::from_f32(&[2, 3, 4], &numbers).permuted(&[2, 0, 1]).unwrap();
    let mut params = vec![
        param("scale", &Tensor::from_f32(&[], &[0.5])),
        param("stem.conv.weight", &kernel),
        param("stem.conv.bias", &Tensor::from_f32(&[300], &[1.0; 300])),
        param("stem.bn.num_batches_tracked", &Tensor::from_i64(&[], &[0])),
        param("head.weight", &kernel),
        param("empty.weight", &Tensor::from_f32(&[0, 3], &[])),
    ];
    for dtype in DType::ALL {
        params.push(param(&format!("types.{dtype}"), &Tensor::from_f64(dtype, &[2, 2], [0.0, 1.0, 1.0, 0.0])));
    }
    params
}

/// What a frontend reads again.
fn read(path: &Path) -> Result<Vec<Param>> {
    let named = modelport_frontends::pytorch::read_weights(path)?;
    Ok(named.into_iter().map(|(key, tensor)| Param { key, tensor, source: String::new() }).collect())
}

fn written(name: &str, params: &[Param]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    write(&path, params).unwrap();
    (folder, path)
}

fn facts(params: &[Param]) -> Vec<(&str, DType, Vec<usize>, Vec<u8>)> {
    let mut facts: Vec<_> = params
        .iter()
        .map(|p| (p.key.as_str(), p.tensor.dtype(), p.tensor.shape(), p.tensor.to_bytes().unwrap()))
        .collect();
    facts.sort_by_key(|fact| fact.0);
    facts
}

#[test]
fn every_format_gives_back_what_it_was_given() {
    let params = params();
    for name in ["w.pth", "w.PT", "w.safetensors", "w.npy"] {
        let (_folder, path) = written(name, &params);
        let back = read(&path).unwrap();
        assert_eq!(facts(&back), facts(&params), "{name}");
        let at = |key: &str| &back.iter().find(|p| p.key == key).unwrap().tensor;
        let tied = at("stem.conv.weight").is_same(at("head.weight"));
        assert_eq!(tied, name != "w.safetensors", "{name}");
        let (_folder, again) = written(name, &params);
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap(), "{name}");
    }
}

#[test]
fn the_order_of_weights_is_kept() {
    let params = params();
    let (_folder, path) = written("w.pth", &params);
    let keys: Vec<String> = read(&path).unwrap().into_iter().map(|p| p.key).collect();
    assert_eq!(keys, params.iter().map(|p| p.key.clone()).collect::<Vec<_>>());
}

#[test]
fn archives_are_valid_and_aligned() {
    let params = params();
    let (_folder, path) = written("net.pth", &params);
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&path).unwrap()).unwrap();
    let mut payloads = 0;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        assert_eq!(entry.compression(), zip::CompressionMethod::Stored);
        assert_eq!(entry.data_start().unwrap() % 64, 0);
        let name = entry.name().unwrap().into_owned();
        assert!(name.starts_with("net/"), "{name}");
        payloads += usize::from(name.starts_with("net/data/"));
        // Reading to the end compares the checksum.
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, entry.size());
    }
    assert_eq!(payloads, params.len() - 1, "the tied weight is there once");
}

#[test]
fn a_whole_network_restores_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.pth");
    let mut file = AtomicFile::create(&path).unwrap();
    let mut told = 0;
    let mut progress = |bytes| told += bytes;
    let options = Options { module: Some("net"), progress: Some(&mut progress) };
    write_to(&mut file, Format::Torch, &params(), options).unwrap();
    file.commit().unwrap();
    assert_eq!(told, std::fs::metadata(&path).unwrap().len());
    assert_eq!(facts(&read(&path).unwrap()), facts(&params()));

    let mut file = AtomicFile::create(&folder.path().join("net.npy")).unwrap();
    let options = Options { module: Some("net"), progress: None };
    assert!(write_to(&mut file, Format::Npy, &params(), options).is_err());
}

#[test]
fn a_tensor_that_can_not_be_read_leaves_no_file() {
    #[derive(Debug)]
    struct Gone;
    impl Storage for Gone {
        fn len(&self) -> u64 {
            8
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let gone = Tensor::new(DType::Float32, &[2], std::sync::Arc::new(Gone)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["w.pth", "w.safetensors", "w.npy"] {
        let error = write(&folder.path().join(name), &[param("a", &gone)]).unwrap_err().to_string();
        assert_eq!(error, "a weight can't be read: the disk is gone", "{name}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn extensions_tell_the_format() {
    let error = Format::of(Path::new("model.h5")).unwrap_err().to_string();
    assert_eq!(error, "model.h5: weights can't be .h5\n    expected one of .pth, .pt, .safetensors, .npy");
    assert!(Format::of(Path::new("model")).unwrap_err().to_string().contains("has no extension"));
}

/// Every file that is cut short or has one byte changed is read or refused; nothing panics.
#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["w.pth", "w.safetensors", "w.npy"] {
        let (_folder, path) = written(name, &params());
        let whole = std::fs::read(&path).unwrap();
        let damaged = folder.path().join(name);
        for len in (0..whole.len()).step_by(whole.len() / 50) {
            std::fs::write(&damaged, &whole[..len]).unwrap();
            let refused = match read(&damaged) {
                Ok(params) => params.iter().any(|p| p.tensor.to_bytes().is_err()),
                Err(_) => true,
            };
            assert!(refused, "{name} of {len} bytes");
        }
        for at in (0..whole.len()).step_by(29) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            std::fs::write(&damaged, &bytes).unwrap();
            for param in read(&damaged).unwrap_or_default() {
                let _ = param.tensor.byte_len();
            }
        }
    }
}

#[test]
fn other_pickles_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evil.pth");
    let mut bytes = Vec::new();
    let mut archive = archive::Archive::new(&mut bytes);
    let pickle = b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.";
    archive.add("evil/data.pkl", pickle.len() as u64, |out| out.write_all(pickle)).unwrap();
    for patch in archive.finish().unwrap() {
        let at = patch.offset as usize;
        bytes[at..at + 4].copy_from_slice(&patch.bytes);
    }
    std::fs::write(&path, bytes).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("'os.system'"), "{error}");
}
