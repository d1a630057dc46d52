//! From classes to functions: what a class keeps is made where it is called, with a name; chains become statements,
//! runs of equal calls become loops.

use std::collections::{BTreeMap, HashMap, HashSet};

use modelport_ir::{NodeId, Value};

use super::build::PARAMETER;
use super::{CHAIN, IDENTITY, fuse};
use crate::plan::forward::{self, Step};
use crate::plan::{Class, Declared, MemberKind, Program};
use crate::python::{Arg, Expr, Lit, Namer, snake_case};

/// What functions can't be called.
const RESERVED: &[&str] = &[
    "build",
    "load",
    PARAMETER,
    "average_pool1d",
    "average_pool2d",
    "average_pool3d",
    "ops",
    "math",
    "tf",
    "name",
    "x",
    "model",
];
/// Fewest equal calls that are worth a loop.
const RUN: usize = 3;
/// In the place of a function's name: `for i in range(a, b): x = call`.
const LOOP: &str = "for";

/// A function that builds a part of the network.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name; the last one's is that of the network.
    pub name: String,
    /// The scopes that it builds, where there are few.
    pub scopes: Vec<String>,
    /// Names of layers that do not show which scopes of the source they are, as they are written, and these.
    pub notes: BTreeMap<String, String>,
    /// What enters and leaves it, where that is the same for all of them.
    pub shapes: String,
    /// Tensors that it takes.
    pub inputs: Vec<String>,
    /// What differs between its uses, with defaults.
    pub args: Vec<Declared>,
    /// What it does.
    pub statements: Vec<Statement>,
    /// What it returns.
    pub result: Vec<Expr>,
    /// What it names: where the weights are in the plan, and the name below its own.
    pub parts: Vec<Part>,
}

/// A layer or function that is called under a name.
#[derive(Clone, Debug)]
pub struct Part {
    /// Key in the plan, below the function's own.
    pub key: String,
    /// Name, below the function's own.
    pub name: String,
    /// The class that it is, unless it is a layer.
    pub class: Option<String>,
}

/// A statement.
#[derive(Clone, Debug)]
pub enum Statement {
    /// `a, b = expr`
    Assign(Vec<String>, Expr),
    /// `for i in range(start, end): target = expr`
    Loop {
        /// First number.
        start: i64,
        /// The number after the last.
        end: i64,
        /// What the call gives.
        target: String,
        /// The call, with `{i}` in its name.
        call: Expr,
    },
}

/// The functions of a program, in its order of classes. Names are joined by `joint`; `taken` are those that Keras gives
/// to layers without names.
pub fn functions(program: &Program, joint: &'static str, taken: &HashSet<String>) -> Vec<Function> {
    let mut namer = Namer::avoiding(RESERVED.iter().copied());
    let names: HashMap<String, String> =
        program.classes.iter().map(|class| (class.name.clone(), namer.take(&function_name(&class.name)))).collect();
    let anchored = anchored(program);
    let count = program.classes.len();
    program
        .classes
        .iter()
        .enumerate()
        .map(|(i, class)| {
            let is_root = i + 1 == count;
            Flat { is_root, taken: is_root.then_some(taken), ..Flat::new(class, &names, &anchored, joint) }.function()
        })
        .collect()
}

/// Classes that read no value but compute with weights that belong to no layer: these need some value to be made of.
fn anchored(program: &Program) -> HashSet<&str> {
    let mut found: HashSet<&str> = HashSet::new();
    for class in program.classes.iter().filter(|class| class.body.args.is_empty()) {
        let is_found = |ctor: &Expr| matches!(ctor, Expr::Call(callee, _) if matches!(callee.as_ref(), Expr::Name(name) if found.contains(name.as_str())));
        if class.members.iter().any(|(kind, _, ctor)| *kind != MemberKind::Module || ctor.count(&is_found) > 0) {
            found.insert(&class.name);
        }
    }
    found
}

