//! How a reshape takes blocks of axes to blocks of axes, and what roles the axes have on the other side.
//!
//! In C order a reshape is a row of independent pieces wherever the products of the sizes on both sides meet. That is
//! what the operator does, whatever its author meant, so nothing is guessed.

use super::role::{Order, Role};
use crate::Layout;
use crate::shape::{Dim, Shape};

/// Axes of the one side that become axes of the other. Axes of size 1 belong to no group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) from: Vec<usize>,
    pub(super) to: Vec<usize>,
}

/// The axes that have not size 1.
fn long_axes(shape: &Shape) -> Vec<usize> {
    (0..shape.rank()).filter(|&axis| shape.get(axis) != Some(&Dim::Known(1))).collect()
}

/// Which side of a group must grow before both have equally many elements.
enum Grow {
    Done,
    From,
    To,
    Impossible,
}

fn compare(from: &Dim, to: &Dim) -> Grow {
    match (from, to) {
        (Dim::Unknown, _) | (_, Dim::Unknown) => Grow::Impossible,
        (a, b) if a == b => Grow::Done,
        (Dim::Known(a), Dim::Known(b)) => {
            if a < b {
                Grow::From
            } else {
                Grow::To
            }
        }
        (Dim::Symbol { factor: a, name: x }, Dim::Symbol { factor: b, name: y }) if x == y => {
            if a < b {
                Grow::From
            } else {
                Grow::To
            }
        }
        (Dim::Known(_), Dim::Symbol { .. }) => Grow::From,
        (Dim::Symbol { .. }, Dim::Known(_)) => Grow::To,
        _ => Grow::Impossible,
    }
}

/// Groups from the front, until the sizes can't be compared; returns how many axes they took of both.
fn scan(from: &[(usize, Dim)], to: &[(usize, Dim)]) -> (Vec<Group>, usize, usize) {
    let (mut groups, mut i, mut j) = (Vec::new(), 0, 0);
    while let (Some((_, a)), Some((_, b))) = (from.get(i), to.get(j)) {
        let (mut a, mut b, mut end_i, mut end_j) = (a.clone(), b.clone(), i + 1, j + 1);
        loop {
            match compare(&a, &b) {
                Grow::Done => break,
                Grow::From if end_i < from.len() => {
                    a = from.get(end_i).map_or(Dim::Unknown, |(_, dim)| a.times(dim));
                    end_i += 1;
                }
                Grow::To if end_j < to.len() => {
                    b = to.get(end_j).map_or(Dim::Unknown, |(_, dim)| b.times(dim));
                    end_j += 1;
                }
                _ => return (groups, i, j),
            }
        }
        let axes = |side: &[(usize, Dim)], start: usize, end: usize| {
            side.iter().take(end).skip(start).map(|(axis, _)| *axis).collect()
        };
        groups.push(Group { from: axes(from, i, end_i), to: axes(to, j, end_j) });
        (i, j) = (end_i, end_j);
    }
    (groups, i, j)
}

/// More axes than any framework has; a file that has more is not worth the search.
const MOST_AXES: usize = 64;

/// The smallest groups of a reshape, in order; `None` for empty tensors.
pub(super) fn groups(from: &Shape, to: &Shape) -> Option<Vec<Group>> {
    if from.rank().max(to.rank()) > MOST_AXES {
        return None;
    }
    if from.iter().chain(to.iter()).any(|dim| *dim == Dim::Known(0)) {
        return None;
    }
    let sides = |shape: &Shape| -> Vec<(usize, Dim)> {
        long_axes(shape).into_iter().filter_map(|axis| Some((axis, shape.get(axis)?.clone()))).collect()
    };
    let (mut from, mut to) = (sides(from), sides(to));
    let (mut groups, i, j) = scan(&from, &to);
    let (mut from, mut to) = (from.split_off(i), to.split_off(j));
    if from.is_empty() && to.is_empty() {
        return Some(groups);
    }
    // Sizes that are not known end the scan; the rest is scanned from the back, what remains is one group.
    from.reverse();
    to.reverse();
    let (mut back, i, j) = scan(&from, &to);
    let (from, to) = (from.split_off(i), to.split_off(j));
    let axes = |side: Vec<(usize, Dim)>| side.into_iter().rev().map(|(axis, _)| axis).collect();
    let middle = Group { from: axes(from), to: axes(to) };
    if !middle.from.is_empty() || !middle.to.is_empty() {
        groups.push(middle);
    }
    back.reverse();
    for group in &mut back {
        group.from.reverse();
        group.to.reverse();
    }
    groups.extend(back);
    Some(groups)
}

