//! The stack machine that pickles are programs for, with all opcodes of protocols 0 to 5.

use std::collections::HashMap;
use std::sync::Arc;

use super::input::{Input, MAX_LINE, unescape, unescape_unicode};
use super::{Call, Id, MAX_OBJECTS, Object, Pickle, Span, text};
use crate::tensor::Storage;

/// Of pushes on the stack: bounds every list, tuple and dictionary.
const MAX_PUSHES: usize = 1 << 25;
/// Bytes of the longest integer; pickles of people have ten at most.
const MAX_INTEGER: u64 = 1 << 10;

/// Why a global may not occur, as a relative clause; `None` if it may.
pub type Refuse = fn(&str) -> Option<String>;

/// Reads the pickle that begins at `start`.
///
/// # Errors
/// One sentence with the position: an opcode that is not known or does not fit, a global that is refused.
pub fn parse(source: &Arc<dyn Storage>, start: u64, refuse: Refuse) -> Result<Pickle, String> {
    let mut machine = Machine {
        input: Input::new(source.clone(), start),
        refuse,
        refused: false,
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        pushes: 0,
    };
    loop {
        let at = machine.input.position;
        let opcode = machine.input.byte().map_err(|e| format!("the pickle ends early: {e}"))?;
        if opcode == b'.' {
            let root = machine.pop().map_err(|e| format!("the pickle is damaged at byte {at}: {e}"))?;
            return Ok(Pickle { objects: machine.objects, root, end: machine.input.position });
        }
        machine.step(opcode).map_err(|e| match machine.refused {
            true => e,
            false => format!("the pickle is damaged at byte {at}: {e}"),
        })?;
    }
}

struct Machine {
    input: Input,
    refuse: Refuse,
    /// A global was refused: the pickle is what its writer wanted it to be.
    refused: bool,
    objects: Vec<Object>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    pushes: usize,
}

impl Machine {
    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // PROTO, FRAME: nothing to do. Above 5 nobody knows what the opcodes mean.
            0x80 => match self.input.byte()? {
                0..=5 => Ok(()),
                protocol => Err(format!("protocol {protocol} is not known")),
            },
            0x95 => self.input.array::<8>().map(|_| ()),
            b'(' => {
                self.marks.push(self.stack.len());
                self.count()
            }
            b'0' => self.pop().map(|_| ()),
            b'1' => self.pop_mark().map(|_| ()),
            b'2' => self.stack.last().copied().ok_or_else(underflow).and_then(|id| self.push_id(id)),

            b'N' => self.push(Object::None),
            0x88 => self.push(Object::Bool(true)),
            0x89 => self.push(Object::Bool(false)),
            b'K' => self.input.byte().and_then(|x| self.push(Object::Int(x.into()))),
            b'M' => self.input.array().and_then(|x| self.push(Object::Int(u16::from_le_bytes(x).into()))),
            b'J' => self.input.array().and_then(|x| self.push(Object::Int(i32::from_le_bytes(x).into()))),
            0x8a => {
                let len = self.input.byte()?.into();
                self.long(len)
            }
            0x8b => {
                let len = u32::from_le_bytes(self.input.array()?);
                self.long(len.into())
            }
            b'I' => match self.input.line()?.as_str() {
                "00" => self.push(Object::Bool(false)),
                "01" => self.push(Object::Bool(true)),
                text => self.number(text),
            },
            b'L' => self.input.line().and_then(|text| self.number(text.trim_end_matches('L'))),
            b'G' => self.input.array().and_then(|x| self.push(Object::Float(f64::from_be_bytes(x)))),
            b'F' => {
                let text = self.input.line()?;
                self.push(Object::Float(text.parse().map_err(|_| format!("'{text}' is no number"))?))
            }

            b'X' | b'T' | b'B' => {
                let len = u32::from_le_bytes(self.input.array()?).into();
                self.span(opcode == b'X', len)
            }
            0x8d | 0x8e | 0x96 => {
                let len = u64::from_le_bytes(self.input.array()?);
                self.span(opcode == 0x8d, len)
            }
            0x8c | b'U' | b'C' => {
                let len = self.input.byte()?.into();
                self.span(opcode == 0x8c, len)
            }
            b'S' => {
                let bytes = unescape(&self.input.long_line()?)?;
                self.push(Object::Bytes(Span::Memory(Arc::new(bytes))))
            }
            b'V' => {
                let bytes = unescape_unicode(&self.input.long_line()?)?;
                self.push(Object::Text(Span::Memory(Arc::new(bytes))))
            }