fn function_name(class: &str) -> String {
    snake_case(&class.replace("ReLU", "Relu").replace("BN", "Bn"))
}

/// A class while its body is taken apart.
struct Flat<'a> {
    class: &'a Class,
    names: &'a HashMap<String, String>,
    anchored: &'a HashSet<&'a str>,
    joint: &'static str,
    is_root: bool,
    taken: Option<&'a HashSet<String>>,
    members: HashMap<String, (MemberKind, &'a Expr)>,
    uses: HashMap<String, usize>,
    /// Layers that are called several times.
    shared: HashMap<String, Expr>,
    known: HashMap<Expr, Expr>,
    /// What calls of members gave.
    called: HashMap<(String, Vec<Arg>), Expr>,
    steps: Vec<Step>,
    values: usize,
    parts: Vec<Part>,
    first_input: Expr,
}

impl<'a> Flat<'a> {
    fn new(
        class: &'a Class,
        names: &'a HashMap<String, String>,
        anchored: &'a HashSet<&'a str>,
        joint: &'static str,
    ) -> Flat<'a> {
        let members: HashMap<String, (MemberKind, &Expr)> =
            class.members.iter().map(|(kind, name, ctor)| (format!("self.{name}"), (*kind, ctor))).collect();
        let mut uses: HashMap<String, usize> = HashMap::new();
        let exprs = class.body.statements.iter().map(|(_, expr)| expr).chain(&class.body.result);
        for expr in exprs {
            // Several results of one call are that call, several times.
            let mut calls: HashSet<&Expr> = HashSet::new();
            expr.visit(&mut |part| {
                let Expr::Call(function, _) = part else { return };
                let Expr::Name(name) = function.as_ref() else { return };
                let Some((_, ctor)) = members.get(name) else { return };
                if calls.insert(part) || !gives_states(ctor) {
                    *uses.entry(name.clone()).or_default() += 1;
                }
            });
        }
        Flat {
            class,
            names,
            anchored,
            joint,
            is_root: false,
            taken: None,
            members,
            uses,
            shared: HashMap::new(),
            known: HashMap::new(),
            called: HashMap::new(),
            steps: Vec::new(),
            values: 0,
            parts: Vec::new(),
            first_input: Expr::name("x"),
        }
    }

    fn function(mut self) -> Function {
        let body = &self.class.body;
        let mut env: HashMap<String, Expr> = HashMap::new();
        let mut inputs = Vec::new();
        let anchor = self.anchored.contains(self.class.name.as_str()).then(|| "x".to_owned());
        for name in body.args.iter().chain(&anchor) {
            let var = self.fresh();
            inputs.push((value(var), name.clone()));
            env.insert(name.clone(), Expr::Var(var));
        }
        if let Some((first, _)) = inputs.first() {
            self.first_input = Expr::Var(first.node.index());
        }
        for (targets, expr) in &body.statements {
            let results = self.results(expr, targets.len(), &env, targets);
            for (target, result) in targets.iter().zip(results) {
                env.insert(target.clone(), result);
            }
        }
        let outputs: Vec<Expr> = body.result.iter().map(|expr| self.eval(expr, Some(&env))).collect();
        let mut outputs: Vec<Value> = outputs.into_iter().map(|expr| self.settle(expr)).collect();
        fuse::transposes(&mut self.steps, &mut outputs);
        self.sort(&outputs);
        fuse::activations(&mut self.steps, &outputs);
        fuse::flattening(&mut self.steps, &outputs);
        fuse::rolls(&mut self.steps, &outputs);
        self.runs(&outputs);
        self.separate(&outputs);
        let taken = self.class.args.iter().map(|arg| arg.name.as_str());
        let taken = taken
            .chain(self.names.values().map(String::as_str))
            .chain(["i", "layers"])
            .chain(RESERVED.iter().copied().filter(|name| *name != "x"));
        let body = forward::branches(std::mem::take(&mut self.steps), &inputs, &outputs, Namer::avoiding(taken));
        let statements = body.statements.into_iter().flat_map(|(targets, expr)| statement(targets, expr)).collect();
        Function {
            name: self.names.get(&self.class.name).cloned().unwrap_or_default(),
            scopes: self.class.scopes.clone(),
            notes: (self.class.notes.iter())
                .map(|(name, note)| (self.own_name(&self.legal(name)).to_string(), note.clone()))
                .collect(),
            shapes: self.class.shapes.clone(),
            inputs: body.args,
            args: self.class.args.clone(),
            statements,
            result: body.result,
            parts: self.parts,
        }
    }

    fn fresh(&mut self) -> usize {
        self.values += 1;
        self.values - 1
    }

    /// An expression of several results as one each.
    fn results(&mut self, expr: &Expr, count: usize, env: &HashMap<String, Expr>, hints: &[String]) -> Vec<Expr> {
        if count == 1 {
            let expr = self.eval(expr, Some(env));
            return vec![match (&expr, hints.first()) {
                (Expr::Var(var), Some(hint)) => {
                    self.hint(*var, hint);
                    expr
                }
                _ => expr,
            }];
        }
        if let Expr::Tuple(items) = expr {
            return items.iter().map(|item| self.eval(item, Some(env))).collect();
        }
        if let Expr::Call(function, _) = expr
            && let Expr::Name(name) = function.as_ref()
            && self.members.contains_key(name)
        {
            let called = self.eval(expr, Some(env));
            let results: Vec<usize> = (0..count).map(|_| self.fresh()).collect();
            if let Expr::Var(var) = called
                && let Some(step) = self.steps.iter_mut().find(|step| step.results == [value(var)])
            {
                step.results = results.iter().map(|&var| value(var)).collect();
                step.hints = hints.to_vec();
            }
            return results.into_iter().map(Expr::Var).collect();
        }
        let filled = self.eval_inside(expr, Some(env));
        let results: Vec<usize> = (0..count).map(|_| self.fresh()).collect();
        self.push(filled, &results, hints.to_vec(), false);
        results.into_iter().map(Expr::Var).collect()
    }

    fn hint(&mut self, var: usize, hint: &str) {
        let step = self.steps.iter_mut().find(|step| step.results == [value(var)]);
        if let Some(step) = step.filter(|_| hint != "x") {
            step.hints = vec![hint.to_owned()];
        }
    }

    fn push(&mut self, expr: Expr, results: &[usize], hints: Vec<String>, alone: bool) {
        let mut operands: Vec<Value> = Vec::new();
        let expr = expr.rewrite(&mut |e| match e {
            Expr::Var(var) => {
                let at = operands.iter().position(|known| *known == value(*var)).unwrap_or_else(|| {
                    operands.push(value(*var));
                    operands.len() - 1
                });
                Some(Expr::Operand(at))
            }
            _ => None,
        });
        self.steps.push(Step {
            expr,
            operands,
            results: results.iter().map(|&var| value(var)).collect(),
            hints,
            alone,
        });
    }

    /// A step for an expression without steps inside; the same one for the same expression.
    fn step(&mut self, expr: Expr, hint: &str) -> Expr {
        if let Some(known) = self.known.get(&expr) {
            return known.clone();
        }
        let var = self.fresh();
        self.push(expr.clone(), &[var], vec![hint.to_owned()], false);
        self.known.insert(expr, Expr::Var(var));
        Expr::Var(var)
    }

    fn settle(&mut self, expr: Expr) -> Value {
        match expr {
            Expr::Var(var) => value(var),
            other => match self.step(other, "y") {
                Expr::Var(var) => value(var),
                _ => value(0),
            },
        }
    }

    /// Takes an expression apart into steps. Without `env` names are arguments of the function.
    fn eval(&mut self, expr: &Expr, env: Option<&HashMap<String, Expr>>) -> Expr {
        match expr {
            Expr::Name(name) => {
                if let Some(var) = env.and_then(|env| env.get(name)) {
                    return var.clone();
                }
                if let Some(&(MemberKind::Parameter | MemberKind::Buffer, ctor)) = self.members.get(name) {
                    let own = name.trim_start_matches("self.").to_owned();
                    let ctor = ctor.clone();
                    return self.parameter(&ctor, &own, &own);
                }
                Expr::name(name.strip_prefix("self.").unwrap_or(name))
            }
            Expr::Call(function, args) => {
                if let Expr::Name(name) = function.as_ref()
                    && let Some(&(_, ctor)) = self.members.get(name)
                {
                    let args: Vec<Arg> =
                        args.iter().map(|arg| Arg { value: self.eval(&arg.value, env), ..arg.clone() }).collect();
                    let own = name.trim_start_matches("self.").to_owned();
                    // Several results of one call.
                    let call = (own.clone(), args.clone());
                    if let Some(known) = self.called.get(&call).filter(|_| gives_states(ctor)) {
                        return known.clone();
                    }
                    let ctor = ctor.clone();
                    let result = self.apply(&ctor, &own, &own, &own, args);
                    self.called.insert(call, result.clone());
                    return result;
                }
                let hint = match function.as_ref() {
                    Expr::Name(name) => name.rsplit('.').next().unwrap_or("y").to_owned(),
                    _ => "y".to_owned(),
                };
                let filled = self.eval_inside(expr, env);
                self.step(filled, &hint)
            }
            Expr::Binary(..) | Expr::Prefix(..) | Expr::Index(..) => {
                let filled = self.eval_inside(expr, env);
                // Arithmetic on arguments is no step.
                let reads = filled.count(&|e| matches!(e, Expr::Var(_))) > 0;
                if reads { self.step(filled, "y") } else { filled }
            }
            Expr::If(some, test, none) => {
                let some = self.inline(|flat| flat.eval(some, env));
                let none = self.eval(none, env);
                let test = self.eval(test, env);
                self.choice(some, test, none)
            }
            Expr::Attr(..) | Expr::Tuple(_) | Expr::List(_) | Expr::Range(..) => self.eval_inside(expr, env),
            leaf => leaf.clone(),
        }
    }

    /// `some if test else none`; which of them is only computed where it is needed.
    fn choice(&mut self, some: Expr, test: Expr, none: Expr) -> Expr {
        let choice = Expr::If(Box::new(some), Box::new(test), Box::new(none));
        match choice.count(&|e| matches!(e, Expr::Var(_))) {
            // Between literals it is no step.
            0 => choice,
            _ => {
                let result = self.step(choice, "y");
                if let Some(step) = self.steps.last_mut().filter(|step| matches!(step.expr, Expr::If(..))) {
                    step.alone = true;
                }
                result
            }
        }
    }

    /// What `eval` gives as one expression, without any step.
    fn inline(&mut self, eval: impl FnOnce(&mut Self) -> Expr) -> Expr {
        let outer = std::mem::take(&mut self.steps);
        let known = self.known.clone();
        let result = eval(self);
        let inner = std::mem::replace(&mut self.steps, outer);
        self.known = known;
        let mut made: HashMap<Value, Expr> = HashMap::new();
        let read =
            |made: &HashMap<Value, Expr>, of: Value| made.get(&of).cloned().unwrap_or(Expr::Var(of.node.index()));
        for step in inner {
            let expr = step.expr.rewrite(&mut |e| match e {
                Expr::Operand(i) => step.operands.get(*i).map(|operand| read(&made, *operand)),
                _ => None,
            });
            made.extend(step.results.iter().map(|result| (*result, expr.clone())));
        }
        result.rewrite(&mut |e| match e {
            Expr::Var(var) => Some(read(&made, value(*var))),
            _ => None,
        })
    }

    /// The expression with its parts taken apart.
    fn eval_inside(&mut self, expr: &Expr, env: Option<&HashMap<String, Expr>>) -> Expr {
        let mut outermost = true;
        expr.rewrite(&mut |e| {
            if std::mem::take(&mut outermost) {
                return None;
            }
            Some(match e {
                // A layer that is made for one call belongs to that call.
                Expr::Call(function, args) if is_layer(e) => {
                    let args = args.iter().map(|arg| Arg { value: self.eval(&arg.value, env), ..arg.clone() });
                    Expr::Call(function.clone(), args.collect())
                }
                Expr::Name(name) if name.starts_with("layers.") || name.starts_with("ops.") => e.clone(),
                e => self.eval(e, env),
            })
        })
    }

    /// A call of something that the class keeps. `key` says where its weights are, `name` what it is called.
    fn apply(&mut self, ctor: &Expr, key: &str, name: &str, hint: &str, args: Vec<Arg>) -> Expr {
        if let (true, [x]) = (*ctor == Expr::call(IDENTITY, Vec::new()), args.as_slice()) {
            return x.value.clone();
        }
        if let (Expr::If(some, test, _), [x]) = (ctor, args.as_slice()) {
            let some = self.inline(|flat| flat.apply(some, key, name, hint, args.clone()));
            return self.choice(some, (**test).clone(), x.value.clone());
        }
        let Expr::Call(function, made) = ctor else { return self.open(ctor, args) };
        let Expr::Name(callee) = function.as_ref() else { return self.open(ctor, args) };
        if callee == CHAIN {
            let mut x = args;
            for (index, item) in made.iter().enumerate() {
                let key = format!("{key}.{index}");
                let own = item.name.clone().unwrap_or_else(|| index.to_string());
                let hint = if name.is_empty() { own.clone() } else { hint.to_owned() };
                let own = self.legal(&own);
                let name = if name.is_empty() { own } else { format!("{name}{}{own}", self.joint) };
                x = vec![Arg::new(self.apply(&item.value, &key, &name, &hint, x))];
            }
            return x.into_iter().next().map_or(Expr::name("None"), |x| x.value);
        }
        let hint = hint.to_owned();
        let is_class = self.names.contains_key(callee);
        if !is_class && !callee.starts_with("layers.") {
            return self.open(ctor, args);
        }
        let mut made = made.clone();
        let name = self.legal(name);
        let name = &if is_class { name } else { self.free(&name) };
        made.push(Arg::keyword("name", self.own_name(name), None));
        let part = Part { key: key.to_owned(), name: name.clone(), class: is_class.then(|| callee.clone()) };
        let anchor = self.anchored.contains(callee.as_str()).then(|| Arg::new(self.first_input.clone()));
        let args: Vec<Arg> = args.into_iter().chain(anchor).collect();
        let call = if is_class {
            let function = self.names.get(callee).cloned().unwrap_or_default();
            Expr::call(&function, args.into_iter().chain(made).collect())
        } else if self.uses.get(&format!("self.{key}")).copied().unwrap_or(0) > 1 {
            let layer = match self.shared.get(key).cloned() {
                Some(layer) => layer,
                None => {
                    let var = self.fresh();
                    self.push(Expr::Call(function.clone(), made), &[var], vec![hint.clone()], true);
                    self.parts.push(part.clone());
                    self.shared.insert(key.to_owned(), Expr::Var(var));
                    Expr::Var(var)
                }
            };
            let var = self.fresh();
            self.push(Expr::Call(Box::new(layer), args), &[var], vec![hint], true);
            return Expr::Var(var);
        } else {
            Expr::Call(Box::new(Expr::Call(function.clone(), made)), args)
        };
        self.parts.push(part);
        let var = self.fresh();
        self.push(call, &[var], vec![hint], true);
        Expr::Var(var)
    }

    /// A function of one value that stands open in a chain.
    fn open(&mut self, expr: &Expr, args: Vec<Arg>) -> Expr {
        let filled = expr.rewrite(&mut |e| match e {
            Expr::Operand(_) => args.first().map(|x| x.value.clone()),
            _ => None,
        });
        self.eval(&filled, None)
    }

    fn parameter(&mut self, ctor: &Expr, key: &str, name: &str) -> Expr {
        let Expr::Call(function, made) = ctor else { return ctor.clone() };
        let mut args = vec![Arg::new(self.first_input.clone())];
        args.extend(made.iter().cloned());
        let own = self.free(&self.legal(name));
        args.push(Arg::keyword("name", self.own_name(&own), None));
        let call = Expr::Call(function.clone(), args);
        if !self.known.contains_key(&call) {
            self.parts.push(Part { key: key.to_owned(), name: own, class: None });
        }
        self.step(call, name)
    }

    /// A layer's name that Keras gives to no other.
    fn free(&self, name: &str) -> String {
        match self.taken {
            Some(taken) if taken.contains(name) => format!("{name}{}weights", self.joint),
            _ => name.to_owned(),
        }
    }

    /// A module's path as a name.
    fn legal(&self, name: &str) -> String {
        name.replace('.', self.joint)
    }

    /// A name below the function's own.
    fn own_name(&self, name: &str) -> Expr {
        Expr::Name(if self.is_root { format!("\"{name}\"") } else { format!("f\"{{name}}{}{name}\"", self.joint) })
    }

    /// What one result needs stands together.
    fn sort(&mut self, outputs: &[Value]) {
        let wires: Vec<_> = self.steps.iter().map(|step| (step.operands.clone(), step.results.clone())).collect();
        let mut steps: Vec<Option<Step>> = std::mem::take(&mut self.steps).into_iter().map(Some).collect();
        self.steps = forward::order(&wires, outputs).into_iter().filter_map(|index| steps[index].take()).collect();
    }

    /// Equal calls one after the other, whose names count, become a loop.
    fn runs(&mut self, outputs: &[Value]) {
        let readers = fuse::readers(&self.steps, outputs);
        let mut steps: Vec<Option<Step>> = std::mem::take(&mut self.steps).into_iter().map(Some).collect();
        let mut index = 0;
        let mut result = Vec::with_capacity(steps.len());
        while index < steps.len() {
            let Some(first) = steps[index].take() else { break };
            let Some((call, number)) = counted(&first) else {
                result.push(first);
                index += 1;
                continue;
            };
            let mut end = index + 1;
            let mut last = first.results[0];
            while let Some(Some(next)) = steps.get(end) {
                let expected = number + (end - index) as i64;
                let continues = counted(next).is_some_and(|(other, n)| other == call && n == expected);
                if !continues || next.operands != [last] || readers.get(&last) != Some(&1) {
                    break;
                }
                last = next.results[0];
                end += 1;
            }
            if end - index < RUN {
                result.push(first);
                index += 1;
                continue;
            }
            let int = |value: i64| Arg::new(Expr::slot("count", Lit::Int(value)));
            let span = [int(number), int(number + (end - index) as i64)];
            let expr = Expr::call(LOOP, span.into_iter().chain([call, Expr::Operand(0)].map(Arg::new)).collect());
            result.push(Step { expr, results: vec![last], ..first });
            index = end;
        }
        self.steps = result;
    }

    /// What a layer with weights or a function reads is a statement of its own, unless it is short.
    fn separate(&mut self, outputs: &[Value]) {
        let makers: HashMap<Value, usize> =
            self.steps.iter().enumerate().flat_map(|(i, step)| step.results.iter().map(move |&v| (v, i))).collect();
        let mut alone = Vec::new();
        for step in self.steps.iter().filter(|step| step.alone) {
            for maker in step.operands.iter().filter_map(|operand| makers.get(operand)) {
                if matches!(&self.steps[*maker].expr, Expr::Call(function, _) if is_layer(function)) {
                    alone.push(*maker);
                }
            }
        }
        for index in alone {
            self.steps[index].alone = true;
        }
        // What is returned may stand in the return.
        let readers = fuse::readers(&self.steps, outputs);
        for step in &mut self.steps {
            if let [result] = step.results.as_slice()
                && outputs == [*result]
                && readers.get(result) == Some(&1)
                && !matches!(&step.expr, Expr::Call(function, _) if **function == Expr::name(LOOP))
            {
                step.alone = false;
            }
        }
    }
}