/// The roles of `to` when a reshape from (or to: it works both ways) `from`, whose axes have `roles`, can be made
/// in the target's order as it is in the source's. An axis of size 1 that only `to` has gets `None`.
pub(super) fn reshaped_roles(from: &Shape, roles: &[Role], to: &Shape, target: Layout) -> Option<Vec<Option<Role>>> {
    let groups = groups(from, to)?;
    let mut result: Vec<Option<Role>> = vec![None; to.rank()];
    for group in &groups {
        let inside: Vec<&Role> = group.from.iter().filter_map(|&axis| roles.get(axis)).collect();
        let (first, uniform) = (*inside.first()?, inside.windows(2).all(|pair| pair.first() == pair.last()));
        let size = |shape: &Shape, axis: usize| shape.get(axis).and_then(Dim::known);
        let derived: Vec<Role> = match (first, group.to.as_slice()) {
            (Role::Flat(_), [_]) if inside.len() == 1 => vec![first.clone()],
            (Role::Flat(factors), axes) if inside.len() == 1 => {
                let sizes = axes.iter().map(|&axis| size(to, axis));
                if !sizes.eq(factors.iter().map(|(size, _)| Some(*size))) {
                    return None;
                }
                factors.iter().map(|(_, role)| role.clone()).collect()
            }
            (_, axes) if uniform && !first.is_flat() => vec![first.clone(); axes.len()],
            (_, [_]) if !inside.iter().any(|role| role.is_flat() || **role == Role::Lead) => {
                let factor = |&axis: &usize| Some((size(from, axis)?, roles.get(axis)?.clone()));
                vec![Role::Flat(group.from.iter().map(factor).collect::<Option<Vec<_>>>()?.into())]
            }
            _ => return None,
        };
        for (&axis, role) in group.to.iter().zip(derived) {
            *result.get_mut(axis)? = Some(role);
        }
    }
    // In the target's order every group must still be one block, and the blocks must follow each other as there.
    let row = |order: &Order, side: fn(&Group) -> &Vec<usize>| -> Vec<usize> {
        let mut row: Vec<usize> =
            order.perm.iter().filter_map(|axis| groups.iter().position(|g| side(g).contains(axis))).collect();
        row.dedup();
        row
    };
    let filled: Vec<Role> = result.iter().map(|role| role.clone().unwrap_or(Role::Other)).collect();
    let before = row(&Order::of(roles, target), |group| &group.from);
    let after = row(&Order::of(&filled, target), |group| &group.to);
    (before == after && before.len() == groups.len()).then_some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Shape {
        Shape(text.split_whitespace().map(|dim| Dim::parse(dim).unwrap()).collect())
    }

    fn grouped(from: &str, to: &str) -> String {
        let groups = groups(&shape(from), &shape(to)).unwrap();
        groups.iter().map(|g| format!("{:?}{:?}", g.from, g.to)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn reshapes_fall_into_blocks() {
        assert_eq!(grouped("N 7 7 512", "N 25088"), "[0][0] [1, 2, 3][1]");
        assert_eq!(grouped("N 1 1 512", "N 512"), "[0][0] [3][1]");
        assert_eq!(grouped("N 8 8 6", "N 8 8 2 3"), "[0][0] [1][1] [2][2] [3][3, 4]");
        assert_eq!(grouped("N 16 8 8 6", "16*N 8 8 6"), "[0, 1][0] [2][1] [3][2] [4][3]");
        assert_eq!(grouped("N ? ? 6", "N ? 6"), "[0][0] [1, 2][1] [3][2]");
        assert_eq!(grouped("N ? 4 6", "N ? 12"), "[0][0] [1, 2, 3][1, 2]");
        assert_eq!(grouped("4 6", "3 8"), "[0, 1][0, 1]");
        assert!(groups(&shape("0 3"), &shape("0 5")).is_none());
    }

    #[test]
    fn roles_follow_the_blocks() {
        use Role::*;
        let first = |from: &str, roles: &[Role], to: &str| {
            reshaped_roles(&shape(from), roles, &shape(to), Layout::ChannelsFirst)
        };
        let nhwc = [Lead, Other, Other, Channel];
        let split = vec![Some(Lead), Some(Other), Some(Other), Some(Channel), Some(Channel)];
        assert_eq!(first("N 8 8 6", &nhwc, "N 8 8 2 3"), Some(split.clone()));
        assert_eq!(first("N 8 8 6", &nhwc, "N 64 6"), Some(vec![Some(Lead), Some(Other), Some(Channel)]));
        assert_eq!(first("N 1 1 6", &nhwc, "N 6"), Some(vec![Some(Lead), Some(Channel)]));
        assert_eq!(first("N 8 8 6", &nhwc, "N 8 48"), first("N 8 8 6", &nhwc, "N 8 48"));
        assert_eq!(first("N 8 8 6", &nhwc, "64*N 6"), None);
        assert_eq!(first("N 8 8 6", &nhwc, "N 96 4"), None);
        let flat = first("N 4 4 6", &nhwc, "N 96").unwrap();
        let flat: Vec<Role> = flat.into_iter().flatten().collect();
        assert!(flat[1].is_flat());
        assert_eq!(first("N 96", &flat, "N 4 4 6"), Some(nhwc.into_iter().map(Some).collect()));
        // Row and channel merged: [N, W, C] would have to skip over the row.
        assert_eq!(first("N 8 5 6", &[Lead, Channel, Other, Channel], "N 40 6"), None);
    }
}
