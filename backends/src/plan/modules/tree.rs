//! The source's modules as a tree, and which leaves each computes.

use std::collections::{BTreeMap, HashMap, HashSet};

use modelport_ir::{Graph, Op, Tensor, Value};

use crate::plan::leaf::{Leaf, Member, MemberKind, Param, Spare};
use crate::python::{Arg, Expr};

/// A module of the source.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Dotted path; the root's is empty.
    pub path: String,
    /// The last part of the path.
    pub name: String,
    /// Class in the source; empty where the source does not say.
    pub class: String,
    /// The module that holds it.
    pub parent: Option<usize>,
    /// Modules that it holds.
    pub children: Vec<usize>,
    /// What it is when it is one layer.
    pub layer: Option<Layer>,
    /// The layer whose weights it has and that it calls with more around: its class extends that layer.
    pub base: Option<Layer>,
    /// What is done to it when it is made: a call of `Operand(0)`.
    pub wrapper: Option<Expr>,
    /// Weights that it holds itself.
    pub tensors: Vec<Member>,
    /// Whether it must be a chain of its children if it is to be called as a whole.
    pub is_chain: bool,
    /// Whether it is only a container: what it holds is called by the module around it.
    pub open: bool,
    /// Whether anything in it is left of the source.
    pub used: bool,
}

/// A module that is one layer of the target framework.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What makes it.
    pub ctor: Expr,
    /// Its weights, with keys below the module.
    pub params: Vec<Param>,
}

/// The layer of a leaf, and its weights.
struct Based<'a> {
    ctor: Expr,
    wrapper: Option<Expr>,
    params: &'a [Param],
}

impl Based<'_> {
    fn is_same(&self, ctor: &Expr, params: &[Param]) -> bool {
        let sources = |params: &[Param]| params.iter().map(|param| param.source.clone()).collect::<Vec<_>>();
        self.ctor == *ctor && sources(self.params) == sources(params)
    }
}

/// What a call reads beside values: members of the class in which it stands.
#[derive(Clone, Debug)]
pub enum Reference {
    /// A module of the source.
    Module(usize),
    /// The layer that the class in which it stands extends.
    Base,
    /// Something without weights that the source computed in place.
    Extra(Member),
}

/// A leaf in its place.
#[derive(Clone, Debug)]
pub struct Call {
    /// The module in which it stands (before containers are opened).
    pub home: usize,
    /// What `Member`s of the expression are.
    pub references: Vec<Reference>,
    /// What it computes.
    pub expr: Expr,
    /// What it reads: computed values, and weights as values of constants.
    pub operands: Vec<Value>,
    /// What it makes.
    pub results: Vec<Value>,
    /// Names for the results.
    pub hints: Vec<String>,
    /// What it is, in a word.
    pub role: String,
}

/// The modules (the root is the first) and all calls, in the order of the source.
pub struct Tree {
    /// All modules.
    pub modules: Vec<Module>,
    /// All leaves.
    pub calls: Vec<Call>,
    /// The module that holds a weight, and its name there.
    pub homes: HashMap<Value, (usize, String)>,
    /// Weights of layers that are those of another module: module, key below it, name in the source.
    pub ties: Vec<(usize, String, String)>,
    /// Modules that are another one: where they are, and which.
    pub aliases: Vec<(usize, usize)>,
    by_path: HashMap<String, usize>,
}

