//! Classes that wish for one name get names that tell them apart.

use std::collections::{HashMap, HashSet};

use super::class::Class;
use crate::python::Expr;

/// The name that a class would have if it were alone.
pub struct Wish {
    /// The name.
    pub name: String,
    /// Whether the name only lists the layers: another one like it gets a number.
    pub lists_layers: bool,
    /// Whether it is a residual block whose shortcut is a layer.
    pub projects: bool,
    /// Whether what leaves it is smaller than what enters.
    pub shrinks: bool,
}

/// Gives new names to classes with equal wishes: `SeparableConvBlock` holds a `SeparableConv`, the block with a layer in
/// its shortcut is the `ProjectionBottleneck`, the one that strides the `DownsampleBottleneck`, others are `InceptionA` and `InceptionB`.
pub fn tell_apart(classes: &mut [Class], wishes: &[Wish]) {
    let mut groups: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, wish) in wishes.iter().enumerate() {
        groups.entry(&wish.name).or_default().push(index);
    }
    let taken: HashSet<&str> = classes.iter().map(|class| class.name.as_str()).collect();
    let mut names: HashMap<String, String> = HashMap::new();
    for (name, group) in groups.into_iter().filter(|(_, group)| group.len() > 1) {
        let holds = |outer: usize| {
            let mut inner = group.iter().filter(|&&inner| inner != outer).map(|&inner| classes[inner].name.as_str());
            inner.any(|inner| mentions(&classes[outer], inner))
        };
        let (outer, rest): (Vec<usize>, Vec<usize>) = group.iter().partition(|&&index| holds(index));
        let projects = |index: &usize| wishes[*index].projects;
        let new: Vec<(usize, String)> = match (outer.as_slice(), rest.as_slice()) {
            (&[outer], &[inner]) if !name.ends_with("Block") => {
                vec![(inner, name.to_owned()), (outer, format!("{name}Block"))]
            }
            ([], &[a, b]) if projects(&a) != projects(&b) => {
                let (with, without) = if projects(&a) { (a, b) } else { (b, a) };
                vec![(without, name.to_owned()), (with, format!("Projection{name}"))]
            }
            ([], &[a, b]) if wishes[a].shrinks != wishes[b].shrinks && !wishes[a].lists_layers => {
                let (with, without) = if wishes[a].shrinks { (a, b) } else { (b, a) };
                vec![(without, name.to_owned()), (with, format!("Downsample{name}"))]
            }
            _ if wishes[group[0]].lists_layers || !name.ends_with(|c: char| c.is_ascii_alphabetic()) => continue,
            _ => group.iter().zip('A'..='Z').map(|(&index, letter)| (index, format!("{name}{letter}"))).collect(),
        };
        let own: HashSet<&str> = group.iter().map(|&index| classes[index].name.as_str()).collect();
        if new.len() == group.len() && new.iter().all(|(_, name)| !taken.contains(&**name) || own.contains(&**name)) {
            names.extend(new.into_iter().map(|(index, name)| (classes[index].name.clone(), name)));
        }
    }
    classes.iter_mut().for_each(|class| rename(class, &names));
}

fn mentions(class: &Class, name: &str) -> bool {
    let name = Expr::name(name);
    class.members.iter().any(|(_, _, ctor)| ctor.count(&|expr| *expr == name) > 0)
}

fn rename(class: &mut Class, names: &HashMap<String, String>) {
    let rewrite = |expr: &mut Expr| {
        *expr = expr.rewrite(&mut |expr| match expr {
            Expr::Name(name) => names.get(name).map(|new| Expr::name(new)),
            _ => None,
        });
    };
    if let Some(new) = names.get(&class.name) {
        class.name.clone_from(new);
    }
    class.members.iter_mut().for_each(|(_, _, ctor)| rewrite(ctor));
    class.kept_args.iter_mut().for_each(|(_, value)| rewrite(value));
    class.chain.iter_mut().flatten().for_each(|arg| rewrite(&mut arg.value));
    class.body.statements.iter_mut().for_each(|(_, expr)| rewrite(expr));
    class.body.result.iter_mut().for_each(rewrite);
}
