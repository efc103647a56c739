import { deepEqual, equal, throws } from "node:assert/strict";
import { controlVectorGguf } from "../../core/gguf.ts";

/** A tensor of a GGUF file. */
interface GgufTensor {
  readonly dims: readonly number[];
  readonly type: number;
  readonly values: Float32Array;
}

/** Reads a GGUF file of F32 tensors, by its specification. */
function readGguf(
  bytes: Uint8Array<ArrayBuffer>,
): {
  metadata: Record<string, string | number>;
  tensors: Record<string, GgufTensor>;
} {
  const view = new DataView(bytes.buffer);
  let at = 0;
  const u32 = (): number => view.getUint32((at += 4) - 4, true);
  const u64 = (): number => Number(view.getBigUint64((at += 8) - 8, true));
  const text = (): string => {
    const length = u64();
    return new TextDecoder().decode(bytes.subarray(at, at += length));
  };
  equal(new TextDecoder().decode(bytes.subarray(0, 4)), "GGUF");
  at = 4;
  equal(u32(), 3);
  const [nTensors, nMetadata] = [u64(), u64()];
  const metadata: Record<string, string | number> = {};
  for (let i = 0; i < nMetadata; i++) {
    const key = text();
    const type = u32();
    equal([4, 8].includes(type), true, `type ${type} of ${key}`);
    metadata[key] = type === 8 ? text() : u32();
  }
  const infos = Array.from({ length: nTensors }, () => ({
    name: text(),
    dims: Array.from({ length: u32() }, u64),
    type: u32(),
    offset: u64(),
  }));
  const start = Math.ceil(at / 32) * 32;
  deepEqual(bytes.subarray(at, start), new Uint8Array(start - at));
  const tensors: Record<string, GgufTensor> = {};
  let end = start;
  for (const { name, dims, type, offset } of infos) {
    const n = dims.reduce((product, size) => product * size, 1);
    equal(offset % 32, 0);
    const values = new Float32Array(
      bytes.slice(start + offset, start + offset + 4 * n).buffer,
    );
    tensors[name] = { dims, type, values };
    // Readers take tensors in whole units of 32 bytes.
    end = start + offset + Math.ceil(4 * n / 32) * 32;
  }
  equal(end, bytes.length);
  return { metadata, tensors };
}

Deno.test("controlVectorGguf() writes one direction that the specification's reader finds", () => {
  for (const d_model of [1, 7, 8, 192]) {
    const direction = Float32Array.from(
      { length: d_model },
      (_, j) => Math.sin(j) / 3,
    );
    const { metadata, tensors } = readGguf(controlVectorGguf({
      layer: 15,
      // A view into a longer array.
      direction: Float32Array.of(9, ...direction, 9).subarray(1, d_model + 1),
      modelHint: "olmo2",
      description: "naïve",
    }));
    deepEqual(metadata, {
      "general.architecture": "controlvector",
      "general.description": "naïve",
      "controlvector.model_hint": "olmo2",
      "controlvector.layer_count": 1,
    });
    deepEqual(tensors, {
      "direction.15": { dims: [d_model], type: 0, values: direction },
    });
  }
});

Deno.test("controlVectorGguf() refuses block 0, which llama.cpp cannot steer, and what is not finite", () => {
  const rest = { modelHint: "olmo2", description: "" };
  const direction = Float32Array.of(1, 2);
  for (const layer of [0, -1, 1.5]) {
    throws(
      () => controlVectorGguf({ ...rest, layer, direction }),
      /^RangeError: Cannot write a control vector for layer .*: expected one from 1/,
    );
  }
  throws(
    () =>
      controlVectorGguf({
        ...rest,
        layer: 1,
        direction: Float32Array.of(1, NaN),
      }),
    /^RangeError: .* finite values: got NaN at 1$/,
  );
});