impl Tree {
    /// Builds the tree of a graph with modules.
    pub fn new(graph: &Graph, leaves: &[Leaf], spare: Vec<Spare>, holder: fn(&[Param]) -> Option<Expr>) -> Tree {
        let mut tree = Tree {
            modules: Vec::new(),
            calls: Vec::new(),
            homes: HashMap::new(),
            ties: Vec::new(),
            aliases: Vec::new(),
            by_path: HashMap::new(),
        };
        tree.module("", graph);
        let mut own: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for path in graph.modules.keys() {
            tree.module(path, graph);
        }
        // Modules that only hold weights which others use.
        for id in graph.ids().into_iter().filter(|&id| graph.tensor(id.into()).is_some()) {
            if let Some((path, _)) = graph.node(id).name.rsplit_once('.').filter(|(path, _)| !path.contains('/')) {
                tree.module(path, graph);
            }
        }
        for (index, leaf) in leaves.iter().enumerate() {
            let module = tree.by_path.get(graph.module_of(leaf.node).unwrap_or_default()).copied().unwrap_or(0);
            own.entry(module).or_default().push(index);
        }
        let mut first: HashMap<usize, usize> = HashMap::new();
        for (&module, indices) in &own {
            for ancestor in tree.upwards(module) {
                let at = first.entry(ancestor).or_insert(usize::MAX);
                *at = indices.iter().copied().min().unwrap_or(usize::MAX).min(*at);
            }
        }
        tree.layers(graph, leaves, &own);
        let mut placed: Vec<(usize, Call)> = Vec::with_capacity(leaves.len());
        for (&module, indices) in &own {
            for &index in indices {
                placed.push((index, tree.call(graph, module, &leaves[index])));
            }
        }
        placed.sort_by_key(|(index, _)| *index);
        tree.calls = placed.into_iter().map(|(_, call)| call).collect();
        let spare = tree.alias(leaves, spare, graph);
        tree.hold_tied(leaves);
        for Spare { path, tensor } in spare {
            let module = tree.module(&path, graph);
            if tree.modules[module].layer.is_none() {
                tree.modules[module].tensors.push(tensor);
            }
        }
        tree.holders(holder);
        tree.mark_used();
        // Numbers in order; else in the order in which they are first called.
        for index in 0..tree.modules.len() {
            let mut children = std::mem::take(&mut tree.modules[index].children);
            let number = |child: &usize| tree.modules[*child].name.parse::<usize>().ok();
            let numbered = children.iter().all(|child| number(child).is_some());
            children.sort_by_key(|child| {
                let place = if numbered { number(child) } else { first.get(child).copied() };
                (place.unwrap_or(usize::MAX), tree.modules[*child].path.clone())
            });
            tree.modules[index].children = children;
        }
        tree
    }

    fn module(&mut self, path: &str, graph: &Graph) -> usize {
        if let Some(&index) = self.by_path.get(path) {
            return index;
        }
        let parent =
            (!path.is_empty()).then(|| self.module(path.rsplit_once('.').map_or("", |(parent, _)| parent), graph));
        let class = graph.modules.get(path).cloned().unwrap_or_default();
        let index = self.modules.len();
        self.modules.push(Module {
            path: path.to_owned(),
            name: path.rsplit('.').next().unwrap_or_default().to_owned(),
            open: parent.is_some() && class == "ModuleDict",
            // Lists are called entry by entry; where that is a chain, it is a call of the whole.
            is_chain: parent.is_some() && matches!(class.as_str(), "" | "ModuleList" | "Sequential"),
            class,
            parent,
            ..Module::default()
        });
        if let Some(parent) = parent {
            self.modules[parent].children.push(index);
        }
        self.by_path.insert(path.to_owned(), index);
        index
    }

