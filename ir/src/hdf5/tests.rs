use super::*;
use crate::DType;

/// A file with everything that can be written.
fn sample() -> Group {
    let mut root = Group::default();
    root.attributes.insert("model_config".into(), Attribute::Text("{\"name\": \"strü\"}".repeat(5000)));
    root.attributes.insert("backend".into(), Attribute::Text("tensorflow".into()));
    root.attributes.insert("numbers".into(), Attribute::Numbers(Tensor::from_i64(&[2, 2], &[1, -2, 3, 4])));
    root.set_texts("names", vec!["conv/kernel:0".into(), "b:0".into()]);
    root.set_texts("none", Vec::new());
    for dtype in DType::ALL {
        let values = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0];
        root.put(&format!("types/{dtype}"), Tensor::from_f64(dtype, &[2, 3], values)).unwrap();
    }
    root.put("scalar", Tensor::from_f32(&[], &[3.5])).unwrap();
    root.put("empty", Tensor::from_f32(&[0, 4], &[])).unwrap();
    let kernel = Tensor::from_f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).permuted(&[1, 0]).unwrap();
    root.put("a/b/c/kernel:0", kernel).unwrap();
    for index in 0..700 {
        root.put(&format!("many/layer_{index}/vars/0"), Tensor::from_i64(&[1], &[index])).unwrap();
    }
    root.make("nothing").unwrap();
    root
}

fn bytes(root: &Group) -> Vec<u8> {
    let plan = Plan::of(root).unwrap();
    let mut bytes = Vec::new();
    plan.write_to(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, plan.len());
    bytes
}

fn read(bytes: Vec<u8>) -> std::result::Result<Group, String> {
    Group::read(Arc::new(bytes))
}

#[test]
fn what_is_written_is_read() {
    let root = sample();
    let file = bytes(&root);
    assert!(file == bytes(&root), "the bytes depend on something else");
    let back = read(file).unwrap();
    assert_eq!(back.text("model_config"), root.text("model_config"));
    assert_eq!(back.text("backend"), Some("tensorflow"));
    assert_eq!(back.texts("names").unwrap(), ["conv/kernel:0", "b:0"]);
    assert_eq!(back.texts("none").unwrap(), [""; 0]);
    assert!(matches!(&back.attributes["numbers"], Attribute::Numbers(t) if t.to_i64().unwrap() == [1, -2, 3, 4]));
    let written = root.datasets();
    assert_eq!(back.datasets().len(), written.len());
    for (path, dataset) in written {
        let found = &back.dataset(&path).unwrap_or_else(|| panic!("{path}")).tensor;
        assert_eq!((found.dtype(), found.shape()), (dataset.tensor.dtype(), dataset.tensor.shape()), "{path}");
        assert_eq!(found.to_bytes().unwrap(), dataset.tensor.to_bytes().unwrap(), "{path}");
    }
    assert!(back.group("nothing").unwrap().members.is_empty());
    assert!(back.get("a/b/x").is_none() && back.get("scalar/x").is_none());
}

#[test]
fn what_is_read_is_written_alike() {
    let mut file = bytes(&sample());
    // Members come back in the order of their names, so the second file settles it.
    for _ in 0..2 {
        let next = bytes(&read(file.clone()).unwrap());
        assert_eq!(next.len(), file.len());
        file = next;
    }
    assert!(bytes(&read(file.clone()).unwrap()) == file);
}

