use super::*;

fn parsed(bytes: &[u8]) -> Result<Pickle, String> {
    let source: Arc<dyn Storage> = Arc::new(bytes.to_vec());
    parse(&source, 0, |_| None)
}

#[track_caller]
fn fails(bytes: &[u8], message: &str) {
    let error = parsed(bytes).err().unwrap_or_default();
    assert!(error.contains(message), "{error:?} does not contain {message:?}");
}

#[test]
fn calls_are_data() {
    // os.system('id'), as protocol 0 writes it, then as an instance, then with keywords.
    for bytes in [&b"cos\nsystem\n(S'id'\ntR."[..], b"(S'id'\nios\nsystem\n.", b"(cos\nsystem\nS'id'\no."] {
        let pickle = parsed(bytes).unwrap();
        let Object::Call(call) = pickle.get(pickle.root) else { panic!("{:?}", pickle.get(pickle.root)) };
        assert!(matches!(pickle.get(call.callable), Object::Global(name) if name == "os.system"));
        assert!(matches!(pickle.get(call.args), Object::Tuple(args) if args.len() == 1));
        assert_eq!(pickle.end, bytes.len() as u64);
    }
    let pickle = parsed(b"\x80\x04\x8c\x01m\x8c\x01C\x93)}\x92}b.").unwrap();
    let Object::Call(call) = pickle.get(pickle.root) else { panic!() };
    assert!(call.kwargs.is_some() && call.state.is_some());
}

#[test]
fn containers_and_numbers() {
    let pickle = parsed(b"\x80\x04\x8f(K\x01K\x02\x90.").unwrap();
    assert!(matches!(pickle.get(pickle.root), Object::Set(items) if items.len() == 2));
    let pickle = parsed(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
    assert!(matches!(pickle.get(pickle.root), Object::Big(span) if span.len() == 10));
    let pickle = parsed(b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\xff.").unwrap();
    assert!(matches!(pickle.get(pickle.root), Object::Int(-1)));
    let pickle = parsed(b"P140\n.").unwrap();
    assert!(matches!(pickle.get(pickle.root), Object::Persistent(_)));
    // A list that contains itself.
    assert!(parsed(b"]q\x00h\x00a.").is_ok());
}

#[test]
fn what_does_not_fit_is_an_error() {
    fails(b"", "ends early");
    fails(b"N", "ends early");
    fails(b".", "an object is missing");
    fails(b"(N(b.", "an object is missing");
    fails(b"N(a.", "an object is missing");
    fails(b"\x80\x06N.", "protocol 6");
    fails(b"\x82\x01.", "only the program which wrote it knows");
    fails(b"\x97.", "outside of the file");
    fails(b"h\x07.", "there is no object 7");
    fails(b"X\xff\xff\xff\x7f.", "2147483647 bytes are announced, 1 are left");
    fails(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "are announced");
    fails(b"\x8b\xff\xff\xff\x7f.", "a number has 2147483647 bytes");
    fails(b"NN\x85b.", "a state is given");
    fails(b"\xfe.", "opcode 0xfe");
}

#[test]
fn refused_globals_are_named() {
    let source: Arc<dyn Storage> = Arc::new(b"cos\nsystem\n.".to_vec());
    let error = parse(&source, 0, |name| (name == "os.system").then(|| "which runs programs".to_owned()));
    assert_eq!(error.err().unwrap(), "the pickle wants 'os.system', which runs programs");
}
