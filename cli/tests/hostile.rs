//! Files made to harm: pickles that call, archives that lie, lengths that are not there. Every one ends in an error that
//! says what is wrong, nothing in them runs, and memory stays bounded.
//!
//! The texts are in `errors/hostile.txt`; run with `UPDATE_SNAPSHOTS=1` to write them anew, and read the difference.

#![allow(clippy::unwrap_used, clippy::panic)]
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Kilobytes of address space that the program may take, its own code included.
const MEMORY: u32 = 400_000;

/// An entry of a zip archive, and what the archive says of it.
#[derive(Clone, Default)]
struct Entry {
    name: String,
    data: Vec<u8>,
    method: u16,
    flags: u16,
    /// Its size, when it is not that of the data.
    size: Option<u32>,
    /// Where it is said to be, when it is not there.
    offset: Option<u32>,
}

fn entry(name: &str, data: impl Into<Vec<u8>>) -> Entry {
    Entry { name: name.to_owned(), data: data.into(), ..Entry::default() }
}

/// A zip archive; `count` is the number of entries that it announces.
fn zip_of(entries: &[Entry], count: Option<u16>) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = entry.offset.unwrap_or(bytes.len() as u32);
        let (packed, name) = (entry.data.len() as u32, entry.name.as_bytes());
        let size = entry.size.unwrap_or(packed);
        let mut fields = Vec::new();
        fields.extend(20u16.to_le_bytes());
        fields.extend(entry.flags.to_le_bytes());
        fields.extend(entry.method.to_le_bytes());
        fields.extend([0; 8]);
        fields.extend(packed.to_le_bytes());
        fields.extend(size.to_le_bytes());
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend([0; 2]);
        bytes.extend(b"PK\x03\x04");
        bytes.extend(&fields);
        bytes.extend(name);
        bytes.extend(&entry.data);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name);
    }
    let (start, len) = (bytes.len() as u32, directory.len() as u32);
    let count = count.unwrap_or(entries.len() as u16).to_le_bytes();
    bytes.extend(directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend(count);
    bytes.extend(count);
    bytes.extend(len.to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0; 2]);
    bytes
}

/// A file of `torch.save` with this pickle, and one storage of eight bytes.
fn archive(pickle: &[u8]) -> Vec<u8> {
    zip_of(&[entry("a/data.pkl", pickle), entry("a/data/0", [0; 8]), entry("a/version", *b"3\n")], None)
}

