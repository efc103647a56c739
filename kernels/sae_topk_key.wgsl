// A word that orders activations as their values: 0 for what is not above 0, infinity's bits for what is not finite.
const NOT_FINITE = 0x7f800000u;

fn topk_key(bits: u32) -> u32 {
  if ((bits & NOT_FINITE) == NOT_FINITE) { return NOT_FINITE; }
  return select(bits, 0u, bits >= 0x80000000u);
}

// Whether an activation is at or above a threshold and above 0.
fn topk_keeps(bits: u32, threshold: u32) -> bool {
  let key = topk_key(bits);
  return key != 0u && key >= threshold;
}