    /// A module and all that hold it, from the inside out.
    pub fn upwards(&self, module: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(module), |&at| self.modules[at].parent)
    }

    /// Whether `module` is `other` or in it.
    pub fn is_in(&self, module: usize, other: usize) -> bool {
        self.upwards(module).any(|at| at == other)
    }

    /// Whether a module is a class or chain that is called as a whole.
    pub fn is_called(&self, module: usize) -> bool {
        let module = &self.modules[module];
        module.used && !module.open && module.layer.is_none()
    }

    /// The module that holds a weight by its name, and the key there.
    fn holder<'a>(&self, name: &'a str) -> Option<(usize, &'a str)> {
        if name.contains('/') {
            return None;
        }
        let (path, key) = name.rsplit_once('.').unwrap_or(("", name));
        self.by_path.get(path).map(|&module| (module, key))
    }

    /// The module whose layer has exactly these weights, if their names say so.
    fn layer_home(&self, params: &[Param]) -> Option<usize> {
        let mut home = None;
        for param in params.iter().filter(|param| !param.source.is_empty()) {
            // Keys of parametrised weights have dots themselves.
            let path = param.source.strip_suffix(param.key.as_str()).filter(|_| !param.source.contains('/'))?;
            let path = if path.is_empty() { path } else { path.strip_suffix('.')? };
            let module = *self.by_path.get(path)?;
            if home.is_some_and(|home| home != module) {
                return None;
            }
            home = Some(module);
        }
        home
    }

    /// Finds modules that are another one under a second name, as all their weights say; gives back the others' weights.
    fn alias(&mut self, leaves: &[Leaf], spare: Vec<Spare>, graph: &Graph) -> Vec<Spare> {
        let key = |spare: &Spare| match spare.path.as_str() {
            "" => spare.tensor.role.clone(),
            path => format!("{path}.{}", spare.tensor.role),
        };
        let params = leaves.iter().flat_map(|leaf| &leaf.members).flat_map(|member| &member.params);
        let known: BTreeMap<&str, &Tensor> = params.map(|param| (param.source.as_str(), &param.tensor)).collect();
        let mut entries: BTreeMap<String, &Tensor> = BTreeMap::new();
        for one in &spare {
            entries.extend(one.tensor.params.first().map(|param| (key(one), &param.tensor)));
        }
        let mut found: Vec<(String, String)> = Vec::new();
        for (own, tensor) in &entries {
            if found.iter().any(|(alias, _)| below(own, alias).is_some()) {
                continue;
            }
            let twins = known.iter().filter(|(_, other)| other.is_same(tensor));
            let pairs = twins.flat_map(|(other, _)| common_ends(own, other));
            let is_whole = |(alias, of): &(&str, &str)| {
                let within = |path: &str| path != *of && below(of, path).is_none() && below(path, of).is_none();
                // Norms count batches, which nothing computes with.
                let mut inner = entries.iter().filter(|(key, _)| !key.ends_with(".num_batches_tracked"));
                within(alias)
                    && known.keys().all(|key| below(key, alias).is_none())
                    && inner.all(|(key, tensor)| {
                        below(key, alias).is_none_or(|rest| {
                            known.get(format!("{of}.{rest}").as_str()).is_some_and(|other| other.is_same(tensor))
                        })
                    })
            };
            // The outermost.
            if let Some((alias, of)) = pairs.filter(is_whole).min_by_key(|(alias, _)| alias.len())
                && self.by_path.contains_key(of)
            {
                found.push((alias.to_owned(), of.to_owned()));
            }
        }
        for (alias, of) in &found {
            let (alias, of) = (self.module(alias, graph), self.module(of, graph));
            self.aliases.push((alias, of));
        }
        let is_other = |one: &Spare| found.iter().all(|(alias, _)| below(&key(one), alias).is_none());
        let kept = spare.iter().map(is_other).collect::<Vec<_>>();
        spare.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(one, _)| one).collect()
    }

    /// Weights that only others' layers have are held where their keys say.
    fn hold_tied(&mut self, leaves: &[Leaf]) {
        let members = leaves.iter().filter_map(|leaf| leaf.functional.as_ref()).flat_map(|form| &form.members);
        let members: HashMap<&str, &Member> =
            members.filter_map(|member| Some((member.params.first()?.source.as_str(), member))).collect();
        for (_, _, source) in &self.ties {
            let Some((module, key)) = self.holder(source) else { continue };
            let of = &self.modules[module];
            let mut layers = of.layer.iter().chain(&of.base).flat_map(|layer| &layer.params);
            let held = of.tensors.iter().any(|tensor| tensor.role == key) || layers.any(|param| param.key == key);
            if let Some(&member) = members.get(source.as_str()).filter(|_| !held) {
                let member = Member { role: key.to_owned(), ..member.clone() };
                self.modules[module].tensors.push(member);
            }
        }
    }

    /// Finds the modules that are one layer.
    fn layers(&mut self, graph: &Graph, leaves: &[Leaf], own: &BTreeMap<usize, Vec<usize>>) {
        let mut refused: HashSet<usize> = HashSet::new();
        let held = self.held(graph);
        for (&module, indices) in own {
            if let Some((base, wrapper)) = self.base(module, leaves, own, &held) {
                self.modules[module].base = Some(base);
                self.modules[module].wrapper = wrapper;
                continue;
            }
            for &index in indices {
                let leaf = &leaves[index];
                let Some((ctor, params)) = layer(leaf) else { continue };
                let alone = indices.iter().all(|&other| {
                    let other = layer(&leaves[other]);
                    other.is_some_and(|(c, p)| c == ctor && p.len() == params.len())
                });
                let weighted = params.iter().any(|param| !param.source.is_empty());
                let home = if weighted { self.layer_home(&params) } else { None };
                let target = match home {
                    Some(home) if self.is_in(home, module) => Some(home),
                    // Elsewhere: a layer of its own whose weights are another's.
                    _ if weighted && alone && is_torch_class(&self.modules[module].class) => Some(module),
                    None if !weighted && alone && leaf.operands.len() == 1 => Some(module),
                    _ => None,
                };
                let Some(target) = target.filter(|&target| target != 0) else { continue };
                let children = self.modules[target].children.iter();
                let has_children = children.clone().any(|child| own.contains_key(child));
                let mixed = target == module && !alone && self.in_chain(module);
                let other = self.modules[target].layer.as_ref().is_some_and(|layer| {
                    let sources = |params: &[Param]| params.iter().map(|p| p.source.clone()).collect::<Vec<_>>();
                    layer.ctor != ctor || sources(&layer.params) != sources(&params)
                });
                let foreign = target != module && own.contains_key(&target);
                // Something else reads a weight of the module that the layer does not have.
                let lacks = held
                    .get(&target)
                    .is_some_and(|keys| keys.iter().any(|key| params.iter().all(|param| param.key != *key)));
                if has_children || mixed || other || foreign || lacks {
                    refused.insert(target);
                    continue;
                }
                if weighted && home != Some(target) {
                    for param in params.iter().filter(|param| !param.source.is_empty()) {
                        let tie = (target, param.key.clone(), param.source.clone());
                        // What is computed from weights, and no entry itself, is the layer's.
                        let holder = self.holder(&param.source);
                        let own = holder.is_none_or(|holder| holder == (target, param.key.as_str()));
                        if !own && !self.ties.contains(&tie) {
                            self.ties.push(tie);
                        }
                    }
                }
                self.modules[target].layer = Some(Layer { ctor, params });
            }
        }
        for module in refused {
            self.modules[module].layer = None;
            self.ties.retain(|(tied, _, _)| *tied != module);
        }
    }

    /// The layer that a class of the source extends: its weights are exactly the module's, and it is not all that the
    /// module computes.
    fn base(
        &self,
        module: usize,
        leaves: &[Leaf],
        own: &BTreeMap<usize, Vec<usize>>,
        held: &HashMap<usize, Vec<&str>>,
    ) -> Option<(Layer, Option<Expr>)> {
        let of = &self.modules[module];
        let indices = own.get(&module)?;
        let mut based = indices.iter().filter_map(|&index| self.based(module, &leaves[index]));
        let first = based.next().filter(|_| module != 0 && !of.class.is_empty() && !is_torch_class(&of.class))?;
        let is_alone = matches!(indices.as_slice(), [index] if layer(&leaves[*index]).is_some())
            && !of.children.iter().any(|child| own.contains_key(child));
        let keys = held.get(&module)?;
        let is_all = keys.iter().all(|key| first.params.iter().any(|param| param.key == *key));
        let is_one = based.all(|other| other.is_same(&first.ctor, first.params));
        let layer = Layer { ctor: first.ctor.clone(), params: first.params.to_vec() };
        (!is_alone && is_all && is_one).then_some((layer, first.wrapper))
    }

    /// A leaf as a layer that has its weights from this module itself.
    fn based<'a>(&self, module: usize, leaf: &'a Leaf) -> Option<Based<'a>> {
        let [Member { kind: MemberKind::Module, ctor, params, .. }] = leaf.members.as_slice() else { return None };
        let (ctor, wrapper) = match ctor {
            // A layer to which something is done.
            Expr::Call(function, args) if args.first().is_some_and(|arg| matches!(arg.value, Expr::Call(..))) => {
                let mut outer = args.clone();
                let inner = std::mem::replace(&mut outer.first_mut()?.value, Expr::Operand(0));
                (inner, Some(Expr::Call(function.clone(), outer)))
            }
            ctor => (ctor.clone(), None),
        };
        (self.layer_home(params) == Some(module)).then_some(Based { ctor, wrapper, params })
    }

    /// The keys of each module's weights.
    fn held<'a>(&self, graph: &'a Graph) -> HashMap<usize, Vec<&'a str>> {
        let mut held: HashMap<usize, Vec<&str>> = HashMap::new();
        for id in graph.ids().into_iter().filter(|&id| graph.tensor(id.into()).is_some()) {
            let name = &graph.node(id).name;
            // Of this the module holds the parts.
            if graph.weight_norms.contains_key(name) {
                continue;
            }
            // One weight in two forms is two constants.
            let is_second = name
                .rsplit_once('_')
                .is_some_and(|(stem, number)| number.bytes().all(|b| b.is_ascii_digit()) && graph.find(stem).is_some());
            if let Some((module, key)) = self.holder(name).filter(|_| !is_second) {
                held.entry(module).or_default().push(key);
            }
        }
        held
    }

    /// Whether a module is an entry of a chain, which has no place for functions beside it.
    fn in_chain(&self, module: usize) -> bool {
        self.modules[module].name.parse::<usize>().is_ok()
    }

    /// A leaf in its place.
    fn call(&mut self, graph: &Graph, module: usize, leaf: &Leaf) -> Call {
        let results = (0..graph.node(leaf.node).outputs.len()).map(|output| Value { node: leaf.node, output });
        let mut call = Call {
            home: module,
            references: Vec::new(),
            expr: leaf.expr.clone(),
            operands: leaf.operands.clone(),
            results: results.collect(),
            hints: if leaf.results.is_empty() { vec![leaf.role.clone()] } else { leaf.results.clone() },
            role: leaf.role.clone(),
        };
        let base = self.modules[module].base.as_ref().zip(self.based(module, leaf));
        if base.is_some_and(|(base, leaf)| leaf.is_same(&base.ctor, &base.params)) {
            call.references = vec![Reference::Base];
            return call;
        }
        let is_layer = self.modules[module].layer.is_some();
        if let Some((ctor, params)) = layer(leaf) {
            let weighted = params.iter().any(|param| !param.source.is_empty());
            let fits = |at: &usize| {
                let layer = self.modules[*at].layer.as_ref();
                layer.is_some_and(|layer| {
                    layer.ctor == ctor && (layer.params.iter().zip(&params).all(|(a, b)| a.source == b.source))
                })
            };
            let home = if weighted { self.layer_home(&params) } else { None };
            let target = home.filter(|&home| self.is_in(home, module)).into_iter().chain([module]).find(fits);
            if let Some(target) = target {
                if target == module {
                    call.home = self.modules[module].parent.unwrap_or(0);
                }
                if leaf.members.is_empty() {
                    call.references = vec![Reference::Module(target)];
                    call.expr = Expr::Call(Box::new(Expr::Member(0)), vec![Arg::new(Expr::Operand(0))]);
                } else {
                    self.fill(graph, &mut call, &leaf.members, &leaf.expr, Some(target));
                }
                call.hints = match leaf.results.as_slice() {
                    [] => vec![self.modules[target].name.clone()],
                    results => results.to_vec(),
                };
                return call;
            }
        }
        if is_layer {
            call.home = self.modules[module].parent.unwrap_or(0);
        }
        let weighted = leaf.members.iter().any(|member| {
            member.kind == MemberKind::Module && member.params.iter().any(|param| !param.source.is_empty())
        });
        let (members, expr) = match &leaf.functional {
            Some(form) if weighted => (&form.members, &form.expr),
            _ => (&leaf.members, &leaf.expr),
        };
        self.fill(graph, &mut call, members, expr, None);
        call
    }

    /// Gives a call its members. Weights become operands: who holds them is seen where they are read. The one module
    /// may be a module of the source.
    fn fill(&mut self, graph: &Graph, call: &mut Call, members: &[Member], expr: &Expr, module: Option<usize>) {
        let mut places = Vec::with_capacity(members.len());
        for member in members {
            let constant = member.params.first().and_then(|param| graph.find(&param.source)).map(Value::from);
            places.push(match (member.kind, constant, module) {
                (MemberKind::Module, _, Some(module)) => {
                    call.references.push(Reference::Module(module));
                    Expr::Member(call.references.len() - 1)
                }
                (MemberKind::Parameter | MemberKind::Buffer, Some(value), _) => {
                    self.hold(graph, value, member, call.home);
                    call.operands.push(value);
                    Expr::Operand(call.operands.len() - 1)
                }
                _ => {
                    call.references.push(Reference::Extra(member.clone()));
                    Expr::Member(call.references.len() - 1)
                }
            });
        }
        call.expr = expr.rewrite(&mut |part| match part {
            Expr::Member(index) => places.get(*index).cloned(),
            _ => None,
        });
    }

    /// Notes who holds a weight.
    fn hold(&mut self, graph: &Graph, value: Value, member: &Member, reader: usize) {
        if self.homes.contains_key(&value) {
            return;
        }
        let name = graph.node(value.node).name.clone();
        let mut member = member.clone();
        let (module, key) = match self.holder(&name) {
            Some((module, key)) => (module, key.to_owned()),
            None => {
                // No key of the state dict: it stays with who reads it, under a name that is free there; where several
                // modules do, with the one that has them all.
                let module = self.common(graph, value, reader);
                let mut namer = crate::python::Namer::default();
                for child in &self.modules[module].children {
                    namer.take(&self.modules[*child].name);
                }
                for tensor in &self.modules[module].tensors {
                    namer.take(&tensor.role);
                }
                // What was computed from weights that are trained is trained in their place.
                let trained = matches!(graph.op(value.node), Op::Constant(constant) if constant.trainable);
                member.kind = if trained { MemberKind::Parameter } else { MemberKind::Constant };
                let made = graph.tensor(value).filter(|_| !trained).and_then(super::constant::expression);
                if let Some((ctor, role)) = made {
                    member = Member { role: role.to_owned(), ctor, params: Vec::new(), ..member };
                }
                (module, namer.take(&member.role))
            }
        };
        self.homes.insert(value, (module, key.clone()));
        let of = &self.modules[module];
        if of.layer.is_none() && !of.base.iter().flat_map(|base| &base.params).any(|param| param.key == key) {
            self.modules[module].tensors.push(Member { role: key, ..member });
        }
    }

    /// The module in which all are that read a value.
    fn common(&self, graph: &Graph, value: Value, reader: usize) -> usize {
        let modules = graph.consumers(value).into_iter().filter_map(|(node, _)| graph.module_of(node));
        let homes = modules.filter_map(|path| self.by_path.get(path).copied());
        let around =
            homes.fold(reader, |common, home| self.upwards(common).find(|&at| self.is_in(home, at)).unwrap_or(0));
        let holds = |at: &usize| {
            let of = &self.modules[*at];
            of.layer.is_none() && (around == reader || !(of.open || of.is_chain))
        };
        self.upwards(around).find(holds).unwrap_or(0)
    }

    /// Modules that only hold weights may be layers.
    fn holders(&mut self, holder: fn(&[Param]) -> Option<Expr>) {
        let called: HashSet<usize> = self.calls.iter().map(|call| call.home).collect();
        for (index, module) in self.modules.iter_mut().enumerate().skip(1) {
            let named = !module.class.is_empty() && !is_torch_class(&module.class);
            if named || module.layer.is_some() || !module.children.is_empty() || called.contains(&index) {
                continue;
            }
            let below = |tensor: &Member| tensor.params.iter().map(|p| p.below(&tensor.role)).collect::<Vec<_>>();
            let params: Vec<Param> = module.tensors.iter().flat_map(below).collect();
            if let Some(ctor) = holder(&params) {
                module.layer = Some(Layer { ctor, params });
                module.tensors.clear();
            }
        }
    }

    fn mark_used(&mut self) {
        let homes: Vec<usize> = self.calls.iter().map(|call| call.home).collect();
        let holders = (0..self.modules.len())
            .filter(|&module| self.modules[module].layer.is_some() || !self.modules[module].tensors.is_empty());
        let used: HashSet<usize> =
            homes.into_iter().chain(holders).flat_map(|module| self.upwards(module).collect::<Vec<_>>()).collect();
        for module in used {
            self.modules[module].used = true;
        }
    }
}

