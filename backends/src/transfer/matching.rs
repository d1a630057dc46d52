//! Which layer of the source is which of the target.

use std::collections::{HashMap, HashSet};

use modelport_ir::{Problem, Tensor};

use super::layer::{Family, Kind, Layer, Parameter, Role, Side};
use super::map::Entry;
use super::turn::{Made, Missing, Pair};
use super::{By, LayerMatch, Match, Options, Plan};

pub fn plan(source: &Side, target: &Side, options: &Options) -> Plan {
    let mut matcher = Matcher {
        source,
        target,
        partner: vec![None; target.layers.len()],
        taken: vec![false; source.layers.len()],
        plan: Plan::default(),
        single: HashMap::new(),
        kept: HashSet::new(),
        flattened: HashMap::new(),
    };
    matcher.by_map(options);
    matcher.by_name();
    matcher.by_rule();
    matcher.by_ending();
    if options.by_order {
        matcher.by_order();
    }
    matcher.finish()
}

pub(super) struct Matcher<'a> {
    pub(super) source: &'a Side,
    pub(super) target: &'a Side,
    /// For every layer of the target that of the source.
    pub(super) partner: Vec<Option<(usize, By)>>,
    /// Layers of the source that are somebody's.
    taken: Vec<bool>,
    plan: Plan,
    /// Tensors that the map names themselves.
    single: HashMap<String, (String, Entry)>,
    /// What the map leaves as it is.
    kept: HashSet<String>,
    /// What was flattened before layers of the target.
    flattened: HashMap<usize, Vec<usize>>,
}

fn layer_called(side: &Side, name: &str) -> Option<usize> {
    side.layers.iter().position(|layer| layer.name == name)
}

