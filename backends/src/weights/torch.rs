//! PyTorch's archives of a state dict: `data.pkl` names the tensors, `data/<n>` are their storages.

use std::collections::HashMap;
use std::io::{self, Write};

use modelport_ir::{DType, Tensor};

use super::archive::{Archive, Patch};
use crate::plan::Param;

/// The class of a typed storage in `torch`; types that have none are saved with an untyped one.
fn storage_class(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::Int8 => Some("CharStorage"),
        DType::Int16 => Some("ShortStorage"),
        DType::Int32 => Some("IntStorage"),
        DType::Int64 => Some("LongStorage"),
        DType::UInt8 => Some("ByteStorage"),
        DType::Float16 => Some("HalfStorage"),
        DType::Float32 => Some("FloatStorage"),
        DType::Float64 => Some("DoubleStorage"),
        DType::Bool => Some("BoolStorage"),
        DType::BFloat16 => Some("BFloat16Storage"),
        DType::UInt16 | DType::UInt32 | DType::UInt64 => None,
    }
}

/// Writes a state dict, or with `module` what makes the whole network of it. Tied tensors share a storage.
pub fn write(out: &mut dyn Write, root: &str, params: &[Param], module: Option<&str>) -> io::Result<Vec<Patch>> {
    let (storages, of_param) = storages(params);
    let pickle = Pickler::default().state_dict(params, &of_param, module);
    let mut archive = Archive::new(out);
    let text = |archive: &mut Archive, name: &str, bytes: &[u8]| {
        archive.add(&format!("{root}/{name}"), bytes.len() as u64, |out| out.write_all(bytes))
    };
    text(&mut archive, "data.pkl", &pickle)?;
    text(&mut archive, "byteorder", b"little")?;
    for (index, tensor) in storages.iter().enumerate() {
        archive.add(&format!("{root}/data/{index}"), tensor.byte_len() as u64, |out| tensor.write_to(out))?;
    }
    text(&mut archive, "version", b"3\n")?;
    archive.finish()
}

/// The tensors that differ, and for every weight which of them it is.
fn storages(params: &[Param]) -> (Vec<&Tensor>, Vec<usize>) {
    let mut storages: Vec<&Tensor> = Vec::new();
    let mut alike: HashMap<(DType, Vec<usize>), Vec<usize>> = HashMap::new();
    let mut of_param = Vec::with_capacity(params.len());
    for Param { tensor, .. } in params {
        let alike = alike.entry((tensor.dtype(), tensor.shape())).or_default();
        let same = alike.iter().copied().find(|&index| storages.get(index).is_some_and(|other| other.is_same(tensor)));
        of_param.push(same.unwrap_or_else(|| {
            storages.push(tensor);
            alike.push(storages.len() - 1);
            storages.len() - 1
        }));
    }
    (storages, of_param)
}

/// Writes a pickle of protocol 2; what occurs again is recalled from the memo.
#[derive(Default)]
struct Pickler {
    out: Vec<u8>,
    memos: HashMap<String, u8>,
}

impl Pickler {
    fn state_dict(mut self, params: &[Param], storages: &[usize], module: Option<&str>) -> Vec<u8> {
        self.out.extend(b"\x80\x02");
        if let Some(module) = module {
            self.out.extend(format!("c{module}\n_restore\n").bytes());
        }
        self.global("collections", "OrderedDict");
        self.out.extend(b")R(");
        for (param, &storage) in params.iter().zip(storages) {
            self.string(&param.key);
            self.tensor(&param.tensor, storage);
        }
        self.out.push(b'u');
        if module.is_some() {
            self.out.extend(b"\x85R");
        }
        self.out.push(b'.');
        self.out
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`; `_v3` has the type besides.
    fn tensor(&mut self, tensor: &Tensor, storage: usize) {
        let class = storage_class(tensor.dtype());
        self.global("torch._utils", if class.is_some() { "_rebuild_tensor_v2" } else { "_rebuild_tensor_v3" });
        self.out.extend(b"((");
        self.shared("storage", |pickler| pickler.string("storage"));
        match class {
            Some(class) => self.global("torch", class),
            None => self.global("torch.storage", "UntypedStorage"),
        }
        self.string(&storage.to_string());
        self.shared("cpu", |pickler| pickler.string("cpu"));
        self.int(if class.is_some() { tensor.numel() } else { tensor.byte_len() });
        self.out.extend(b"tQK\x00");
        let shape = tensor.shape();
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis].max(1);
        }
        self.ints(&shape);
        self.ints(&strides);
        self.out.push(0x89);
        self.global("collections", "OrderedDict");
        self.out.extend(b")R");
        if class.is_none() {
            self.global("torch", tensor.dtype().name());
        }
        self.out.extend(b"tR");
    }

    fn shared(&mut self, key: &str, make: impl FnOnce(&mut Self)) {
        if let Some(&memo) = self.memos.get(key) {
            self.out.extend([b'h', memo]);
            return;
        }
        make(self);
        let memo = self.memos.len() as u8;
        self.memos.insert(key.to_owned(), memo);
        self.out.extend([b'q', memo]);
    }

    fn global(&mut self, module: &str, name: &str) {
        let text = format!("c{module}\n{name}\n");
        self.shared(&text, |pickler| pickler.out.extend(text.bytes()));
    }

    fn string(&mut self, text: &str) {
        self.out.push(b'X');
        self.out.extend((text.len() as u32).to_le_bytes());
        self.out.extend(text.bytes());
    }

    fn int(&mut self, number: usize) {
        match (u8::try_from(number), u16::try_from(number), i32::try_from(number)) {
            (Ok(number), _, _) => self.out.extend([b'K', number]),
            (_, Ok(number), _) => {
                self.out.push(b'M');
                self.out.extend(number.to_le_bytes());
            }
            (_, _, Ok(number)) => {
                self.out.push(b'J');
                self.out.extend(number.to_le_bytes());
            }
            _ => {
                self.out.extend([0x8a, 8]);
                self.out.extend((number as u64).to_le_bytes());
            }
        }
    }

    fn ints(&mut self, numbers: &[usize]) {
        let end: &[u8] = match numbers.len() {
            0 => b")",
            1 => b"\x85",
            2 => b"\x86",
            3 => b"\x87",
            _ => {
                self.out.push(b'(');
                b"t"
            }
        };
        numbers.iter().for_each(|&number| self.int(number));
        self.out.extend(end);
    }
}
