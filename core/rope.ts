import type { Gpu, Tensor } from "../gpu/mod.ts";
import { bf16ToF32, f32ToBf16 } from "./dtype.ts";
import type { Olmo2Config } from "./olmo2_config.ts";

/**
 * cos and sin of position · theta^(-2i/d_head), f32 `[context_length, d_head]`, interleaved, in the
 * float32 steps of the reference: at position 4095 a double-precision angle differs by 1e-4.
 * @param rope Precision of the frequencies.
 * @throws {RangeError} If the table exceeds the adapter's binding limit.
 */
export function ropeTable(
  gpu: Gpu,
  config: Olmo2Config,
  rope: "f32" | "bf16",
): Tensor {
  const { context_length, d_head, rope_theta } = config;
  const most = gpu.limits.maxStorageBufferBindingSize;
  if (4 * context_length * d_head > most) {
    throw new RangeError(
      `Cannot load a model with a context of ${context_length}: its rotary angles must fit into the adapter's binding limit of ${most} bytes: set max_position_embeddings to ${
        Math.floor(most / (4 * d_head))
      } or less`,
    );
  }
  const table = new Float32Array(context_length * d_head);
  for (let i = 0; i < d_head / 2; i++) {
    const exact = Math.fround(
      1 / Math.fround(rope_theta ** Math.fround(2 * i / d_head)),
    );
    const frequency = rope === "bf16"
      ? bf16ToF32(f32ToBf16(Float32Array.of(exact)))[0]!
      : exact;
    for (let position = 0; position < context_length; position++) {
      const angle = Math.fround(position * frequency);
      table[position * d_head + 2 * i] = Math.cos(angle);
      table[position * d_head + 2 * i + 1] = Math.sin(angle);
    }
  }
  return gpu.floats("rope", [context_length, d_head], table);
}