fn parameter_called<'a>(side: &'a Side, name: &str) -> Option<(usize, &'a Parameter)> {
    let of = |(index, layer): (usize, &'a Layer)| Some((index, layer.parameters.iter().find(|p| p.name == name)?));
    side.layers.iter().enumerate().find_map(of)
}

impl Matcher<'_> {
    fn problem(&mut self, message: String, target: &str, hint: Option<String>) {
        let mut problem = Problem::new(message).node(target);
        problem.hint = hint;
        self.plan.conflicts.push(problem);
    }

    pub(super) fn pair(&mut self, source: usize, target: usize, by: By) {
        if let (Some(partner), Some(taken)) = (self.partner.get_mut(target), self.taken.get_mut(source)) {
            *partner = Some((source, by));
            *taken = true;
        }
    }

    fn is_free(&self, source: usize, target: usize) -> bool {
        self.partner.get(target).is_some_and(Option::is_none) && self.taken.get(source) == Some(&false)
    }

    fn by_map(&mut self, options: &Options) {
        for (name, entry) in &options.map.0 {
            let layer = layer_called(self.target, name);
            let parameter = parameter_called(self.target, name);
            if layer.is_none() && parameter.is_none() {
                if self.below(name, entry) {
                    continue;
                }
                self.problem("the map names what the target does not have".to_owned(), name, None);
                continue;
            }
            let Some(from) = &entry.from else {
                let layer = layer.and_then(|index| self.target.layers.get(index));
                match layer {
                    Some(layer) => self.kept.extend(layer.parameters.iter().map(|p| p.name.clone())),
                    None => {
                        self.kept.insert(name.clone());
                    }
                }
                continue;
            };
            let source = layer_called(self.source, from);
            match (layer, source, parameter, parameter_called(self.source, from)) {
                (Some(target), Some(source), ..) => {
                    if entry.permute.is_some() || entry.reshape.is_some() {
                        let message = "the map turns a whole layer, expected the name of a tensor".to_owned();
                        self.problem(message, name, None);
                    }
                    if let Some(shape) = &entry.flattened {
                        self.flattened.insert(target, shape.clone());
                    }
                    self.pair(source, target, By::Map);
                }
                (_, _, Some((target, _)), Some(_)) => {
                    if let Some(shape) = &entry.flattened {
                        self.flattened.insert(target, shape.clone());
                    }
                    self.single.insert(name.clone(), (from.clone(), entry.clone()));
                }
                (_, None, _, None) => {
                    self.problem(format!("the map takes it from {from}, which the source does not have"), name, None);
                }
                _ => self.problem(
                    format!("the map takes it from {from}, but one is a layer and one a tensor"),
                    name,
                    None,
                ),
            }
        }
    }

    /// An entry for all layers below a name: what follows it is the same on both sides.
    fn below(&mut self, name: &str, entry: &Entry) -> bool {
        let inside = |layer: &Layer, name: &str| {
            plain(&layer.name).strip_prefix(&format!("{}.", plain(name))).map(str::to_owned)
        };
        let target = self.target;
        let layers = target.layers.iter().enumerate();
        let targets: Vec<(usize, String)> = layers.filter_map(|(i, layer)| Some((i, inside(layer, name)?))).collect();
        for (index, rest) in &targets {
            let layer = target.layers.get(*index);
            let Some(from) = &entry.from else {
                self.kept.extend(layer.into_iter().flat_map(|layer| &layer.parameters).map(|p| p.name.clone()));
                continue;
            };
            let source = self.source.layers.iter().position(|layer| inside(layer, from).as_ref() == Some(rest));
            match (source, layer) {
                (Some(source), _) => self.pair(source, *index, By::Map),
                (None, Some(layer)) => {
                    let message = format!("the map takes it from {from}, which has no layer {rest} in the source");
                    self.problem(message, &layer.name, None);
                }
                (None, None) => {}
            }
        }
        !targets.is_empty()
    }

    fn by_name(&mut self) {
        let names: HashMap<&str, usize> =
            self.source.layers.iter().enumerate().map(|(index, layer)| (layer.name.as_str(), index)).collect();
        let target = self.target;
        for (index, layer) in target.layers.iter().enumerate() {
            if let Some(&source) = names.get(layer.name.as_str())
                && self.is_free(source, index)
            {
                self.pair(source, index, By::Name);
            }
        }
    }

    /// Names that are equal but for separators, case and what one side has before all of them.
    fn by_rule(&mut self) {
        let prefix = |side: &Side| {
            let first = |layer: &Layer| plain(&layer.name).split_once('.').map(|(first, _)| format!("{first}."));
            let prefix = side.layers.first().and_then(first);
            prefix.filter(|prefix| side.layers.iter().all(|layer| plain(&layer.name).starts_with(prefix.as_str())))
        };
        let (of_source, of_target) = (prefix(self.source), prefix(self.target));
        let ways = [(false, false), (true, false), (false, true), (true, true)];
        // Keras code of modelport joins names by two underscores where one would give two layers one name.
        let ways = ways.iter().flat_map(|&(source, target)| [(source, target, "_"), (source, target, "__")]);
        let mut unclear: HashSet<usize> = HashSet::new();
        for (without_source, without_target, joint) in ways {
            let key = |layer: &Layer, prefix: &Option<String>, without: bool| {
                let name = plain(&layer.name);
                let stripped = prefix.as_deref().filter(|_| without).and_then(|prefix| name.strip_prefix(prefix));
                stripped.unwrap_or(&name).replace('.', joint)
            };
            let mut names: HashMap<String, Vec<usize>> = HashMap::new();
            for (index, layer) in self.source.layers.iter().enumerate() {
                names.entry(key(layer, &of_source, without_source)).or_default().push(index);
            }
            let mut wanted: HashMap<String, Vec<usize>> = HashMap::new();
            for (index, layer) in self.target.layers.iter().enumerate() {
                wanted.entry(key(layer, &of_target, without_target)).or_default().push(index);
            }
            let mut pairs: Vec<(usize, usize)> = Vec::new();
            for (name, targets) in &wanted {
                match (targets.as_slice(), names.get(name).map(Vec::as_slice)) {
                    (_, None) => {}
                    ([target], Some([source])) if !unclear.contains(target) => pairs.push((*source, *target)),
                    // What two layers are called is nobody's.
                    (targets, Some(_)) => unclear.extend(targets.iter().copied()),
                }
            }
            pairs.sort_unstable();
            for (source, target) in pairs {
                if self.is_free(source, target) {
                    self.pair(source, target, By::Rule);
                }
            }
        }
    }

    /// Names of which one is the end of the other, where that is so for no other name, and shapes agree.
    fn by_ending(&mut self) {
        let joined = |layer: &Layer| format!("_{}", plain(&layer.name).replace('.', "_"));
        let (free, open) = (self.free(), self.open());
        let named = |side: &Side, layers: &[usize]| -> Vec<(usize, String)> {
            layers.iter().filter_map(|&index| Some((index, joined(side.layers.get(index)?)))).collect()
        };
        let (sources, targets) = (named(self.source, &free), named(self.target, &open));
        let is_end = |a: &str, b: &str| a.len() > 1 && b.len() > 1 && (a.ends_with(b) || b.ends_with(a));
        let of = |name: &str, all: &[(usize, String)]| -> Vec<usize> {
            all.iter().filter(|(_, other)| is_end(name, other)).map(|(index, _)| *index).collect()
        };
        for (target, name) in &targets {
            if let [source] = of(name, &sources)[..]
                && let Some((_, back)) = sources.iter().find(|(index, _)| *index == source)
                && of(back, &targets).len() == 1
                && self.fits(source, *target).is_some()
            {
                self.pair(source, *target, By::Rule);
            }
        }
    }

    /// Layers of the source that are nobody's.
    pub(super) fn free(&self) -> Vec<usize> {
        (0..self.source.layers.len()).filter(|index| self.taken.get(*index) == Some(&false)).collect()
    }

    /// Layers of the target that have no match.
    pub(super) fn open(&self) -> Vec<usize> {
        (0..self.target.layers.len()).filter(|index| self.partner.get(*index) == Some(&None)).collect()
    }

    /// Whether all of a layer of the target can be made of one of the source, and nothing is left of that; and whether
    /// something of it is not in the source at all.
    pub(super) fn fits(&self, source: usize, target: usize) -> Option<bool> {
        let (source, layer) = (self.source.layers.get(source)?, self.target.layers.get(target)?);
        let pair = self.pair_of(target, source, layer);
        let made: Vec<Made> = layer.parameters.iter().map(|p| pair.make(p).ok()).collect::<Option<_>>()?;
        let agree = source.kind == Kind::Unknown || layer.kind == Kind::Unknown || source.kind == layer.kind;
        (agree && pair.leaves_nothing()).then(|| made.iter().any(|made| made.is_neutral))
    }

    fn finish(mut self) -> Plan {
        let mut used: HashSet<String> = HashSet::new();
        let (source, target) = (self.source, self.target);
        for (index, layer) in target.layers.iter().enumerate() {
            let partner = self.partner.get(index).copied().flatten();
            let partner = partner.and_then(|(at, by)| Some((source.layers.get(at)?, by)));
            // A tensor that the map names is taken for itself, all others with their layer or not at all.
            let mut together = Vec::new();
            for parameter in &layer.parameters {
                if self.kept.contains(&parameter.name) {
                    continue;
                }
                match self.single.remove(&parameter.name) {
                    Some((from, entry)) => {
                        let made = self.single(index, layer, parameter, &from, &entry);
                        self.settle(parameter, made, By::Map, &mut used);
                    }
                    None => together.push(parameter),
                }
            }
            let Some((partner, by)) = partner else {
                self.plan.left_in_target.extend(together.into_iter().map(|parameter| parameter.name.clone()));
                continue;
            };
            let pair = self.pair_of(index, partner, layer);
            let made: Vec<_> = together.into_iter().map(|parameter| (parameter, pair.make(parameter))).collect();
            let mut is_whole = made.iter().all(|(_, made)| made.is_ok());
            // Without it the layer would compute something else.
            let surplus: Vec<&str> = pair.surplus().filter(|name| !used.contains(*name)).collect();
            if let (true, false, Some((first, _))) = (is_whole, surplus.is_empty(), made.first()) {
                let message = format!("is of a layer that has no place for {}", surplus.join(", "));
                let hint = format!("to take it all the same, name its source for \"{}\" in the map", first.name);
                self.problem(message, &first.name, Some(hint));
                is_whole = false;
            }
            if !is_whole {
                // It has its match, which can't be used.
                used.extend(partner.parameters.iter().map(|parameter| parameter.name.clone()));
            }
            for (parameter, made) in made {
                match made {
                    Ok(_) if !is_whole && self.is_told(&parameter.name) => {}
                    Ok(_) if !is_whole => self.plan.left_with_layer.push(parameter.name.clone()),
                    Err(Missing::Absent) => {
                        let message = format!("is a part of its layer that {} does not have", partner.name);
                        let hint =
                            format!("to keep it and take the rest, write \"{}\": null in the map", parameter.name);
                        self.problem(message, &parameter.name, Some(hint));
                    }
                    made => self.settle(parameter, made, by, &mut used),
                }
            }
        }
        self.plan.layers = self.layers();
        for (index, layer) in target.layers.iter().enumerate() {
            if let Some(partner) = self.partner.get(index).copied().flatten().and_then(|(at, _)| source.layers.get(at))
            {
                let pair = self.pair_of(index, partner, layer);
                let spare = partner.parameters.iter().filter(|p| !used.contains(&p.name) && pair.is_spare(p));
                let spare: Vec<String> = spare.map(|parameter| parameter.name.clone()).collect();
                used.extend(spare);
            }
        }
        let all = source.layers.iter().flat_map(|layer| &layer.parameters);
        self.plan.left_in_source = all.map(|p| p.name.clone()).filter(|name| !used.contains(name)).collect();
        self.plan
    }

    /// What every layer of the target is from.
    fn layers(&self) -> Vec<LayerMatch> {
        let of = |(layer, partner): (&Layer, &Option<(usize, By)>)| LayerMatch {
            target: layer.name.clone(),
            parameters: layer.parameters.iter().map(|parameter| parameter.name.clone()).collect(),
            source: partner.and_then(|(at, by)| Some((self.source.layers.get(at)?.name.clone(), by))),
        };
        self.target.layers.iter().zip(&self.partner).map(of).collect()
    }

    /// Whether a conflict tells of a tensor of the target.
    fn is_told(&self, name: &str) -> bool {
        self.plan.conflicts.iter().any(|problem| problem.node.as_deref() == Some(name))
    }

    fn settle(&mut self, parameter: &Parameter, made: Result<Made, Missing>, by: By, used: &mut HashSet<String>) {
        match made {
            Ok(made) => {
                used.extend(made.sources.iter().cloned());
                let by_name = by == By::Rule && made.sources == [parameter.name.clone()];
                self.plan.matches.push(Match {
                    target: parameter.name.clone(),
                    sources: made.sources,
                    tensor: made.tensor,
                    by: if by_name { By::Name } else { by },
                });
            }
            Err(Missing::Absent) => self.plan.left_in_target.push(parameter.name.clone()),
            Err(Missing::Conflict(message, hint)) => self.problem(message, &parameter.name, hint),
        }
    }

    fn pair_of<'b>(&'b self, index: usize, source: &'b Layer, target: &'b Layer) -> Pair<'b> {
        let flattened = self.flattened.get(&index).map(Vec::as_slice);
        Pair { source, target, from: self.source.family, to: self.target.family, flattened }
    }

    /// A tensor that the map names.
    fn single(
        &self,
        index: usize,
        layer: &Layer,
        parameter: &Parameter,
        from: &str,
        entry: &Entry,
    ) -> Result<Made, Missing> {
        let failed = |message: String| Missing::Conflict(message, None);
        let (at, found) = parameter_called(self.source, from).ok_or(Missing::Absent)?;
        let owner = self.source.layers.get(at).ok_or(Missing::Absent)?;
        if entry.permute.is_none() && entry.reshape.is_none() {
            let pair = self.pair_of(index, owner, layer);
            return pair.make(parameter).and_then(|made| match made.sources.iter().any(|name| name == from) {
                true => Ok(made),
                false => Err(failed(format!("is not made of {from}: say how it is turned with \"permute\""))),
            });
        }
        let mut tensor: Tensor = found.tensor.clone();
        if let Some(order) = &entry.permute {
            tensor = tensor.permuted(order).map_err(failed)?;
        }
        if let Some(shape) = &entry.reshape {
            tensor = tensor.reshaped(shape).map_err(failed)?;
        }
        let (is, expected) = (tensor.shape(), parameter.tensor.shape());
        if is != expected {
            return Err(failed(format!("has the shape {expected:?}, the map gives {is:?} from {from}")));
        }
        Ok(Made::of(found, tensor.cast(parameter.tensor.dtype())))
    }
}

