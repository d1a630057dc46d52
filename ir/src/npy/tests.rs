use std::path::Path;

use super::*;
use crate::tensor::Tensor;

fn weights() -> Weights {
    let f = |shape: &[usize]| {
        let n = shape.iter().product::<usize>();
        Tensor::from_f32(shape, &(0..n).map(|i| i as f32 * 0.5 - 1.0).collect::<Vec<_>>())
    };
    let shared = f(&[2, 3, 4]);
    let mut weights = Weights::new();
    let mut layer = IndexMap::new();
    layer.insert("weights".to_owned(), shared.clone());
    layer.insert("turned".to_owned(), shared.permuted(&[2, 0, 1]).unwrap());
    layer.insert("tied".to_owned(), shared);
    layer.insert("empty".to_owned(), f(&[0, 7]));
    layer.insert("scalar".to_owned(), Tensor::from_i64(&[], &[-5]));
    weights.insert("block1/conv".to_owned(), layer);
    let mut types = IndexMap::new();
    for dtype in DType::ALL {
        types.insert(dtype.name().to_owned(), Tensor::from_f64(dtype, &[1, 300], (0..300).map(|i| f64::from(i % 2))));
    }
    weights.insert("types µ".to_owned(), types);
    weights.insert("none".to_owned(), IndexMap::new());
    weights
}

fn assert_equal(a: &Weights, b: &Weights) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (layer, tensors) in a {
        assert_eq!(tensors.keys().collect::<Vec<_>>(), b[layer].keys().collect::<Vec<_>>());
        for (name, tensor) in tensors {
            let other = &b[layer][name];
            assert_eq!((tensor.dtype(), tensor.shape()), (other.dtype(), other.shape()), "{layer} {name}");
            assert_eq!(tensor.to_bytes().unwrap(), other.to_bytes().unwrap(), "{layer} {name}");
        }
    }
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.npy");
    save(&path, &weights()).unwrap();
    let read = read(&path).unwrap();
    assert_equal(&weights(), &read);
    let layer = &read["block1/conv"];
    assert!(layer["weights"].is_same(&layer["tied"]));
    assert!(!layer["weights"].is_same(&layer["turned"]));
}

#[test]
fn the_header_is_numpys() {
    let mut bytes = Vec::new();
    write(&mut bytes, &Weights::new()).unwrap();
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }   "));
    assert_eq!((bytes[127], &bytes[128..130]), (b'\n', b"\x80\x03".as_slice()));
}

fn file(folder: &Path, pickle: &[u8]) -> std::path::PathBuf {
    let mut bytes = Vec::new();
    write(&mut bytes, &Weights::new()).unwrap();
    bytes.truncate(128);
    bytes.extend(pickle);
    let path = folder.join("p.npy");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// An outer array around the pickle of a dictionary.
fn around(dictionary: &[u8]) -> Vec<u8> {
    let mut pickle = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(t".to_vec();
    pickle.extend(b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI63\ntbI00\n(l");
    pickle.extend(dictionary);
    pickle.extend(b"atb.");
    pickle
}

#[test]
fn python_2_text_pickles_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let array: &[u8] = b"(dS'conv'\n(dS'weights'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR\
        (I1\n(I2\nI1\ntcnumpy\ndtype\n(S'i2'\nI0\nI1\ntR(I3\nS'>'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x01\\x02\\n\\''\ntbsV\\u00b5\nI7\nss";
    let read = read(&file(folder.path(), &around(array))).unwrap();
    assert_eq!(read["conv"]["weights"].to_i64().unwrap(), [0x0102, 0x0a27]);
    assert_eq!((read["conv"]["µ"].shape(), read["conv"]["µ"].to_i64().unwrap()), (vec![], vec![7]));
}

#[test]
fn nothing_is_called_and_everything_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |pickle: &[u8]| read(&file(folder.path(), pickle)).unwrap_err().to_string();
    let error = fails(b"\x80\x03cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.");
    assert!(error.contains("'posix.system'"), "{error}");
    let error = fails(&around(b"(dS'a'\nI1\nsS'b'\n(dS'w'\nS'text'\nss"));
    assert!(error.contains("the layer holds a number") && error.contains("'w' is bytes"), "{error}");
    let error = fails(b"\x80\x03B\xff\xff\xff\x7f");
    assert!(error.contains("2147483647 bytes are announced, 0 are left"), "{error}");
    assert!(fails(b"\x80\x03\x85.").contains("an object is missing"));
    assert!(fails(b"\x80\x03").contains("ends early"));
}

#[test]
fn deep_and_circular_data_end_in_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut deep = b"(dS'a'\n(dS'w'\n".to_vec();
    deep.extend(b"]".repeat(200_000));
    deep.extend(b"a".repeat(199_999));
    deep.extend(b"ss");
    assert!(read(&file(folder.path(), &around(&deep))).is_err());
    let circular = b"(dS'a'\n(dS'w'\n]p5\ng5\nag5\nass";
    assert!(read(&file(folder.path(), &around(circular))).is_err());
}

#[test]
fn damaged_files_do_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    let mut small = weights();
    small.swap_remove("types µ");
    write(&mut bytes, &small).unwrap();
    let path = folder.path().join("d.npy");
    for at in 120..bytes.len() {
        for value in [0, b'(', b'R', 0xff, bytes[at] ^ 1] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            std::fs::write(&path, &damaged).unwrap();
            let _ = read(&path).map(|weights| {
                weights.values().flat_map(|layer| layer.values()).for_each(|tensor| drop(tensor.to_bytes()));
            });
        }
        std::fs::write(&path, &bytes[..at]).unwrap();
        assert!(read(&path).is_err());
    }
}

