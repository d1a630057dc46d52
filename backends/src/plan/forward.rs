//! Statements: the order of calls, which results are written in place, and the names of the others.

use std::collections::{HashMap, HashSet};

use modelport_ir::Value;

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
pub fn body(steps: Vec<Step>, inputs: &[(Value, String)], outputs: &[Value], mut locals: Namer) -> Body {
    let mut writer = Writer::default();
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
        let args: Vec<String> = names[..inputs].to_vec();
        let mut live: Vec<usize> = (0..inputs).collect();
        let mut statements = Vec::new();
        for (at, (targets, expr)) in self.statements.into_iter().enumerate() {
            let passed = match &expr {
                Expr::For(of) => match of.passed {
                    Some(Expr::Var(var)) => Some(var),
                    _ => None,
                },
                _ => None,
            };
            live.retain(|&var| {
                let stays = last[var] > at + 1;
                if !stays {
                    locals.release(&names[var]);
                }
                stays
            });
            let looped = passed.filter(|&var| last[var] <= at + 1).map(|var| names[var].clone());
            let mut given = Vec::with_capacity(targets.len());
            for &var in &targets {
                let name = if let Some(name) = &looped {
                    locals.take(name)
                } else if self.hints[var].first().is_some_and(|hint| hint == "_") {
                    "_".to_owned()
                } else if targets.len() == 1 && !locals.is_taken("x") && !matches!(expr, Expr::List(_)) {
                    locals.take("x")
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
