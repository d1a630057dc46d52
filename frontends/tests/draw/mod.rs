//! The inputs of the networks, drawn from their seeds as `tests/fixtures/inputs.py` does with NumPy's `RandomState`.

use modelport_ir::DType;
use modelport_ir::eval::Array;
use ndarray::{ArrayD, Dimension, IxDyn};
use serde_json::Value;

const BATCH: usize = 3;

/// The Mersenne twister MT19937 (Matsumoto and Nishimura 1998), as NumPy draws from it.
struct RandomState {
    state: [u32; 624],
    index: usize,
}

impl RandomState {
    fn new(seed: u32) -> RandomState {
        let mut state = [seed; 624];
        for i in 1..624 {
            let last = state[i - 1];
            state[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        RandomState { state, index: 624 }
    }

    fn next(&mut self) -> u32 {
        if self.index == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ if y & 1 == 1 { 0x9908_b0df } else { 0 };
            }
            self.index = 0;
        }
        let mut y = self.state[self.index];
        self.index += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn uniform(&mut self, low: f64, high: f64, shape: &[usize]) -> ArrayD<f64> {
        ArrayD::from_shape_simple_fn(IxDyn(shape), || {
            let (a, b) = (self.next() >> 5, self.next() >> 6);
            low + (high - low) * ((f64::from(a) * 67_108_864.0 + f64::from(b)) / 9_007_199_254_740_992.0)
        })
    }

    /// Both limits included; they are less than 2^32 apart.
    fn whole(&mut self, low: i64, high: i64, shape: &[usize]) -> ArrayD<i64> {
        let range = (high - low) as u32;
        let mask = u32::MAX.checked_shr(range.leading_zeros()).unwrap_or(0);
        ArrayD::from_shape_simple_fn(IxDyn(shape), || {
            loop {
                let value = self.next() & mask;
                if value <= range {
                    return low + i64::from(value);
                }
            }
        })
    }
}

/// One array per input, at batch 3.
pub fn inputs(case: &Value) -> Vec<Array> {
    let mut random = RandomState::new(case["seed"].as_u64().unwrap() as u32);
    case["inputs"].as_array().unwrap().iter().map(|spec| draw(&mut random, spec)).collect()
}

fn draw(random: &mut RandomState, spec: &Value) -> Array {
    let sizes = spec["shape"].as_array().unwrap().iter().skip(1).map(|size| size.as_u64().unwrap() as usize);
    let shape: Vec<usize> = std::iter::once(BATCH).chain(sizes).collect();
    let dtype = DType::ALL.into_iter().find(|dtype| dtype.name() == spec["dtype"]).unwrap();
    if let Some(values) = spec["values"].as_array() {
        let values = values.iter().map(|value| value.as_i64().unwrap()).collect();
        return Array::Int(ArrayD::from_shape_vec(shape, values).unwrap(), dtype);
    }
    if dtype.is_int() {
        return Array::Int(random.whole(spec["low"].as_i64().unwrap(), spec["high"].as_i64().unwrap(), &shape), dtype);
    }
    let (low, high) = (spec["low"].as_f64().unwrap(), spec["high"].as_f64().unwrap());
    let mut values = random.uniform(low, high, &shape);
    if let Some(patch) = spec["patch"].as_u64().map(|patch| patch as usize) {
        let coarse: Vec<usize> =
            shape.iter().enumerate().map(|(i, n)| if i == 1 || i == 2 { n.div_ceil(patch) } else { *n }).collect();
        let coarse = random.uniform(low, high, &coarse);
        for (place, value) in values.indexed_iter_mut() {
            let mut place: Vec<usize> = place.slice().to_vec();
            place[1] /= patch;
            place[2] /= patch;
            *value = (*value + coarse[place.as_slice()]) / 2.0;
        }
    }
    Array::Float(values.mapv(|x| f64::from(x as f32)), dtype)
}
