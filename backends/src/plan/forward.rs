//! Statements: the order of calls, which results are written in place, and the names of the others.

use std::collections::{HashMap, HashSet};

use modelport_ir::Value;

use super::words::common_prefix;
use crate::python::{Expr, LOOPED, Namer, identifier, snake_case};

/// Longest line that results are written in place for.
const LINE: usize = 100;
/// Most calls in one statement.
const CALLS: usize = 6;

/// A call whose members and arguments are printed already; only its operands are open.
pub struct Step {
    /// The call.
    pub expr: Expr,
    /// What its operands are.
    pub operands: Vec<Value>,
    /// What it computes.
    pub results: Vec<Value>,
    /// Names for the results, best first.
    pub hints: Vec<String>,
    /// Whether it is a statement of its own, never written in the place where its result is read.
    pub alone: bool,
}

/// The body of a function.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// Names of its arguments.
    pub args: Vec<String>,
    /// Which arguments are lists of tensors.
    pub lists: Vec<bool>,
    /// Assignments: names and what they get. No names: a statement without result.
    pub statements: Vec<(Vec<String>, Expr)>,
    /// What it returns.
    pub result: Vec<Expr>,
}

/// Numbers of `steps` in the order of a walk from the outputs: what one operand needs stands together.
pub fn order(steps: &[(Vec<Value>, Vec<Value>)], outputs: &[Value]) -> Vec<usize> {
    let maker: HashMap<Value, usize> =
        steps.iter().enumerate().flat_map(|(i, (_, results))| results.iter().map(move |&value| (value, i))).collect();
    let mut order = Vec::with_capacity(steps.len());
    let mut seen = HashSet::new();
    for output in outputs {
        // (step, how many of its operands were visited)
        let mut stack: Vec<(usize, usize)> = Vec::new();
        if let Some(&step) = maker.get(output)
            && seen.insert(step)
        {
            stack.push((step, 0));
        }
        while let Some((step, visited)) = stack.pop() {
            match steps[step].0.get(visited) {
                Some(value) => {
                    stack.push((step, visited + 1));
                    if let Some(&next) = maker.get(value)
                        && seen.insert(next)
                    {
                        stack.push((next, 0));
                    }
                }
                None => order.push(step),
            }
        }
    }
    order
}

/// Writes steps (in order) as a function body. `inputs` come with names; `locals` gives names to results.
pub fn body(steps: Vec<Step>, inputs: &[(Value, String)], outputs: &[Value], locals: Namer) -> Body {
    write(Writer::default(), steps, inputs, outputs, locals)
}

/// The same where most steps are statements: what goes on along a branch keeps the branch's name.
pub fn branches(steps: Vec<Step>, inputs: &[(Value, String)], outputs: &[Value], locals: Namer) -> Body {
    write(Writer { branches: true, ..Writer::default() }, steps, inputs, outputs, locals)
}

fn write(
    mut writer: Writer,
    steps: Vec<Step>,
    inputs: &[(Value, String)],
    outputs: &[Value],
    mut locals: Namer,
) -> Body {
    let mut reads: HashMap<Value, usize> = HashMap::new();
    for step in &steps {
        for (i, value) in step.operands.iter().enumerate() {
            *reads.entry(*value).or_default() += step.expr.count(&|e| *e == Expr::Operand(i));
        }
    }
    for output in outputs {
        *reads.entry(*output).or_default() += 1;
    }
    for (value, name) in inputs {
        let var = writer.fresh(vec![name.clone()]);
        writer.done.insert(*value, var);
        locals.take(name);
    }
    let layer = Expr::name(LOOPED);
    let layer_name = match steps.iter().any(|step| matches!(step.expr, Expr::For(..))) {
        true => locals.take("layer"),
        false => String::new(),
    };
    for mut step in steps {
        if matches!(step.expr, Expr::For(..)) {
            step.expr = step.expr.rewrite(&mut |e| (*e == layer).then(|| Expr::name(&layer_name)));
        }
        let single = !step.alone && step.results.len() == 1 && reads.get(&step.results[0]).copied().unwrap_or(0) == 1;
        let expr = writer.fill(&step);
        match step.results.as_slice() {
            [value] if single => {
                writer.pending.insert(*value, (expr, step.hints));
            }
            [value] => {
                let var = writer.fresh(step.hints);
                writer.statements.push((vec![var], expr));
                writer.done.insert(*value, var);
            }
            results => {
                let mut vars = Vec::new();
                for (i, value) in results.iter().enumerate() {
                    let hint = step.hints.get(i).cloned().unwrap_or_else(|| format!("part{}", i + 1));
                    let used = reads.get(value).copied().unwrap_or(0) > 0;
                    let var = writer.fresh(vec![if used { hint } else { "_".to_owned() }]);
                    vars.push(var);
                    writer.done.insert(*value, var);
                }
                writer.statements.push((vars, expr));
            }
        }
    }
    let mut result: Vec<Expr> = outputs.iter().map(|value| writer.read(*value)).collect();
    // One output after the other: a long one gets a line of its own.
    if outputs.len() > 1 {
        for (value, expr) in outputs.iter().zip(&mut result) {
            if writer.pending.contains_key(value) && expr.to_string().len() > LINE / outputs.len() {
                *expr = Expr::Var(writer.emit(*value));
            }
        }
    }
    writer.name(inputs.len(), result, locals)
}