impl Pair<'_> {
    /// What the source adds or multiplies by, and nothing in the target is made of.
    fn surplus(&self) -> impl Iterator<Item = &str> {
        let made = self.target.parameters.iter().filter_map(|parameter| self.make(parameter).ok());
        let sources: HashSet<String> = made.flat_map(|made| made.sources).collect();
        let zero = |tensor: &Tensor| tensor.to_f64().is_ok_and(|all| all.iter().all(|x| *x == 0.0));
        self.source.parameters.iter().filter_map(move |parameter| {
            let neutral = match parameter.role {
                Role::Bias | Role::RecurrentBias | Role::Beta => zero(&parameter.tensor),
                Role::Named(_) => true,
                _ => self.kind() != Kind::Norm,
            };
            let is_left = !neutral && !sources.contains(&parameter.name) && !self.is_spare(parameter);
            is_left.then_some(parameter.name.as_str())
        })
    }

    /// Whether everything that the source has is used in the target.
    fn leaves_nothing(&self) -> bool {
        let made: HashSet<String> =
            self.target.parameters.iter().filter_map(|p| self.make(p).ok()).flat_map(|made| made.sources).collect();
        let is_spare = |parameter: &Parameter| {
            matches!(&parameter.role, Role::Named(_)) && self.from == Family::TensorFlow || self.is_spare(parameter)
        };
        self.source.parameters.iter().all(|parameter| made.contains(&parameter.name) || is_spare(parameter))
    }
}

/// A name with dots, in lower case. Keras' and PyTorch's words for directions and for parts of attention are one.
fn plain(name: &str) -> String {
    let parts: Vec<String> = name
        .split(['.', '/'])
        .filter(|part| !part.is_empty())
        .map(|part| part.replace('-', "_").to_ascii_lowercase())
        .collect();
    let mut parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    if let Some(last) = parts.pop() {
        parts.extend(match last {
            _ if last.starts_with("forward_") => None,
            _ if last.starts_with("backward_") => Some("reverse"),
            "query_dense" | "key_dense" | "value_dense" => Some(last.trim_end_matches("_dense")),
            "output_dense" | "attention_output" => Some("out_proj"),
            _ => Some(last),
        });
    }
    parts.join(".")
}
