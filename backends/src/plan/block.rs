//! Calls, and the blocks that they form.

use std::collections::HashMap;
use std::fmt::Write;

use modelport_ir::Value;

use super::leaf::{Member, MemberKind, ModuleForm, Param};
use super::words::{is_generic, is_number};
use crate::python::{Arg, Expr, Slot, snake_case};

/// A call: a leaf, or a region that has become a class or a chain.
#[derive(Clone, Debug)]
pub struct Item {
    /// Name in the source, or what the planner calls it.
    pub name: Option<String>,
    /// The scope of the source whose name that is.
    pub scope: Option<String>,
    /// What it is, in a word.
    pub role: String,
    /// What it keeps.
    pub members: Vec<Member>,
    /// What it computes.
    pub expr: Expr,
    /// The values that it reads.
    pub operands: Vec<Value>,
    /// The values that it makes.
    pub results: Vec<Value>,
    /// Names for the results, best first.
    pub hints: Vec<String>,
    /// The same as modules in a chain, where it is a function of its first operand alone.
    pub modules: Option<Vec<ModuleForm>>,
    /// Weights that this call shares with others, as a key; calls with equal keys have one member.
    pub shared: Option<String>,
}

impl Item {
    /// A call that has its place already.
    pub fn placed(role: &str, members: Vec<Member>, expr: Expr, operands: Vec<Value>, results: Vec<Value>) -> Item {
        let (name, hints, modules, shared) = (Some(role.to_owned()), Vec::new(), None, None);
        Item { name, scope: None, role: role.to_owned(), members, expr, operands, results, hints, modules, shared }
    }

    /// What it is, in a word: the class that it calls, or its role.
    pub fn word(&self) -> String {
        match self.members.first().map(|member| &member.ctor) {
            Some(Expr::Call(class, _)) if self.members.first().is_some_and(is_composite) => {
                snake_case(&class.to_string())
            }
            _ => self.role.clone(),
        }
    }

    /// A call of nothing.
    pub fn nothing() -> Item {
        Item {
            name: None,
            scope: None,
            role: String::new(),
            members: Vec::new(),
            expr: Expr::name("None"),
            operands: Vec::new(),
            results: Vec::new(),
            hints: Vec::new(),
            modules: None,
            shared: None,
        }
    }
}

/// A region with its calls in order.
#[derive(Clone)]
pub struct Block {
    /// Calls, in order.
    pub items: Vec<Item>,
    /// Values that enter it.
    pub inputs: Vec<Value>,
    /// Values that leave it.
    pub outputs: Vec<Value>,
    /// What `inputs` are for those who call it.
    pub operands: Vec<Value>,
    /// What `outputs` are for those who call it.
    pub results: Vec<Value>,
}

impl Block {
    /// What several results are called for those who call the block: as the layers that make them, seen through
    /// functions of one operand; `part2` where that says nothing.
    pub fn result_names(&self) -> Vec<String> {
        let name = |(index, value): (usize, &Value)| {
            let name = self.result_name(*value).filter(|name| !is_generic(name) && !is_number(name));
            let words = name.map(|name| snake_case(&name)).filter(|name| name.len() > 1);
            words.unwrap_or_else(|| format!("part{}", index + 1))
        };
        self.outputs.iter().enumerate().map(name).collect()
    }

    fn result_name(&self, mut value: Value) -> Option<String> {
        for _ in 0..self.items.len() {
            let (item, at) = self.items.iter().find_map(|item| {
                let at = item.results.iter().position(|result| *result == value)?;
                Some((item, at))
            })?;
            let hint = item.hints.get(at).filter(|hint| !hint.starts_with("part"));
            match (item.members.is_empty(), item.results.len(), item.operands.as_slice()) {
                (false, 1, _) => return item.name.clone().or_else(|| hint.cloned()),
                (true, 1, [operand]) => value = *operand,
                _ => return hint.cloned(),
            }
        }
        None
    }
}

/// A layer with a function in front of it (`self.conv(F.pad(x, …))`) as two calls: the function may be in some of the
/// blocks of a class only.
pub fn split(item: Item) -> Vec<Item> {
    let parts = match (item.modules.as_deref(), &item.expr) {
        (Some([front, layer]), Expr::Call(member, args)) if front.params.is_empty() => match args.as_slice() {
            [Arg { value: inner @ Expr::Call(..), .. }] if inner.count(&|e| matches!(e, Expr::Member(_))) == 0 => {
                Some((front.clone(), layer.clone(), inner.clone(), member.clone()))
            }
            _ => None,
        },
        _ => None,
    };
    let (Some((front, layer, inner, member)), [operand], [result]) =
        (parts, item.operands.as_slice(), item.results.as_slice())
    else {
        return vec![item];
    };
    let between = Value { node: result.node, output: usize::MAX };
    let first = Item {
        role: "padded".to_owned(),
        expr: inner,
        operands: vec![*operand],
        results: vec![between],
        hints: vec!["padded".to_owned()],
        modules: Some(vec![front]),
        ..Item::nothing()
    };
    let expr = Expr::Call(member, vec![Arg::new(Expr::Operand(0))]);
    vec![first, Item { expr, operands: vec![between], modules: Some(vec![layer]), ..item }]
}