            b')' => self.push(Object::Tuple(Vec::new())),
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push(Object::Tuple(items))
            }
            b't' => self.pop_mark().and_then(|items| self.push(Object::Tuple(items))),
            b']' => self.push(Object::List(Vec::new())),
            b'l' => self.pop_mark().and_then(|items| self.push(Object::List(items))),
            b'a' => self.pop_many(1).and_then(|items| self.extend(items)),
            b'e' => self.pop_mark().and_then(|items| self.extend(items)),
            b'}' => self.push(Object::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Object::Dict(Vec::new()))?;
                self.set_items(items)
            }
            b's' => self.pop_many(2).and_then(|items| self.set_items(items)),
            b'u' => self.pop_mark().and_then(|items| self.set_items(items)),

            0x8f => self.push(Object::Set(Vec::new())),
            0x90 => self.pop_mark().and_then(|items| self.extend(items)),
            0x91 => self.pop_mark().and_then(|items| self.push(Object::Set(items))),

            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.global(&module, &name)
            }
            0x93 => {
                let names = self.pop_many(2)?;
                let names: Vec<String> = names.into_iter().map(|id| self.short_text(id)).collect::<Result<_, _>>()?;
                match names.as_slice() {
                    [module, name] => self.global(module, name),
                    _ => Err(underflow()),
                }
            }
            b'R' | 0x81 => match *self.pop_many(2)?.as_slice() {
                [callable, args] => self.call(callable, args, None),
                _ => Err(underflow()),
            },
            0x92 => match *self.pop_many(3)?.as_slice() {
                [callable, args, kwargs] => self.call(callable, args, Some(kwargs)),
                _ => Err(underflow()),
            },
            b'i' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                let args = self.pop_mark()?;
                self.global(&module, &name)?;
                self.instance(args)
            }
            b'o' => {
                let mut args = self.pop_mark()?.into_iter();
                let class = args.next().ok_or_else(underflow)?;
                self.push_id(class)?;
                self.instance(args.collect())
            }
            b'b' => {
                let new = self.pop()?;
                match self.top()? {
                    Object::Call(call) => {
                        call.state = Some(new);
                        Ok(())
                    }
                    _ => Err("a state is given to something that has none".to_owned()),
                }
            }

            b'Q' => {
                let id = self.pop()?;
                self.push(Object::Persistent(id))
            }
            b'P' => {
                let name = self.input.line()?.into_bytes();
                self.push(Object::Text(Span::Memory(Arc::new(name))))?;
                let id = self.pop()?;
                self.push(Object::Persistent(id))
            }
            0x82..=0x84 => Err("it names an object by a number that only the program which wrote it knows".to_owned()),
            0x97 | 0x98 => Err("its bytes are kept outside of the file".to_owned()),

            b'q' => self.input.byte().and_then(|at| self.put(at.into())),
            b'r' => self.input.array().and_then(|at| self.put(u32::from_le_bytes(at).into())),
            b'p' => self.memo_line().and_then(|at| self.put(at)),
            0x94 => self.put(self.memo.len() as u64),
            b'h' => self.input.byte().and_then(|at| self.recall(at.into())),
            b'j' => self.input.array().and_then(|at| self.recall(u32::from_le_bytes(at).into())),
            b'g' => self.memo_line().and_then(|at| self.recall(at)),

            _ => Err(format!("opcode {opcode:#04x} is not known")),
        }
    }

    fn count(&mut self) -> Result<(), String> {
        self.pushes += 1;
        if self.pushes > MAX_PUSHES { Err("it has too many objects".to_owned()) } else { Ok(()) }
    }

    fn push_id(&mut self, id: Id) -> Result<(), String> {
        self.stack.push(id);
        self.count()
    }

    fn push(&mut self, object: Object) -> Result<(), String> {
        if self.objects.len() >= MAX_OBJECTS {
            return Err("it has too many objects".to_owned());
        }
        self.objects.push(object);
        self.push_id(self.objects.len() - 1)
    }

    /// Never below the last mark: a pickler would not do that.
    fn pop(&mut self) -> Result<Id, String> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(underflow());
        }
        self.stack.pop().ok_or_else(underflow)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(items)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn extend(&mut self, items: Vec<Id>) -> Result<(), String> {
        match self.top()? {
            Object::List(list) | Object::Set(list) => list.extend(items),
            Object::Call(call) => call.appended.extend(items),
            _ => return Err("something is appended to what is no list".to_owned()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Id>) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks::<2>();
        let dict = match self.top()? {
            Object::Dict(dict) => dict,
            Object::Call(call) => &mut call.items,
            _ => return Err("a key is set in what is no dictionary".to_owned()),
        };
        if !rest.is_empty() {
            return Err("a key has no value".to_owned());
        }
        dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn call(&mut self, callable: Id, args: Id, kwargs: Option<Id>) -> Result<(), String> {
        self.push(Object::Call(Box::new(Call { callable, args, kwargs, ..Call::default() })))
    }

    /// Calls the class on top of the stack, as protocol 0 did.
    fn instance(&mut self, args: Vec<Id>) -> Result<(), String> {
        let class = self.pop()?;
        self.push(Object::Tuple(args))?;
        let args = self.pop()?;
        self.call(class, args, None)
    }

    /// The object on top of the stack, above the last mark.
    fn top(&mut self) -> Result<&mut Object, String> {
        let is_there = self.stack.len() > self.marks.last().copied().unwrap_or(0);
        let id = self.stack.last().copied().filter(|_| is_there).ok_or_else(underflow)?;
        self.objects.get_mut(id).ok_or_else(underflow)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let global = format!("{module}.{name}");
        if let Some(reason) = (self.refuse)(&global) {
            self.refused = true;
            return Err(format!("the pickle wants '{global}', {reason}"));
        }
        self.push(Object::Global(global))
    }

    fn put(&mut self, at: u64) -> Result<(), String> {
        let id = self.stack.last().copied().ok_or_else(underflow)?;
        if self.memo.len() >= MAX_OBJECTS {
            return Err("it has too many objects".to_owned());
        }
        self.memo.insert(at, id);
        Ok(())
    }

    fn recall(&mut self, at: u64) -> Result<(), String> {
        let id = self.memo.get(&at).copied().ok_or_else(|| format!("there is no object {at}"))?;
        self.push_id(id)
    }

    fn memo_line(&mut self) -> Result<u64, String> {
        let text = self.input.line()?;
        text.parse().map_err(|_| format!("'{text}' is no number"))
    }

    fn number(&mut self, text: &str) -> Result<(), String> {
        self.push(Object::Int(text.parse().map_err(|_| format!("'{text}' is no number of 64 bits"))?))
    }

    fn long(&mut self, len: u64) -> Result<(), String> {
        if len > MAX_INTEGER {
            return Err(format!("a number has {len} bytes"));
        }
        let start = self.input.position;
        let mut bytes = Vec::new();
        for _ in 0..len {
            bytes.push(self.input.byte()?);
        }
        let fill = if bytes.last().is_some_and(|top| top & 0x80 != 0) { 0xff } else { 0 };
        bytes.resize(bytes.len().max(16), fill);
        let wide = bytes.try_into().map(i128::from_le_bytes).ok();
        self.push(match wide.and_then(|wide| i64::try_from(wide).ok()) {
            Some(number) => Object::Int(number),
            None => Object::Big(Span::File { start, len }),
        })
    }

    fn span(&mut self, text: bool, len: u64) -> Result<(), String> {
        let span = Span::File { start: self.input.position, len };
        self.input.skip(len)?;
        self.push(if text { Object::Text(span) } else { Object::Bytes(span) })
    }

    fn short_text(&self, id: Id) -> Result<String, String> {
        match self.objects.get(id) {
            Some(Object::Text(span)) => text(&self.input.file, span, MAX_LINE),
            _ => Err("a global has no name".to_owned()),
        }
    }
}

fn underflow() -> String {
    "an object is missing".to_owned()
}
