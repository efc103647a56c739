/**
 * What `eval` prints: an SAE's measures for people.
 * @module
 */
import type { HookPoint } from "../core/hook_point.ts";
import type { ConceptScore } from "../steer/concept_f1.ts";
import type { SaeEvaluation } from "../train/evaluate.ts";
import type { LossRecovered } from "../train/loss_recovered.ts";
import { formatCount, formatTable } from "./format.ts";

/** What the table and the JSON say. */
export interface EvalReport {
  readonly sae: string;
  readonly hookPoint: HookPoint;
  readonly d_sae: number;
  readonly vectors: Omit<SaeEvaluation, "density" | "featureMax">;
  /** null where it was not asked for, or an SAE of `final_norm@l` cannot take the stream's place. */
  readonly loss: LossRecovered | null;
  /** The feature that tells each concept best from the rest; null where it was not asked for. */
  readonly concepts: readonly ConceptScore[] | null;
}

/** The report as tables, with what each measure means. */
export function describeEvaluation(
  { sae, hookPoint, d_sae, vectors, loss, concepts }: EvalReport,
): string {
  const { nTokens, fvu, L0, deadShare, mse } = vectors;
  const on = `${formatCount(nTokens)} vectors`;
  const rows = [
    ["FVU", fvu.toFixed(4), `variance unexplained, against the mean of ${on}`],
    ["mse", mse.toPrecision(4), "squared error of a vector, in raw units"],
    ["L0", L0.toFixed(2), `features that fire on a token, mean of ${on}`],
    [
      "dead",
      `${(100 * deadShare).toFixed(2)} %`,
      `of ${formatCount(d_sae)} features fire on none of ${on}`,
    ],
  ];
  if (loss) rows.push(...lossRows(loss));
  const table = formatTable(["measure", "value", "meaning"], rows);
  const parts = [`${sae} at ${hookPoint}`, table];
  if (concepts) parts.push(conceptTable(concepts));
  return parts.join("\n\n");
}

/** The cross-entropies, and what of them is recovered. */
function lossRows(loss: LossRecovered): string[][] {
  const nats = (value: number): string => value.toFixed(4);
  const predicted = `nats a token, ${formatCount(loss.nTokens)} tokens`;
  return [
    ["cross-entropy", nats(loss.ceModel), `of the model: ${predicted}`],
    ["with the SAE", nats(loss.ceSae), "its reconstruction in the stream"],
    ["with zeros", nats(loss.ceZero), "in place of the stream"],
    ["with the mean", nats(loss.ceMean), "in place of the stream"],
    [
      "recovered",
      loss.recoveredFromZero.toFixed(4),
      "of what zeros lose; 1 is all",
    ],
    [
      "recovered",
      loss.recoveredFromMean.toFixed(4),
      "of what the mean loses; 1 is all",
    ],
  ];
}

/** The best feature of each concept, and the mean of their F1. */
function conceptTable(concepts: readonly ConceptScore[]): string {
  const sum = concepts.reduce((sum, { f1 }) => sum + f1, 0);
  const scores = concepts.map(({ concept, feature, f1 }) => [
    concept,
    String(feature),
    f1.toFixed(3),
  ]);
  return formatTable(["concept", "feature", "F1"], [
    ...scores,
    ["mean", "", (sum / concepts.length).toFixed(4)],
  ]);
}