/// A region as a call of one module.
pub fn call_item(name: String, ctor: Expr, params: Vec<Param>, block: &Block) -> Item {
    let args = (0..block.inputs.len()).map(|i| Arg::new(Expr::Operand(i))).collect();
    let module = ModuleForm { ctor: ctor.clone(), params: params.clone() };
    let single = block.operands.len() == 1 && block.outputs.len() == 1;
    // For where there is no name: a chain of layers is what it begins with.
    let role = match block.items.iter().find(|item| !["pad", "padded", "relu"].contains(&item.role.as_str())) {
        Some(first) if is_layers(block) => first.role.clone(),
        _ => "block".to_owned(),
    };
    let name = Some(name).filter(|name| !name.is_empty());
    let hints = match block.outputs.as_slice() {
        [_] => vec![name.clone().unwrap_or_else(|| role.clone())],
        _ => block.result_names(),
    };
    Item {
        role,
        name,
        scope: None,
        members: vec![Member { kind: MemberKind::Module, role: "block".to_owned(), ctor, params }],
        expr: Expr::Call(Box::new(Expr::Member(0)), args),
        operands: block.operands.clone(),
        results: block.results.clone(),
        hints,
        modules: single.then(|| vec![module]),
        shared: None,
    }
}

/// Whether a member is a class or chain that the planner made.
pub fn is_composite(member: &Member) -> bool {
    member.role == "block"
}

/// What a member is, in a word.
pub fn member_role<'a>(item: &'a Item, member: &'a Member) -> &'a str {
    if is_composite(member) { &item.role } else { &member.role }
}

/// Whether a block has no blocks inside.
pub fn is_layers(block: &Block) -> bool {
    block.items.iter().all(|item| item.members.iter().all(|member| !is_composite(member)))
}

/// Equal for calls that may stand for each other: everything but literals, wires and (unless they are `exact`) names.
pub fn form(item: &Item, sequential: &str, exact: bool) -> String {
    let blank = |expr: &Expr| {
        let open = expr.map_slots(&mut |_| Expr::name("#"));
        if exact { open.to_string() } else { nameless(&open, sequential).to_string() }
    };
    let mut text = blank(&item.expr);
    for member in &item.members {
        let keys: Vec<&str> = member.params.iter().map(|param| param.key.as_str()).collect();
        let keys = if is_composite(member) || member.role == "conv" || member.role == "fc" {
            String::new()
        } else {
            keys.join(",")
        };
        let _ = write!(text, "|{:?} {} {keys}", member.kind, blank(&member.ctor));
    }
    text
}

/// Equal for blocks that may share a class: everything but literals and (unless they are `exact`) names.
pub fn signature(block: &Block, sequential: &str, exact: bool) -> String {
    let mut wires: HashMap<Value, String> = HashMap::new();
    for (i, value) in block.inputs.iter().enumerate() {
        wires.insert(*value, format!("i{i}"));
    }
    let mut text = String::new();
    for (index, item) in block.items.iter().enumerate() {
        text.push_str(&form(item, sequential, exact));
        if let (true, Some(name), false) = (exact, &item.name, item.members.is_empty()) {
            let _ = write!(text, " called {name}");
        }
        for operand in &item.operands {
            let _ = write!(text, " {}", wires.get(operand).map_or("?", String::as_str));
        }
        text.push('\n');
        for (output, value) in item.results.iter().enumerate() {
            wires.insert(*value, format!("{index}.{output}"));
        }
    }
    for output in &block.outputs {
        let _ = write!(text, "> {} ", wires.get(output).map_or("?", String::as_str));
    }
    text
}

/// A chain without the names of what is in it.
fn nameless(expr: &Expr, sequential: &str) -> Expr {
    expr.rewrite(&mut |expr| match expr {
        Expr::Call(function, args) if **function == Expr::name(sequential) => {
            let args = args.iter().map(|arg| Arg::new(nameless(&arg.value, sequential))).collect();
            Some(Expr::Call(function.clone(), args))
        }
        _ => None,
    })
}

/// All literals of a block, in order.
pub fn slots(block: &Block) -> Vec<Slot> {
    let mut slots = Vec::new();
    for item in &block.items {
        for member in &item.members {
            member.ctor.slots(&mut |slot| slots.push(slot.clone()));
        }
        item.expr.slots(&mut |slot| slots.push(slot.clone()));
    }
    slots
}