/// `layers.X(…)`, which is called next.
fn is_layer(expr: &Expr) -> bool {
    matches!(expr, Expr::Call(function, _) if matches!(function.as_ref(), Expr::Name(name) if name.starts_with("layers.")))
}

/// Whether what a constructor makes gives several results.
fn gives_states(ctor: &Expr) -> bool {
    let states = |arg: &Arg| arg.name.as_deref() == Some("return_state") && !arg.is_default();
    match ctor {
        Expr::Call(_, args) => args.iter().any(|arg| states(arg) || gives_states(&arg.value)),
        _ => false,
    }
}

/// A call whose name ends in a number, with `{i}` in its place, and that number.
fn counted(step: &Step) -> Option<(Expr, i64)> {
    let ([_], [_], Expr::Call(function, args)) = (step.results.as_slice(), step.operands.as_slice(), &step.expr) else {
        return None;
    };
    if step.operands.len() != 1 || step.expr.count(&|e| *e == Expr::Operand(0)) != 1 {
        return None;
    }
    let (named, rebuild): (&[Arg], bool) = match function.as_ref() {
        Expr::Name(_) => (args, true),
        Expr::Call(_, made) => (made, false),
        _ => return None,
    };
    let last = named.last().filter(|arg| arg.name.as_deref() == Some("name"))?;
    let Expr::Name(text) = &last.value else { return None };
    let body = text.strip_suffix('"')?;
    let stem = body.trim_end_matches(|c: char| c.is_ascii_digit());
    let number: i64 = body[stem.len()..].parse().ok()?;
    if (body.len() - stem.len() > 1 && body[stem.len()..].starts_with('0')) || body.len() - stem.len() > 9 {
        return None;
    }
    let open = if stem.starts_with('f') { "" } else { "f" };
    let mut named = named.to_vec();
    if let Some(last) = named.last_mut() {
        last.value = Expr::Name(format!("{open}{stem}{{i}}\""));
    }
    let call = match (rebuild, function.as_ref()) {
        (false, Expr::Call(class, _)) => Expr::Call(Box::new(Expr::Call(class.clone(), named)), args.clone()),
        _ => Expr::Call(function.clone(), named),
    };
    Some((call, number))
}

fn statement(targets: Vec<String>, expr: Expr) -> Vec<Statement> {
    if let Expr::Call(function, args) = &expr
        && **function == Expr::name(LOOP)
        && let [start, end, call, x] = args.as_slice()
        && let (Expr::Slot(start), Expr::Slot(end)) = (&start.value, &end.value)
        && let (Lit::Int(start), Lit::Int(end)) = (&start.value, &end.value)
        && let [target] = targets.as_slice()
    {
        // The loop goes on with what it gives.
        let own = Expr::name(target);
        let before = (x.value != own).then(|| Statement::Assign(targets.clone(), x.value.clone()));
        let call = call.value.rewrite(&mut |e| (*e == x.value).then(|| own.clone()));
        let counted = Statement::Loop { start: *start, end: *end, target: target.clone(), call };
        return before.into_iter().chain([counted]).collect();
    }
    vec![Statement::Assign(targets, expr)]
}

fn value(var: usize) -> Value {
    NodeId::new(var).into()
}