/// The opcodes of a string.
fn text(text: &str) -> Vec<u8> {
    [b"X", (text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat()
}

/// The opcodes of `_rebuild_tensor_v2(storage, offset, shape, strides, …)`, with numbers as opcodes.
fn tensor(class: &str, key: &str, offset: &str, shape: &str, strides: &str) -> Vec<u8> {
    let storage = [b"(", text("storage").as_slice(), format!("c{}\n", class.replace('.', "\n")).as_bytes()].concat();
    let rest = format!("I2\ntQI{offset}\n({shape}t({strides}tI00\nccollections\nOrderedDict\n)RtR");
    [b"ctorch._utils\n_rebuild_tensor_v2\n(", storage.as_slice(), &text(key), &text("cpu"), rest.as_bytes()].concat()
}

/// A state dict of these tensors.
fn state(tensors: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}(".to_vec();
    for (key, tensor) in tensors {
        pickle.extend(text(key));
        pickle.extend(tensor);
    }
    pickle.extend(b"u.");
    pickle
}

fn good() -> Vec<u8> {
    tensor("torch.FloatStorage", "0", "0", "I2\n", "I1\n")
}

fn one(tensor: Vec<u8>) -> Vec<u8> {
    archive(&state(&[("w", tensor)]))
}

/// `levels` dictionaries or modules, each with the one before in it twice.
fn doubled(levels: usize, module: bool) -> Vec<u8> {
    let mut pickle = b"\x80\x02}".to_vec();
    for _ in 0..levels {
        pickle.extend(b"q\x000");
        let twice = [b"}(", text("a").as_slice(), b"h\x00", &text("b"), b"h\x00u"].concat();
        if module {
            let (parameters, buffers) = (text("_parameters"), text("_buffers"));
            let state = [&parameters, b"}".as_slice(), &buffers, b"}", &text("_modules"), &twice].concat();
            pickle.extend([b"cnet\nBlock\n)\x81}(", state.as_slice(), b"ub"].concat());
        } else {
            pickle.extend(twice);
        }
    }
    pickle.push(b'.');
    if module {
        // The innermost is a module as well.
        let leaf = [
            b"cnet\nBlock\n)\x81}(".as_slice(),
            &text("_parameters"),
            b"}",
            &text("_buffers"),
            b"}",
            &text("_modules"),
            b"}ub",
        ];
        let leaf = leaf.concat();
        pickle.splice(2..3, leaf);
    }
    pickle
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// Five pickles of the format before 1.6: the object, the list of storages, and what follows.
fn legacy(object: &[u8], keys: &[u8], rest: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    [magic, object, keys, rest].concat()
}

fn tar(name: &str, size: &str) -> Vec<u8> {
    let mut block = vec![0; 1024];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..124 + size.len()].copy_from_slice(size.as_bytes());
    block[156] = b'0';
    block[257..262].copy_from_slice(b"ustar");
    block
}

fn npz(header: &str) -> Vec<u8> {
    let npy = [b"\x93NUMPY\x01\0", (header.len() as u16).to_le_bytes().as_slice(), header.as_bytes(), &[0; 8]].concat();
    zip_of(&[entry("w.npy", npy)], None)
}

fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let call = b"\x80\x02cos\nsystem\nX\x0c\0\0\0touch canary\x85R.";
    let eval = b"\x80\x02c__builtin__\neval\nX\x1c\0\0\0open('canary', 'w').write('')\x85R.";
    let huge = |opcode: u8, len: usize| [&[0x80, 4, opcode], vec![0xff; len].as_slice(), b"."].concat();
    let deep = |first: &[u8], open: &[u8], close: &[u8]| {
        [b"\x80\x02", first, &open.repeat(1_000_000), &close.repeat(1_000_000), b"."].concat()
    };
    let with = |entry: Entry| zip_of(&[self::entry("a/data.pkl", state(&[("w", good())])), entry], None);
    let mut overlapping = [entry("a/data.pkl", state(&[("w", good())])), entry("a/data/0", [0; 8])];
    overlapping[1].offset = Some(0);
    let range = |start: u64, end: u64| format!("{{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[{start},{end}]}}");
    let list = |name: &str| format!("{{\"weight_map\": {{\"w\": \"{name}\"}}}}").into_bytes();
    let whole = archive(&state(&[("w", good())]));
    vec![
        ("os_system.pth", archive(call)),
        ("os_system.pkl", call.to_vec()),
        ("os_system_legacy.pth", legacy(call, b"\x80\x02].", b"")),
        ("stack_global.pth", archive(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch canary\x85R.")),
        ("instance.pkl", b"\x80\x02(X\x0c\0\0\0touch canaryios\nsystem\n.".to_vec()),
        ("eval.pth", archive(eval)),
        ("build.pth", archive(b"\x80\x02cnet\nNet\n)\x81}X\x0c\0\0\0__setstate__csubprocess\nrun\nsb.")),
        ("reduced_twice.pth", archive(b"\x80\x02c__builtin__\ngetattr\ncnet\nNet\nX\x03\0\0\0run\x86R)R.")),
        ("hidden.pth", one([&good(), text("x").as_slice(), b"cos\nsystem\nX\x0c\0\0\0touch canary\x85R"].concat())),
        ("doubled_dictionaries.pth", archive(&doubled(200, false))),
        ("doubled_modules.pth", archive(&doubled(60, true))),
        ("deep_modules.pth", archive(&doubled(2_000, true))),
        ("in_itself.pth", archive(b"\x80\x02}q\0X\x0a\0\0\0state_dicth\0s.")),
        ("list_in_itself.pkl", b"\x80\x02]q\0h\0a.".to_vec()),
        ("deep_tuples.pkl", deep(b"", b"(", b"t")),
        ("deep_dictionaries.pth", archive(&deep(b"}", b"U\x01a}", b"s"))),
        ("too_many.pkl", [b"\x80\x02", b"]".repeat(5_000_000).as_slice(), b"."].concat()),
        ("long_text.pkl", huge(b'X', 4)),
        ("longer_text.pkl", huge(0x8d, 8)),
        ("long_bytes.pkl", huge(0x8e, 8)),
        ("long_number.pkl", b"\x80\x02\x8b\xff\xff\xff\x7f.".to_vec()),
        ("far_memo.pkl", b"\x80\x02Nr\xff\xff\xff\xff0j\xfe\xff\xff\xff.".to_vec()),
        ("registry.pkl", b"\x80\x02\x82\x01.".to_vec()),
        ("outside.pkl", b"\x80\x05\x97.".to_vec()),
        ("nothing.pkl", b"\x80\x02.".to_vec()),
        ("unknown_class.pth", archive(b"\x80\x02cnet.model\nEvil\n)\x81}b.")),
        ("absolute.pth", with(entry("/etc/passwd", *b"x"))),
        ("upwards.pth", with(entry("a/../../canary", *b"x"))),
        ("windows.pth", with(entry("C:\\canary", *b"x"))),
        ("twice.pth", with(entry("a/data.pkl", *b"x"))),
        ("encrypted.pth", with(Entry { flags: 1, ..entry("a/data/0", [0; 8]) })),
        ("overlapping.pth", zip_of(&overlapping, None)),
        ("bomb.pth", with(Entry { method: 8, size: Some(u32::MAX - 1), ..entry("a/data/0", [0; 8]) })),
        ("bomb_pickle.pth", zip_of(&[Entry { method: 8, size: Some(8000), ..entry("a/data.pkl", [0; 8]) }], None)),
        ("shorter.pth", with(Entry { size: Some(1 << 30), ..entry("a/data/0", [0; 8]) })),
        ("method.pth", with(Entry { method: 99, ..entry("a/data/0", [0; 8]) })),
        ("many_entries.pth", zip_of(&[entry("a/data.pkl", *b"N.")], Some(60_000))),
        ("without_pickle.pth", zip_of(&[entry("a/readme", *b"hello")], None)),
        ("without_storage.pth", zip_of(&[entry("a/data.pkl", state(&[("w", good())]))], None)),
        ("half.pth", whole[..whole.len() / 2].to_vec()),
        ("without_end.pth", whole[..whole.len() - 30].to_vec()),
        ("key_twice.pth", archive(&state(&[("w", good()), ("w", good())]))),
        ("long_shape.pth", one(tensor("torch.FloatStorage", "0", "0", "I3\n", "I1\n"))),
        (
            "longest_shape.pth",
            one(tensor("torch.FloatStorage", "0", "0", &"I4294967295\n".repeat(3), &"I0\n".repeat(3))),
        ),
        ("repeated.pth", one(tensor("torch.FloatStorage", "0", "0", "I99999999999\n", "I0\n"))),
        ("offset.pth", one(tensor("torch.FloatStorage", "0", "9", "I2\n", "I1\n"))),
        ("negative_offset.pth", one(tensor("torch.FloatStorage", "0", "-1", "I2\n", "I1\n"))),
        ("negative_stride.pth", one(tensor("torch.FloatStorage", "0", "1", "I2\n", "I-1\n"))),
        ("negative_shape.pth", one(tensor("torch.FloatStorage", "0", "0", "I-2\n", "I1\n"))),
        ("ragged_strides.pth", one(tensor("torch.FloatStorage", "0", "0", "I2\n", "I1\nI1\n"))),
        ("many_axes.pth", one(tensor("torch.FloatStorage", "0", "0", &"I1\n".repeat(100), &"I1\n".repeat(100)))),
        ("short_storage.pth", one(tensor("torch.DoubleStorage", "0", "0", "I1\n", "I1\n"))),
        ("evil_storage.pth", one(tensor("net.EvilStorage", "0", "0", "I2\n", "I1\n"))),
        ("storage_upwards.pth", one(tensor("torch.FloatStorage", "../version", "0", "I2\n", "I1\n"))),
        ("legacy_long.pth", legacy(&state(&[("w", good())]), b"\x80\x02]U\x010a.", &[0xff; 16])),
        ("legacy_short.pth", legacy(&state(&[("w", good())]), b"\x80\x02]U\x010a.", &[2, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("legacy_unknown.pth", legacy(&state(&[("w", good())]), b"\x80\x02]U\x017a.", &[0; 16])),
        ("legacy_missing.pth", legacy(&state(&[("w", good())]), b"\x80\x02].", b"")),
        ("tar_other.pth", tar("photos/cat.jpg", "00000000100")),
        ("tar_long.pth", tar("storages", "77777777777")),
        ("tar_negative.pth", tar("storages", "-1")),
        ("header.safetensors", [&u64::MAX.to_le_bytes(), b"{}".as_slice()].concat()),
        ("json.safetensors", safetensors(&"{\"w\":".repeat(500), &[])),
        ("beyond.safetensors", safetensors(&format!("{{\"w\":{}}}", range(8, 16)), &[0; 8])),
        ("backwards.safetensors", safetensors(&format!("{{\"w\":{}}}", range(8, 0)), &[0; 8])),
        ("overlap.safetensors", safetensors(&format!("{{\"a\":{},\"b\":{}}}", range(0, 8), range(4, 12)), &[0; 12])),
        ("twice.safetensors", safetensors(&format!("{{\"a\":{},\"a\":{}}}", range(0, 8), range(8, 16)), &[0; 16])),
        ("size.safetensors", safetensors(&format!("{{\"w\":{}}}", range(0, 12)), &[0; 12])),
        ("upwards.index.json", list("../canary")),
        ("absolute.index.json", list("/etc/passwd")),
        ("itself.index.json", list("itself.index.json")),
        ("missing.index.json", list("nowhere.bin")),
        ("lacking.index.json", br#"{"weight_map": {"v": "good.pth"}}"#.to_vec()),
        ("long.npz", npz("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967295, 4294967295), }\n")),
        ("objects.npz", npz("{'descr': '|O', 'fortran_order': False, 'shape': (), }\n")),
        ("pointer.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 97781949\n".to_vec()),
        ("page.pth", b"<!DOCTYPE html>\n<html><body>404</body></html>\n".to_vec()),
        ("empty.pth", Vec::new()),
    ]
}

/// Runs the program with little memory; what it says.
fn run(folder: &Path, args: &str) -> (bool, String) {
    let line = format!("ulimit -v {MEMORY}; exec '{}' {args}", env!("CARGO_BIN_EXE_modelport"));
    let output = Command::new("sh").args(["-c", &line]).current_dir(folder).output().unwrap();
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 1)), "{args}: {code:?}\n{}", String::from_utf8_lossy(&output.stderr));
    (code == Some(0), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn hostile_files_end_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("good.pth"), archive(&state(&[("w", good())]))).unwrap();
    let (read, said) = run(folder.path(), "inspect good.pth");
    assert!(read, "the builder of these files is wrong: {said}");
    let mut all = String::new();
    let mut names = vec!["good.pth".to_owned()];
    for (name, bytes) in cases() {
        fs::write(path(name), bytes).unwrap();
        names.push(name.to_owned());
        let (read, said) = run(folder.path(), &format!("inspect {name}"));
        assert!(!read, "{name} can be read");
        all.push_str(&said);
        assert!(!run(folder.path(), &format!("convert -sf pytorch -in {name} -om out.pth")).0, "{name} is converted");
    }
    let mut there: Vec<String> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    there.sort();
    assert_eq!(there, names, "something has run, or was left behind");
    let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors/hostile.txt");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&expected, &all).unwrap();
    }
    assert_eq!(all, fs::read_to_string(&expected).unwrap_or_default(), "UPDATE_SNAPSHOTS=1 accepts the new texts");
}

/// TorchScript of a module whose `forward` has this body; `more` follows the class.
fn script(body: &str, more: &str) -> Vec<u8> {
    let lines: String = body.lines().map(|line| format!("    {line}\n")).collect();
    let code = format!(
        "class Net(Module):\n  __parameters__ = []\n  __buffers__ = []\n  training : bool\n  \
         def forward(self: __torch__.Net,\n    x: Tensor) -> Tensor:\n{lines}{more}"
    );
    let object = b"\x80\x02c__torch__\nNet\n)\x81}X\x08\0\0\0training\x89sb.";
    let entries = [
        entry("a/data.pkl", object.as_slice()),
        entry("a/code/__torch__.py", code),
        entry("a/constants.pkl", *b"\x80\x02)."),
        entry("a/version", *b"3\n"),
    ];
    zip_of(&entries, None)
}

/// Code that never ends, or never fits.
fn scripts() -> Vec<(&'static str, Vec<u8>)> {
    let doubled = |start: &str, step: &str| format!("{start}\n{}return x", format!("{step}\n").repeat(60));
    let nested = |open: &str, close: &str, n: usize| format!("y = {}x{}\nreturn y", open.repeat(n), close.repeat(n));
    let recursive = "  def again(self: __torch__.Net,\n    x: Tensor) -> Tensor:\n    return (self).again(x, )\n";
    let twice: String = (0..60)
        .map(|i| {
            format!(
                "  def f{i}(self: __torch__.Net,\n    x: Tensor) -> Tensor:\n    y = (self).f{0}(x, )\n    return (self).f{0}(y, )\n",
                i + 1
            )
        })
        .chain(["  def f60(self: __torch__.Net,\n    x: Tensor) -> Tensor:\n    return torch.relu(x)\n".to_owned()])
        .collect();
    let deep_blocks: String = (0..1000).map(|i| format!("{}if True:\n", "  ".repeat(i))).collect();
    let many = |line: &str, n: usize| format!("{}return x", format!("{line}\n").repeat(n));
    let plain = |body: &str| script(body, "");
    vec![
        ("endless.pt", plain("y = x\nwhile True:\n  y = torch.relu(y)\nreturn y")),
        ("idle.pt", plain("n = 0\nwhile True:\n  n = torch.add(n, 1)\nreturn x")),
        ("for_ever.pt", plain("y = x\nfor i in range(9223372036854775807):\n  y = torch.relu(y)\nreturn y")),
        ("list.pt", plain("y = torch.mul([0], 1000000000000)\nreturn torch.zeros(y)")),
        ("doubled_list.pt", plain(&doubled("y = [1, 1]", "y = torch.add(y, y)"))),
        ("doubled_text.pt", plain(&doubled("y = 'aa'", "y = torch.add(y, y)"))),
        ("doubled_tensor.pt", plain(&doubled("y = x", "y = torch.cat([y, y], 1)").replace("return x", "return y"))),
        ("nested_lists.pt", plain(&doubled("y = [x]", "y = [y, y, y, y]").replace("return x", "return torch.cat(y)"))),
        ("huge_zeros.pt", plain("return torch.add(x, torch.zeros([1000000, 1000000, 1000000]))")),
        ("huge_range.pt", plain("return torch.add(x, torch.arange(1000000000000))")),
        ("huge_eye.pt", plain("return torch.add(x, torch.eye(10000000))")),
        ("huge_pool.pt", plain("return torch.max_pool2d(x, [9223372036854775807, 1], [1, 1], [0, 0], [1, 1], False)")),
        ("huge_resize.pt", plain("return torch.upsample_bicubic2d(x, [1000000000, 1000000000], False)")),
        ("huge_window.pt", plain("return torch.im2col(x, [1, 1], [1, 1], [1000000000, 1000000000], [1, 1])")),
        ("parentheses.pt", plain(&nested("(", ")", 100_000))),
        ("brackets.pt", plain(&nested("[", "]", 100_000))),
        ("calls.pt", plain(&nested("torch.relu(", ")", 100_000))),
        ("minus.pt", plain(&nested("-", "", 100_000))),
        ("deep_blocks.pt", plain(&deep_blocks)),
        ("recursion.pt", script("return (self).again(x, )", recursive)),
        ("twice.pt", script("return (self).f0(x, )", &twice)),
        ("long.pt", plain(&many("y = torch.relu(x)", 1_000_000))),
        ("operating_system.pt", plain("return os.system('touch canary')")),
        ("builtin.pt", plain("return __import__('os').system('touch canary')")),
        ("file.pt", plain("y = torch.load('/etc/passwd')\nreturn y")),
        ("unended.pt", plain("y = 'abc\nreturn y")),
        ("dedent.pt", plain("if True:\n      y = x\n   return y")),
        ("not_code.pt", plain("\u{0}\u{1}\u{2}")),
        ("zero_division.pt", plain("n = torch.floordiv(1, 0)\nreturn torch.add(x, n)")),
        ("overflow.pt", plain("n = torch.mul(9223372036854775807, 9223372036854775807)\nreturn torch.add(x, n)")),
        ("far_index.pt", plain("y = torch.split(x, 1, 1)[9223372036854775807]\nreturn y")),
        ("far_dim.pt", plain("return torch.softmax(x, -9223372036854775808)")),
        ("zero_stride.pt", plain("return torch.avg_pool2d(x, [1, 1], [0, 0], [0, 0], False, True, 0)")),
    ]
}

/// How long a conversion of such a small file may take, in a debug build on a busy machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

#[test]
fn hostile_code_ends_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let convert = |name: &str| {
        let start = std::time::Instant::now();
        let done = run(folder.path(), &format!("convert -sf pytorch -in {name} --inputShape 3,8,8 -om out.pth"));
        assert!(start.elapsed() < PATIENCE, "{name} took {:?}", start.elapsed());
        done
    };
    fs::write(folder.path().join("good.pt"), script("return torch.relu(x)", "")).unwrap();
    let (read, said) = convert("good.pt");
    assert!(read, "the builder of these files is wrong: {said}");
    let mut all = String::new();
    for (name, bytes) in scripts() {
        fs::write(folder.path().join(name), bytes).unwrap();
        let (read, said) = convert(name);
        assert!(!read, "{name} is converted");
        assert!(said.len() < 20_000, "{name}: an error of {} bytes", said.len());
        all.push_str(&said);
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 3, "something has run, or was left behind");
    let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors/hostile_code.txt");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&expected, &all).unwrap();
    }
    assert_eq!(all, fs::read_to_string(&expected).unwrap_or_default(), "UPDATE_SNAPSHOTS=1 accepts the new texts");
}

/// A file with some of its bytes, numbers and words changed; always the same for the same seed.
fn damaged(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + below(4) {
        let at = below(bytes.len() - 64);
        match below(4) {
            0 => bytes[at] ^= 1 << below(8),
            1 => {
                // The next number, of nines or of zeros.
                let digit = [b'9', b'0', b'-'][below(3)];
                let run = bytes[at..].iter_mut().skip_while(|byte| !byte.is_ascii_digit());
                run.take_while(|byte| byte.is_ascii_digit()).for_each(|byte| *byte = digit);
            }
            2 => {
                let (from, count) = (below(bytes.len() - 64), 1 + below(48));
                bytes.copy_within(from..from + count, at);
            }
            _ => bytes.truncate(bytes.len() - below(bytes.len() / 8)),
        }
        if bytes.len() < 128 {
            break;
        }
    }
    bytes
}

#[test]
fn damaged_programs_end() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pytorch");
    let folder = tempfile::tempdir().unwrap();
    for name in ["program.pt2", "script.pt", "whole.pth", "state.safetensors"] {
        let whole = fs::read(fixtures.join(name)).unwrap();
        let (mut read, mut refused) = (0, 0);
        for seed in 0..50 {
            fs::write(folder.path().join(name), damaged(&whole, seed)).unwrap();
            let start = std::time::Instant::now();
            let (done, said) = run(folder.path(), &format!("convert -sf pytorch -in {name} -om out.pth"));
            assert!(start.elapsed() < PATIENCE, "{name}, seed {seed}: {:?}", start.elapsed());
            assert!(done || said.starts_with("error") || said.contains("\nerror"), "{name}, seed {seed}: {said}");
            *(if done { &mut read } else { &mut refused }) += 1;
        }
        assert!(refused > 20, "{name}: {read} read and {refused} refused");
    }
}