/// The rest of a key below a module.
fn below<'a>(key: &'a str, module: &str) -> Option<&'a str> {
    key.strip_prefix(module)?.strip_prefix('.')
}

/// Where two keys may be cut so that what follows is the same: the paths before that.
fn common_ends<'a>(a: &'a str, b: &'a str) -> Vec<(&'a str, &'a str)> {
    let cuts = a.match_indices('.').map(|(at, _)| a.split_at(at));
    cuts.filter_map(|(path, rest)| Some((path, b.strip_suffix(rest)?))).collect()
}

/// A leaf as one module called with one value: what makes the module, and its weights.
fn layer(leaf: &Leaf) -> Option<(Expr, Vec<Param>)> {
    let mut modules = leaf.members.iter().enumerate().filter(|(_, member)| member.kind == MemberKind::Module);
    let Some((at, module)) = modules.next() else {
        return match leaf.modules.as_deref() {
            Some([module]) if leaf.members.is_empty() && leaf.operands.len() == 1 => {
                Some((module.ctor.clone(), module.params.clone()))
            }
            _ => None,
        };
    };
    // What it is called with may be a weight, of which nothing but a module makes anything.
    let single = |args: &[Arg]| match args {
        [arg] => matches!(arg.value, Expr::Operand(0) | Expr::Member(_)),
        _ => false,
    };
    let called = match &leaf.expr {
        // A call that gives several values may take states beside its first operand.
        Expr::Prefix("", call) => matches!(&**call, Expr::Call(function, _) if **function == Expr::Member(at)),
        Expr::Call(function, args) => **function == Expr::Member(at) && single(args),
        _ => false,
    };
    (called && modules.next().is_none()).then(|| (module.ctor.clone(), module.params.clone()))
}

