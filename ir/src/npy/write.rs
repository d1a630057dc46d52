//! Writes the pickle in one pass, tensor by tensor: every size is known before its bytes.

use std::io::{self, Write};
use std::path::Path;

use super::{MAGIC, Weights, dtype_code};
use crate::atomic::AtomicFile;
use crate::diagnostic::{Problem, Result};
use crate::tensor::{DType, Tensor};

/// Writes a dictionary of tensors that NumPy reads with `np.load(file, allow_pickle=True).item()`. Equal inputs give
/// equal bytes; a tensor that occurs twice (see [`Tensor::is_same`]) is written once. Takes memory for one tensor at
/// most.
///
/// # Errors
/// When reading a tensor or writing fails.
pub fn write(writer: &mut dyn Write, weights: &Weights) -> io::Result<()> {
    header(writer)?;
    // Protocol 3 is what both old and new NumPy read; only arrays from 4 GiB on need an opcode of protocol 4.
    let large = weights.values().flat_map(|layer| layer.values()).any(|t| u32::try_from(t.byte_len()).is_err());
    let mut pickler = Pickler { out: writer, dtypes: Vec::new(), tensors: Vec::new(), memos: 0 };
    pickler.out.write_all(&[0x80, if large { 4 } else { 3 }])?;

    pickler.out.write_all(b"cnumpy.core.multiarray\n_reconstruct\n")?;
    let reconstruct = pickler.memoize()?;
    pickler.out.write_all(b"cnumpy\nndarray\n")?;
    let ndarray = pickler.memoize()?;
    pickler.blank_array()?;
    // State of the outer array: version, shape (), dtype, not in Fortran order, [dictionary].
    pickler.out.write_all(b"(K\x01)")?;
    pickler.object_dtype()?;
    pickler.out.write_all(b"\x89]")?;
    pickler.out.write_all(b"}")?;
    for (layer, tensors) in weights {
        pickler.string(layer)?;
        pickler.out.write_all(b"}")?;
        for (name, tensor) in tensors {
            pickler.string(name)?;
            pickler.array(tensor, reconstruct, ndarray)?;
            pickler.out.write_all(b"s")?;
        }
        pickler.out.write_all(b"s")?;
    }
    pickler.out.write_all(b"atb.")
}

/// Writes a dictionary of tensors to a file that appears when it is complete. See [`write`].
///
/// # Errors
/// When reading a tensor or writing fails; the problem names the file.
pub fn save(path: &Path, weights: &Weights) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    write(&mut file, weights).map_err(|error| Problem::new(format!("can't be written: {error}")).file(path))?;
    file.commit()
}

fn header(writer: &mut dyn Write) -> io::Result<()> {
    let mut text = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".to_vec();
    let head = MAGIC.len() + 4;
    text.resize((head + text.len() + 1).next_multiple_of(64) - head - 1, b' ');
    text.push(b'\n');
    writer.write_all(MAGIC)?;
    writer.write_all(&[1, 0])?;
    writer.write_all(&(text.len() as u16).to_le_bytes())?;
    writer.write_all(&text)
}

struct Pickler<'a> {
    out: &'a mut dyn Write,
    /// Types that were written, with their memos.
    dtypes: Vec<(DType, u32)>,
    /// Tensors that were written, with their memos.
    tensors: Vec<(Tensor, u32)>,
    memos: u32,
}

