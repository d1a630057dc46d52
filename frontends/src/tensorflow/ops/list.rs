//! Lists of tensors, which loops read from and write to: `TensorArray`s, and the lists of control flow 2. They are
//! values here: what writes to one gives a new one.

use modelport_ir::{Dim, Error, Op, Result, Value, op};

use super::call::one;
use super::{Call, Family};
use crate::symbolic::{Elem, Sizes};
use crate::tensorflow::lower::{Entry, List};

pub const OPS: Family = &[
    ("TensorArrayV3", array),
    ("TensorArrayScatterV3", scatter),
    ("TensorArrayReadV3", |call| read(call, 2, 1)),
    ("TensorArrayWriteV3", |call| write(call, 3, 1, 2)),
    ("TensorArrayGatherV3", gather),
    ("TensorArraySizeV3", |call| length(call, 1)),
    ("TensorListReserve", reserve),
    ("EmptyTensorList", |_| Ok(vec![Entry::List(List::default())])),
    ("TensorListFromTensor", from_tensor),
    ("TensorListGetItem", |call| read(call, 0, 1)),
    ("TensorListSetItem", |call| write(call, 0, 1, 2)),
    ("TensorListPushBack", push),
    ("TensorListStack", stack),
    ("TensorListLength", |call| length(call, 0)),
];

/// Most items of a list.
const MAX_ITEMS: i64 = 1 << 16;

fn array(call: &mut Call) -> Result<Vec<Entry>> {
    Ok(vec![Entry::Other, Entry::List(empty(call, 0)?)])
}

fn reserve(call: &mut Call) -> Result<Vec<Entry>> {
    Ok(vec![Entry::List(empty(call, 1)?)])
}

fn empty(call: &Call, slot: usize) -> Result<List> {
    match call.ints(slot, "the length")?.as_slice() {
        [length @ 0..=MAX_ITEMS] => Ok(vec![None; *length as usize]),
        other => Err(call.fail(format!("a list of length {other:?} can't be"))),
    }
}

fn list<'c>(call: &'c Call, slot: usize) -> Result<&'c List> {
    match call.lower.entry(call.input(slot)?) {
        Some(Entry::List(list)) => Ok(list),
        _ => Err(call.fail(format!("input {slot} is no list of tensors"))),
    }
}

/// A list to change: itself where nothing else reads it, as in a loop.
fn taken(call: &mut Call, slot: usize) -> Result<List> {
    let (value, length) = (call.input(slot)?, list(call, slot)?.len());
    call.lower.take_list(value).ok_or_else(|| call.fail(format!("lists of {length} tensors are copied too often")))
}

fn index(call: &Call, slot: usize, list: &List) -> Result<usize> {
    let index = call.ints(slot, "the place in the list")?;
    let found = index.first().and_then(|index| usize::try_from(*index).ok()).filter(|index| *index < list.len());
    found.ok_or_else(|| call.fail(format!("place {index:?} of a list of {}", list.len())))
}

fn read(call: &mut Call, at: usize, place: usize) -> Result<Vec<Entry>> {
    let list = list(call, at)?;
    let index = index(call, place, list)?;
    Ok(one(written(call, list, index)?))
}

fn written(call: &Call, list: &List, index: usize) -> Result<Value> {
    let item = list.get(index).copied().flatten();
    item.ok_or_else(|| call.fail(format!("place {index} of a list of {} was never written", list.len())))
}

fn write(call: &mut Call, at: usize, place: usize, item: usize) -> Result<Vec<Entry>> {
    let mut list = taken(call, at)?;
    // A list may grow where it is written.
    let next = call.ints(place, "the place in the list")?;
    if next == [list.len() as i64] && (list.len() as i64) < MAX_ITEMS {
        list.push(None);
    }
    let index = index(call, place, &list)?;
    list[index] = Some(call.data(item)?);
    Ok(vec![Entry::List(list)])
}

fn push(call: &mut Call) -> Result<Vec<Entry>> {
    let mut list = taken(call, 0)?;
    if list.len() as i64 >= MAX_ITEMS {
        return Err(call.fail(format!("a list of more than {MAX_ITEMS} tensors")));
    }
    list.push(Some(call.data(1)?));
    Ok(vec![Entry::List(list)])
}

fn parts(call: &mut Call, slot: usize) -> Result<List> {
    let (x, shape) = call.shaped(slot)?;
    let count = shape.first().and_then(Dim::known).filter(|&count| count as i64 <= MAX_ITEMS);
    let count = count.ok_or_else(|| call.fail_sizes(format!("how many parts {shape} has is not known")))?;
    let node = call.add(op::Unpack { axis: 0, count }, &[x])?.node;
    Ok((0..count).map(|output| Some(Value { node, output })).collect())
}

fn from_tensor(call: &mut Call) -> Result<Vec<Entry>> {
    Ok(vec![Entry::List(parts(call, 0)?)])
}

fn scatter(call: &mut Call) -> Result<Vec<Entry>> {
    let mut list = taken(call, 3)?;
    let places = call.ints(1, "the places in the list")?;
    let parts = parts(call, 2)?;
    if places.len() != parts.len() || places.iter().any(|place| !(0..MAX_ITEMS).contains(place)) {
        return Err(call.fail(format!("{} places for {} tensors", places.len(), parts.len())));
    }
    for (place, part) in places.into_iter().zip(parts) {
        let place = place as usize;
        list.resize(list.len().max(place + 1), None);
        list[place] = part;
    }
    Ok(vec![Entry::List(list)])
}

fn gather(call: &mut Call) -> Result<Vec<Entry>> {
    let list = list(call, 2)?;
    let places = call.ints(1, "the places in the list")?;
    let items = places.iter().map(|place| written(call, list, usize::try_from(*place).unwrap_or(usize::MAX)));
    let items = items.collect::<Result<Vec<Value>>>()?;
    packed(call, &items)
}

fn stack(call: &mut Call) -> Result<Vec<Entry>> {
    let list = list(call, 0)?;
    let items = (0..list.len()).map(|index| written(call, list, index)).collect::<Result<Vec<Value>>>()?;
    packed(call, &items)
}

fn packed(call: &mut Call, items: &[Value]) -> Result<Vec<Entry>> {
    let Some(first) = items.first() else {
        return Err(Error::new("an empty list has no shape"));
    };
    // All parts of one tensor, in their order.
    if let Op::Unpack(op::Unpack { axis: 0, count }) = call.lower.graph.op(first.node)
        && *count == items.len()
        && items.iter().enumerate().all(|(output, item)| *item == Value { node: first.node, output })
        && let Some(whole) = call.lower.graph.input_of(first.node, 0)
    {
        return Ok(one(whole));
    }
    if let [single] = items {
        return Ok(one(call.add(op::Unsqueeze { axes: vec![0] }, &[*single])?));
    }
    Ok(one(call.add(op::Pack { axis: 0 }, items)?))
}

fn length(call: &mut Call, slot: usize) -> Result<Vec<Entry>> {
    let length = list(call, slot)?.len() as i64;
    Ok(vec![Entry::Sizes(Sizes::scalar(modelport_ir::DType::Int32, Elem::Int(length), None))])
}