#[test]
fn long_lists_are_split_evenly() {
    let mut group = Group::default();
    let names: Vec<String> = (0..5001).map(|index| format!("block_{index:05}/kernel:0")).collect();
    group.set_texts("weight_names", names.clone());
    let len = |name: &str| match &group.attributes[name] {
        Attribute::Texts(texts) => texts.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!([len("weight_names0"), len("weight_names1")], [2501, 2500]);
    assert!(!group.attributes.contains_key("weight_names") && !group.attributes.contains_key("weight_names2"));
    assert_eq!(read(bytes(&group)).unwrap().texts("weight_names").unwrap(), names);
}

#[test]
fn what_can_not_be_written_is_named() {
    let mut root = Group::default();
    root.make("a/b").unwrap().attributes.insert("x".into(), Attribute::Texts(vec!["y".repeat(70_000)]));
    assert_eq!(Plan::of(&root).unwrap_err(), "a/b/the attribute x is over 64 kB");
    let mut root = Group::default();
    root.make("a").unwrap().members.insert("b".into(), Node::Other("a soft link".into()));
    assert_eq!(Plan::of(&root).unwrap_err(), "a/b: can't be written, it is a soft link");
    let mut root = Group::default();
    root.put("a", Tensor::from_f32(&[1], &[1.0])).unwrap();
    assert!(root.put("a/b", Tensor::from_f32(&[1], &[1.0])).is_err());
    assert!(root.put("a", Tensor::from_f32(&[1], &[1.0])).is_err());
}

#[test]
fn files_cut_short_are_refused() {
    let file = bytes(&sample());
    assert!(read(Vec::new()).unwrap_err().contains("is no HDF5 file"));
    for len in (0..file.len()).step_by(file.len() / 150) {
        match read(file[..len].to_vec()) {
            Err(message) => assert!(!message.is_empty()),
            // Only elements are missing: their datasets say so.
            Ok(root) => {
                let mut others = 0;
                root.walk("", &mut |_, node| others += usize::from(matches!(node, Node::Other(_))));
                assert!(others > 0, "{len}");
            }
        }
    }
}

/// A generator of numbers that are the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Reads a file as far as it goes: nothing may panic or take much memory.
fn exercise(file: Vec<u8>) {
    let limit = 64 << 20;
    if let Ok(root) = read(file) {
        for (_, dataset) in root.datasets() {
            if dataset.tensor.byte_len() < limit {
                let _ = dataset.tensor.to_bytes();
            }
        }
    }
}

#[test]
fn damaged_files_do_no_harm() {
    let mut small = Group::default();
    small.attributes.insert("model_config".into(), Attribute::Text("{}".into()));
    small.set_texts("names", vec!["a:0".into()]);
    small.put("a/b", Tensor::from_f32(&[4], &[1.0; 4])).unwrap();
    let mut files = vec![bytes(&small)];
    for name in ["earliest", "latest", "chunked"] {
        files.push(std::fs::read(format!("{}/src/hdf5/fixtures/{name}.h5", env!("CARGO_MANIFEST_DIR"))).unwrap());
    }
    let mut random = Random(7);
    for file in &files {
        // Zeros say little: most changes are made where there is something.
        let telling: Vec<usize> = (0..file.len()).filter(|at| file[*at] != 0).collect();
        for round in 0..500 {
            let mut damaged = file.clone();
            for _ in 0..1 + round % 3 {
                let at = telling[random.below(telling.len())];
                let near = (at + random.below(8)).min(file.len() - 1);
                damaged[near] = match random.below(4) {
                    0 => 0xff,
                    1 => 0,
                    2 => damaged[near].wrapping_add(1),
                    _ => random.below(256) as u8,
                };
            }
            exercise(damaged);
        }
    }
}

#[test]
fn groups_that_contain_themselves_are_refused() {
    let mut root = Group::default();
    root.make("a/b").unwrap();
    let mut file = bytes(&root);
    // The root's entry leads to `a` instead of `b`'s parent: `a` contains itself.
    let header = u64::from_le_bytes(file[64..72].try_into().unwrap());
    let names: Vec<usize> = (0..file.len() - 4).filter(|at| &file[*at..at + 4] == b"SNOD").collect();
    for at in names {
        file[at + 16..at + 24].copy_from_slice(&header.to_le_bytes());
    }
    let message = read(file).unwrap_err();
    assert!(message.contains("nested more than 64 deep"), "{message}");
}

fn fixture(name: &str) -> Group {
    Group::open(Path::new(&format!("{}/src/hdf5/fixtures/{name}.h5", env!("CARGO_MANIFEST_DIR")))).unwrap()
}

/// Both files have the same in them, in the oldest and in the newest format (see `fixtures/make.py`).
#[test]
fn formats_of_h5py_are_read() {
    for name in ["earliest", "latest"] {
        let root = fixture(name);
        let counting =
            |path: &str| root.dataset(path).unwrap_or_else(|| panic!("{name}: {path}")).tensor.to_f64().unwrap();
        assert_eq!(counting("float32"), (0..6).map(f64::from).collect::<Vec<_>>());
        assert_eq!(counting("big"), (0..6).map(f64::from).collect::<Vec<_>>());
        assert_eq!(counting("compact"), [1.0, 2.0, 3.0]);
        assert_eq!(counting("unwritten"), [7.0, 7.0]);
        assert_eq!(counting("bool"), [1.0, 0.0]);
        assert_eq!(counting("half"), [0.5, -2.0]);
        assert_eq!(counting("bfloat16"), [0.5, -2.0]);
        assert_eq!(counting("scalar"), [5.0]);
        for index in [0, 1, 99, 299] {
            assert_eq!(counting(&format!("many/layer_{index}")), [f64::from(index % 3)]);
        }
        assert_eq!(root.group("many").unwrap().members.len(), 300);
        assert_eq!(root.text("text"), Some("strü"));
        assert_eq!(root.texts("texts").unwrap(), ["a:0", "bcd:0"]);
        assert_eq!(root.texts("fixed").unwrap(), ["a:0", "bcd:0"]);
        assert_eq!(root.texts("none").unwrap(), [""; 0]);
        let attributes = &root.group("attributes").unwrap().attributes;
        assert_eq!(attributes.len(), 40);
        assert!(matches!(&attributes["a7"], Attribute::Numbers(t) if t.to_i64().unwrap() == [7]));
        assert!(matches!(root.get("strings"), Some(Node::Other(what)) if what == "strings"));
        assert!(matches!(root.get("soft"), Some(Node::Other(what)) if what == "a soft link"));
    }
}

#[test]
fn chunks_are_read() {
    let root = fixture("chunked");
    let datasets = root.datasets();
    assert_eq!(datasets.len(), 10);
    for (path, dataset) in datasets {
        let tensor = &dataset.tensor;
        let expected: Vec<f64> = (0..tensor.numel()).map(|index| index as f64).collect();
        assert_eq!(tensor.to_f64().unwrap(), expected, "{path}");
        // Also from the middle, and in another order.
        let rows = tensor.shape()[0];
        let part = tensor.sliced(0, rows / 2, rows).unwrap();
        assert_eq!(part.to_f64().unwrap(), expected[expected.len() / rows * (rows / 2)..], "{path}");
    }
    assert!(matches!(root.get("lzf"), Some(Node::Other(what)) if what.contains("lzf")));
    assert!(matches!(root.get("grows"), Some(Node::Other(what)) if what.contains("can grow")));
}