#[derive(Default)]
struct Writer {
    done: HashMap<Value, usize>,
    pending: HashMap<Value, (Expr, Vec<String>)>,
    statements: Vec<(Vec<usize>, Expr)>,
    hints: Vec<Vec<String>>,
    branches: bool,
}

impl Writer {
    fn fresh(&mut self, hints: Vec<String>) -> usize {
        self.hints.push(hints);
        self.hints.len() - 1
    }

    fn read(&self, value: Value) -> Expr {
        match (self.done.get(&value), self.pending.get(&value)) {
            (Some(&var), _) => Expr::Var(var),
            (None, Some((expr, _))) => expr.clone(),
            (None, None) => Expr::name("None"),
        }
    }

    /// Length in print, with variables by the longest name that they may get.
    fn printed_len(&self, expr: &Expr) -> usize {
        let named = expr.rewrite(&mut |e| match e {
            Expr::Var(var) => Some(Expr::name(self.hints[*var].first().map_or("x", String::as_str))),
            _ => None,
        });
        named.to_string().chars().count()
    }

    fn emit(&mut self, value: Value) -> usize {
        let (expr, hints) = self.pending.remove(&value).unwrap_or((Expr::name("None"), Vec::new()));
        let var = self.fresh(hints);
        self.statements.push((vec![var], expr));
        self.done.insert(value, var);
        var
    }

    /// The call with its operands written in place where the line stays readable.
    fn fill(&mut self, step: &Step) -> Expr {
        loop {
            let filled = step.expr.rewrite(&mut |expr| match expr {
                Expr::Operand(i) => step.operands.get(*i).map(|value| self.read(*value)),
                _ => None,
            });
            let calls = filled.count(&|expr| matches!(expr, Expr::Call(..)));
            let mut waiting: Vec<Value> =
                step.operands.iter().copied().filter(|value| self.pending.contains_key(value)).collect();
            waiting.dedup();
            // What a loop reads is computed before it.
            let looped = matches!(step.expr, Expr::For(..));
            let long = looped || self.printed_len(&filled) > LINE || calls > CALLS;
            // Deeper chains read better one line each; the longest operand goes first, in the order of evaluation.
            let Some(&longest) = waiting.iter().max_by_key(|value| self.printed_len(&self.read(**value))) else {
                return filled;
            };
            if !long {
                return filled;
            }
            self.emit(longest);
        }
    }

    /// Gives every variable a name: the trunk is `x` wherever that is free.
    fn name(self, inputs: usize, result: Vec<Expr>, mut locals: Namer) -> Body {
        let mut last: Vec<usize> = vec![0; self.hints.len()];
        let mut note = |expr: &Expr, at: usize| {
            let mut vars = Vec::new();
            collect(expr, &mut vars);
            for var in vars {
                last[var] = last[var].max(at);
            }
        };
        for (at, (_, expr)) in self.statements.iter().enumerate() {
            note(expr, at + 1);
        }
        for expr in &result {
            note(expr, self.statements.len() + 1);
        }
        let mut names: Vec<String> =
            self.hints.iter().map(|hints| hints.first().cloned().unwrap_or_default()).collect();
        let branches = if self.branches { self.branch_names(&result) } else { HashMap::new() };
        let args: Vec<String> = names[..inputs].to_vec();
        let mut live: Vec<usize> = (0..inputs).collect();
        // What parts of a value are called goes on with them.
        let mut parts: HashSet<String> = HashSet::new();
        let mut statements = Vec::new();
        for (at, (targets, expr)) in self.statements.into_iter().enumerate() {
            let passed = match &expr {
                Expr::For(of) => match of.passed {
                    Some(Expr::Var(var)) => Some(var),
                    _ => None,
                },
                _ => None,
            };
            let mut ended = None;
            let mut reads = Vec::new();
            collect(&expr, &mut reads);
            reads.dedup();
            live.retain(|&var| {
                let stays = last[var] > at + 1;
                if !stays {
                    locals.release(&names[var]);
                    ended = Some(names[var].clone());
                }
                stays
            });
            let looped = passed.filter(|&var| last[var] <= at + 1).map(|var| names[var].clone());
            let mut given = Vec::with_capacity(targets.len());
            for &var in &targets {
                let is_free = |name: &str| self.branches && !locals.is_taken(name);
                let name = if let Some(name) = &looped {
                    locals.take(name)
                } else if self.hints[var].first().is_some_and(|hint| hint == "_") {
                    "_".to_owned()
                } else if let Some(name) = ended.as_ref().filter(|name| parts.contains(*name) && reads.len() == 1) {
                    locals.take(name)
                } else if targets.len() == 1 && !locals.is_taken("x") && !matches!(expr, Expr::List(_)) {
                    locals.take("x")
                } else if self.branches && targets.len() > 1 {
                    let hint = self.hints[var].first().map_or("part", String::as_str);
                    let name = locals.take(hint);
                    parts.extend((!hint.starts_with("part")).then(|| name.clone()));
                    name
                } else if let Some(name) = ended.as_ref().filter(|name| reads.len() == 1 && is_free(name)) {
                    locals.take(name)
                } else if let Some(name) = branches.get(&var).filter(|name| *name != "y") {
                    locals.take(name)
                } else if let Some(name) = ended.as_ref().filter(|name| name.starts_with('y') && is_free(name)) {
                    locals.take(name)
                } else if self.branches {
                    locals.take("y")
                } else {
                    let hint = self.hints[var].first().map(|hint| identifier(&snake_case(hint)));
                    locals.take(&hint.filter(|hint| hint != "x").unwrap_or_else(|| "y".to_owned()))
                };
                given.push((var, name));
                live.push(var);
            }
            let mut expr = with_names(&expr, &names);
            given.into_iter().for_each(|(var, name)| names[var] = name);
            // A loop passes its value on under one name.
            if let (Some(before), [after], Expr::For(of)) = (passed, targets.as_slice(), &mut expr) {
                let (before, after) = (Expr::name(&names[before]), names[*after].clone());
                if before != Expr::name(&after) {
                    of.body = of.body.rewrite(&mut |e| (*e == before).then(|| Expr::name(&after)));
                    statements.push((vec![after], before));
                }
            }
            statements.push((targets.iter().map(|&var| names[var].clone()).collect(), expr));
        }
        Body {
            args,
            lists: Vec::new(),
            statements,
            result: result.iter().map(|expr| with_names(expr, &names)).collect(),
        }
    }