#[test]
fn what_numpy_wrote_is_read() {
    // {'conv1': {'weights': [[0, 1, 2], [3, 4, 5]] in Fortran order, 'bias': float16 [1, 2, .5],
    // 'big': big-endian int32 [0, 1, 2], 'gamma': numpy.float32(2.5)}, 'dense': {'tied': the same weights}}
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.npy");
    let files: [&[u8]; 3] = [
        include_bytes!("fixtures/numpy_1.24.npy"),
        include_bytes!("fixtures/numpy_2.4.npy"),
        include_bytes!("fixtures/protocol_2.npy"),
    ];
    for bytes in files {
        std::fs::write(&path, bytes).unwrap();
        let read = read(&path).unwrap();
        let conv = &read["conv1"];
        let [weights, bias, big, gamma] = ["weights", "bias", "big", "gamma"].map(|name| &conv[name]);
        assert_eq!((weights.shape(), weights.to_f32().unwrap()), (vec![2, 3], vec![0., 1., 2., 3., 4., 5.]));
        assert_eq!((bias.dtype(), bias.to_f32().unwrap()), (DType::Float16, vec![1., 2., 0.5]));
        assert_eq!((big.dtype(), big.to_i64().unwrap()), (DType::Int32, vec![0, 1, 2]));
        assert_eq!((gamma.shape(), gamma.to_f32().unwrap()), (vec![], vec![2.5]));
        assert!(weights.is_same(&read["dense"]["tied"]));
    }
}

#[test]
fn arrays_from_4_gib_take_the_long_opcode() {
    #[derive(Debug)]
    struct Nothing;
    impl crate::tensor::Storage for Nothing {
        fn len(&self) -> u64 {
            1 << 32
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
            Ok(())
        }
    }
    struct Head(Vec<u8>, u64);
    impl std::io::Write for Head {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0.len() < 1024 {
                self.0.extend(bytes.iter().take(1024));
            }
            self.1 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let tensor = Tensor::new(DType::Float32, &[1 << 30], std::sync::Arc::new(Nothing)).unwrap();
    let layer = IndexMap::from([("w".to_owned(), tensor)]);
    let mut head = Head(Vec::new(), 0);
    write(&mut head, &IndexMap::from([("a".to_owned(), layer)])).unwrap();
    assert_eq!(&head.0[128..130], b"\x80\x04");
    assert!(head.0.windows(9).any(|w| w == b"\x8e\0\0\0\0\x01\0\0\0"));
    assert!((1..1000).contains(&(head.1 - (1 << 32))));
}