/// Names of `torch.nn` that generated classes must not have, as they would mean something else.
pub fn is_torch_class(name: &str) -> bool {
    const FAMILIES: &[&str] = &[
        "Conv",
        "ConvTranspose",
        "BatchNorm",
        "InstanceNorm",
        "MaxPool",
        "AvgPool",
        "AdaptiveAvgPool",
        "AdaptiveMaxPool",
        "LPPool",
        "FractionalMaxPool",
        "MaxUnpool",
        "ReflectionPad",
        "ReplicationPad",
        "ZeroPad",
        "ConstantPad",
        "CircularPad",
        "Dropout",
        "UpsamplingNearest",
        "UpsamplingBilinear",
        "Softmax",
    ];
    const CLASSES: &[&str] = &[
        "Linear",
        "Bilinear",
        "Identity",
        "LazyLinear",
        "Embedding",
        "EmbeddingBag",
        "LayerNorm",
        "GroupNorm",
        "RMSNorm",
        "LocalResponseNorm",
        "CrossMapLRN2d",
        "SyncBatchNorm",
        "RNN",
        "LSTM",
        "GRU",
        "RNNCell",
        "LSTMCell",
        "GRUCell",
        "MultiheadAttention",
        "Transformer",
        "TransformerEncoder",
        "TransformerDecoder",
        "TransformerEncoderLayer",
        "TransformerDecoderLayer",
        "ReLU",
        "ReLU6",
        "ELU",
        "SELU",
        "CELU",
        "GELU",
        "GLU",
        "SiLU",
        "Mish",
        "Sigmoid",
        "Tanh",
        "LeakyReLU",
        "PReLU",
        "RReLU",
        "Hardtanh",
        "Hardsigmoid",
        "Hardswish",
        "Hardshrink",
        "Softshrink",
        "Softplus",
        "Softsign",
        "Tanhshrink",
        "Threshold",
        "LogSigmoid",
        "Softmin",
        "Softmax",
        "LogSoftmax",
        "Softmax2d",
        "Dropout",
        "AlphaDropout",
        "FeatureAlphaDropout",
        "Flatten",
        "Unflatten",
        "Fold",
        "Unfold",
        "PixelShuffle",
        "PixelUnshuffle",
        "ChannelShuffle",
        "Upsample",
        "CosineSimilarity",
        "PairwiseDistance",
        "Sequential",
        "ModuleList",
        "ModuleDict",
        "Module",
        "Parameter",
    ];
    let family = name.strip_suffix('d').map(|name| name.trim_end_matches(['1', '2', '3']));
    CLASSES.contains(&name) || family.is_some_and(|family| FAMILIES.contains(&family))
}