    /// For the first value of every branch a name for all of it: what its functions are called in the source. Layers
    /// have names of their own.
    fn branch_names(&self, result: &[Expr]) -> HashMap<usize, String> {
        let mut readers: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut reads = Vec::with_capacity(self.statements.len());
        for (at, expr) in self.statements.iter().map(|(_, expr)| expr).chain(result).enumerate() {
            let mut vars = Vec::new();
            collect(expr, &mut vars);
            vars.sort_unstable();
            vars.dedup();
            vars.iter().for_each(|&var| readers.entry(var).or_default().push(at));
            reads.push(vars);
        }
        let telling = |at: usize| {
            let (targets, expr) = &self.statements[at];
            let Expr::Call(function, _) = expr else { return None };
            let Expr::Name(function) = function.as_ref() else { return None };
            let hint = targets.first().and_then(|&var| self.hints[var].first())?;
            (!function.contains('.')
                && hint != function
                && !hint.contains('.')
                && hint.starts_with(|c: char| c.is_ascii_alphabetic()))
            .then_some(hint)
        };
        let mut names = HashMap::new();
        let mut inside: HashSet<usize> = HashSet::new();
        for (first, (targets, _)) in self.statements.iter().enumerate() {
            let &[var] = targets.as_slice() else { continue };
            if inside.contains(&var) {
                continue;
            }
            let mut hints: Vec<&str> = telling(first).map(String::as_str).into_iter().collect();
            let mut at = var;
            while let Some(&[next]) = readers.get(&at).map(Vec::as_slice)
                && reads[next].len() == 1
                && let Some((targets, _)) = self.statements.get(next)
                && let &[target] = targets.as_slice()
            {
                hints.extend(telling(next).map(String::as_str));
                at = target;
                inside.insert(target);
            }
            // `branch_10`, `branch_11` have in common that they are branches.
            let stem = common_prefix(&hints);
            let digits = stem.trim_end_matches(|c: char| c.is_ascii_digit());
            let stem = if digits.ends_with('_') { digits } else { stem }.trim_end_matches('_');
            // What is returned beside others is what it is called in the end.
            let last = self.hints[at].first().filter(|_| result.len() > 1 && result.contains(&Expr::Var(at)));
            let name = match hints.as_slice() {
                _ if let Some(last) = last => last.clone(),
                [one, rest @ ..] if rest.iter().all(|other| other == one) => (*one).to_owned(),
                _ if stem.len() > 1 => stem.to_owned(),
                [.., last] => (*last).to_owned(),
                [] => "y".to_owned(),
            };
            names.insert(var, identifier(&snake_case(&name)));
        }
        // One branch beside the trunk needs no name.
        let distinct: HashSet<&String> = names.values().filter(|name| *name != "y").collect();
        if distinct.len() < 2 && result.len() < 2 {
            names.values_mut().for_each(|name| *name = "y".to_owned());
        }
        names
    }
}

fn collect(expr: &Expr, vars: &mut Vec<usize>) {
    expr.rewrite(&mut |e| {
        if let Expr::Var(var) = e {
            vars.push(*var);
        }
        None
    });
}

fn with_names(expr: &Expr, names: &[String]) -> Expr {
    expr.rewrite(&mut |e| match e {
        Expr::Var(var) => Some(Expr::name(&names[*var])),
        _ => None,
    })
}
