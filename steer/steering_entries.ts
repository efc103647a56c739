/**
 * What the kernel does for each feature of a set: planned and checked before any row is read.
 * @module
 */
import {
  ENTRY_WORDS,
  MAX_STEERED_FEATURES,
  NO_SLOT,
  NO_THRESHOLD,
  STEER_MODES,
} from "../kernels/steer.ts";
import type { Intervention } from "./interventions.ts";
import {
  type OpenSource,
  type PlacedFeature,
  placeInterventions,
  placeOf,
  strengthsOf,
} from "./steering_source.ts";

/** A feature whose activation is captured, and the block after which; that of its SAE when absent. */
export type WatchedFeature = PlacedFeature;

/** An entry that is checked, before its rows are read. */
export interface PlannedEntry {
  readonly source: OpenSource;
  readonly layer: number;
  readonly feature: number;
  /** undefined: it is only watched. */
  readonly intervention: Intervention | undefined;
  readonly slot: number | undefined;
}

/** The entries of a set: its interventions, then what is only watched. */
export function planEntries(
  sources: readonly OpenSource[],
  interventions: readonly Intervention[],
  watched: readonly WatchedFeature[],
): PlannedEntry[] {
  const slots = new Map<string, number>();
  for (const [slot, one] of watched.entries()) {
    const { layer } = placeOf(sources, one);
    const key = `${one.feature}@${layer}`;
    if (slots.has(key)) {
      throw new RangeError(
        `Cannot watch feature ${one.feature} twice at once after block ${layer}: name it once`,
      );
    }
    slots.set(key, slot);
  }
  const acting = placeInterventions(sources, interventions).map((
    { intervention, source, layer },
  ): PlannedEntry => {
    const { feature } = intervention;
    const key = `${feature}@${layer}`;
    const slot = slots.get(key);
    slots.delete(key);
    return { source, layer, feature, intervention, slot };
  });
  const watching = [...slots.values()].map((slot): PlannedEntry => {
    const { feature } = watched[slot]!;
    const place = placeOf(sources, watched[slot]!);
    return { ...place, feature, intervention: undefined, slot };
  });
  const planned = [...acting, ...watching];
  for (const [layer, some] of Map.groupBy(planned, (e) => e.layer)) {
    if (some.length <= MAX_STEERED_FEATURES) continue;
    throw new RangeError(
      `Cannot steer or watch ${some.length} features at once after block ${layer}: expected at most ${MAX_STEERED_FEATURES}`,
    );
  }
  return planned;
}

/** The kernel's words of an entry; that of its row is 0. */
export async function entryWords(
  { source, feature, intervention, slot = NO_SLOT }: PlannedEntry,
): Promise<Uint32Array<ArrayBuffer>> {
  const { mode = "watch", after = 0, decay = 0 } = intervention ?? {};
  const [strength = 0] = await strengthsOf(
    source.sae,
    intervention ? [intervention] : [],
    () => source.featureMax(),
  );
  // Adding is the same whatever the activation is.
  const threshold = mode === "add" && slot === NO_SLOT
    ? NO_THRESHOLD
    : await source.threshold(feature);
  const words = new DataView(new ArrayBuffer(4 * ENTRY_WORDS));
  words.setFloat32(0, (await source.b_enc())[feature]!, true);
  words.setUint32(4, STEER_MODES[mode === "ablate" ? "clamp" : mode], true);
  words.setFloat32(8, strength, true);
  words.setFloat32(12, threshold, true);
  words.setUint32(16, after, true);
  words.setUint32(20, decay, true);
  words.setUint32(24, slot, true);
  return new Uint32Array(words.buffer);
}
