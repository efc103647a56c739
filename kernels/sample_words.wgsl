// What the sampling kernels share. A row of logits is cut into at most N_BLOCKS blocks of
// consecutive tokens. Floats are bound as words, because drivers may assume that
// there is no NaN, and turned into words of the same order.
const N_BLOCKS = 128u;
const POSITIVE_INFINITY = 0xff800000u; // as ordered words; NaN is above
const NEGATIVE_INFINITY = 0x007fffffu;
const SMALLEST_TEMPERATURE = 1.2e-38; // division may flush what is below; it counts as 0

struct Span { start: u32, end: u32 }

// Tokens of a block, a multiple of 8.
fn span_size(vocab: u32) -> u32 { return (vocab + 8u * N_BLOCKS - 1u) / (8u * N_BLOCKS) * 8u; }

fn blocks_of(vocab: u32) -> u32 { return (vocab + span_size(vocab) - 1u) / span_size(vocab); }

fn span_of(block: u32, vocab: u32) -> Span {
  let size = span_size(vocab);
  return Span(min(block * size, vocab), min((block + 1u) * size, vocab));
}

fn ordered(bits: u32) -> u32 {
  let value = select(bits, 0u, bits == 0x80000000u); // -0 ties with 0
  let word = select(value | 0x80000000u, ~value, value >= 0x80000000u);
  return select(word, 0xffffffffu, (bits & 0x7fffffffu) > 0x7f800000u);
}

fn unordered(word: u32) -> f32 {
  return bitcast<f32>(select(~word, word & 0x7fffffffu, word >= 0x80000000u));
}

// exp((x - top) / temperature): 1 for the largest logit, 0 for -inf and below exp(-200).
fn weight_of(word: u32, top: u32, temperature: f32) -> f32 {
  let weight = exp(max((unordered(word) - unordered(top)) / temperature, -200.0));
  return select(select(weight, 0.0, word <= NEGATIVE_INFINITY), 1.0, word == top);
}

// Rows without a distribution: they hold NaN or +inf, or nothing finite.
fn is_faulty(top: u32) -> bool { return top >= POSITIVE_INFINITY || top <= NEGATIVE_INFINITY; }

// settings: temperature, top_p, min_p (f32 bits), top_k
fn is_filtered(settings: vec4<u32>, vocab: u32) -> bool {
  return bitcast<f32>(settings.x) >= SMALLEST_TEMPERATURE &&
    (bitcast<f32>(settings.y) < 1.0 || settings.z > 0u || (settings.w > 0u && settings.w < vocab));
}