impl Pickler<'_> {
    fn memoize(&mut self) -> io::Result<u32> {
        let memo = self.memos;
        self.memos += 1;
        match u8::try_from(memo) {
            Ok(short) => self.out.write_all(&[b'q', short])?,
            Err(_) => {
                self.out.write_all(b"r")?;
                self.out.write_all(&memo.to_le_bytes())?;
            }
        }
        Ok(memo)
    }

    fn recall(&mut self, memo: u32) -> io::Result<()> {
        match u8::try_from(memo) {
            Ok(short) => self.out.write_all(&[b'h', short]),
            Err(_) => {
                self.out.write_all(b"j")?;
                self.out.write_all(&memo.to_le_bytes())
            }
        }
    }

    /// The arguments of `_reconstruct` after the class: an array of shape (0,) and type 'b', to be filled by BUILD.
    fn blank_array(&mut self) -> io::Result<()> {
        self.out.write_all(b"K\x00\x85C\x01b\x87R")
    }

    fn array(&mut self, tensor: &Tensor, reconstruct: u32, ndarray: u32) -> io::Result<()> {
        if let Some(&(_, memo)) = self.tensors.iter().find(|(written, _)| written.is_same(tensor)) {
            return self.recall(memo);
        }
        self.recall(reconstruct)?;
        self.recall(ndarray)?;
        self.blank_array()?;
        let memo = self.memoize()?;
        self.out.write_all(b"(K\x01(")?;
        for size in tensor.shape() {
            self.integer(size)?;
        }
        self.out.write_all(b"t")?;
        self.dtype(tensor.dtype())?;
        self.out.write_all(b"\x89")?;
        match u32::try_from(tensor.byte_len()) {
            Ok(len) => {
                self.out.write_all(b"B")?;
                self.out.write_all(&len.to_le_bytes())?;
            }
            Err(_) => {
                self.out.write_all(b"\x8e")?;
                self.out.write_all(&(tensor.byte_len() as u64).to_le_bytes())?;
            }
        }
        tensor.write_to(self.out)?;
        self.out.write_all(b"tb")?;
        self.tensors.push((tensor.clone(), memo));
        Ok(())
    }

    fn dtype(&mut self, dtype: DType) -> io::Result<()> {
        if let Some(&(_, memo)) = self.dtypes.iter().find(|(written, _)| *written == dtype) {
            return self.recall(memo);
        }
        self.dtype_call(dtype_code(dtype))?;
        let memo = self.memoize()?;
        let none = b"\xff\xff\xff\xff";
        self.out.write_all(b"(K\x03")?;
        match dtype {
            // The state of a void type holds its size and alignment.
            DType::BFloat16 => {
                self.short_string("|")?;
                self.out.write_all(b"NNNK\x02K\x01K\x00tb")?;
            }
            _ => {
                self.short_string(if dtype.size() == 1 { "|" } else { "<" })?;
                self.out.write_all(b"NNNJ")?;
                self.out.write_all(none)?;
                self.out.write_all(b"J")?;
                self.out.write_all(none)?;
                self.out.write_all(b"K\x00tb")?;
            }
        }
        self.dtypes.push((dtype, memo));
        Ok(())
    }

    fn object_dtype(&mut self) -> io::Result<()> {
        self.dtype_call("O8")?;
        self.out.write_all(b"(K\x03")?;
        self.short_string("|")?;
        self.out.write_all(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb")
    }

    fn dtype_call(&mut self, code: &str) -> io::Result<()> {
        self.out.write_all(b"cnumpy\ndtype\n")?;
        self.short_string(code)?;
        self.out.write_all(b"\x89\x88\x87R")
    }

    fn short_string(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(b"X")?;
        self.out.write_all(&(text.len() as u32).to_le_bytes())?;
        self.out.write_all(text.as_bytes())
    }

    fn string(&mut self, text: &str) -> io::Result<()> {
        if u32::try_from(text.len()).is_err() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name is longer than 4 GiB"));
        }
        self.short_string(text)
    }

    fn integer(&mut self, value: usize) -> io::Result<()> {
        if let Ok(byte) = u8::try_from(value) {
            self.out.write_all(&[b'K', byte])
        } else if let Ok(word) = i32::try_from(value) {
            self.out.write_all(b"J")?;
            self.out.write_all(&word.to_le_bytes())
        } else {
            // LONG1: two's complement; the ninth byte keeps the sign positive.
            self.out.write_all(&[0x8a, 9])?;
            self.out.write_all(&(value as u64).to_le_bytes())?;
            self.out.write_all(&[0])
        }
    }
}
