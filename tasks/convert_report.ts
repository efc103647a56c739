/**
 * What `convert` prints: what an SAE is, and whether it fits vectors.
 * @module
 */
import { basename } from "node:path";
import type { SaeFile } from "../core/sae_file.ts";
import type { SaeEvaluation } from "../train/evaluate.ts";
import { formatBytes, formatCount, formatTable } from "./format.ts";

/** An SAE as a table: what its files tell, and what they do not. */
export async function describeSae(sae: SaeFile): Promise<string> {
  const { architecture, k, hookPoint, modelName, inputScale } = sae.metadata;
  const { nTokensTrained, convertedFrom } = sae.metadata;
  const measured = [
    ["largest activations", await sae.featureMax()],
    ["densities", await sae.logDensity()],
  ].filter(([, values]) => values !== undefined).map(([name]) => name);
  const rows = [
    ["layout", sae.layout],
    [
      "weights",
      `${basename(sae.weightsFile.name)}, ${
        formatBytes(sae.weightsFile.byteLength)
      }`,
    ],
    ["d_model", formatCount(sae.d_model)],
    ["d_sae", formatCount(sae.d_sae)],
    [
      "architecture",
      k === undefined ? architecture : `${architecture}, k ${k}`,
    ],
    [
      "hook point",
      hookPoint ?? sae.elsewhere ?? "not told: name it with --hook",
    ],
    ["model", modelName ?? "not told"],
    ["input scale", `${inputScale}, folded into the weights`],
    [
      "trained on",
      nTokensTrained === undefined
        ? "not told"
        : `${formatCount(nTokensTrained)} vectors`,
    ],
    ["measured", measured.length > 0 ? measured.join(", ") : "nothing"],
    ...(convertedFrom
      ? [[
        "converted from",
        `${convertedFrom.layout}, weights of SHA-256 ${convertedFrom.sha256}`,
      ]]
      : []),
  ];
  // What a stranger wrote must not move the terminal's cursor.
  const shown = rows.map((row) =>
    row.map((text) => text.replace(/\p{Cc}/gu, " "))
  );
  return `${sae.name}\n\n${formatTable(["what", "value"], shown)}`;
}

/** Measures of an SAE on vectors, and what they say of whether it was made for them. */
export interface Fit {
  /** Whether nothing speaks against it. */
  readonly fits: boolean;
  /** One sentence. */
  readonly verdict: string;
}

/** An SAE that reconstructs no better than the mean of the vectors does not know them. */
const MISFIT_FVU = 1;
/** Those of the papers leave less unexplained. */
const POOR_FVU = 0.5;
/** Fewer features than this on a vector say nothing of it. */
const FEWEST = 1;
/** An SAE that is trained is sparse. */
const LARGEST_SHARE = 0.5;

/** Judges an SAE by what was measured on vectors. */
export function judgeFit(
  { fvu, L0 }: Pick<SaeEvaluation, "fvu" | "L0">,
  d_sae: number,
): Fit {
  const misfit = !(fvu < MISFIT_FVU)
    ? `it reconstructs these vectors no better than their mean does (FVU ${
      fvu.toPrecision(3)
    })`
    : L0 < FEWEST
    ? `hardly a feature fires on them (L0 ${L0.toPrecision(3)})`
    : L0 > LARGEST_SHARE * d_sae
    ? `more than half of its features fire on each of them (L0 ${
      formatCount(L0)
    } of ${formatCount(d_sae)})`
    : undefined;
  if (misfit !== undefined) {
    return {
      fits: false,
      verdict:
        `This SAE does not fit these residuals: ${misfit}. Are they of another hook point, model or scale?`,
    };
  }
  return {
    fits: true,
    verdict: fvu > POOR_FVU
      ? "It leaves more than half of the variance unexplained: a poor SAE, or vectors of another hook point."
      : "Nothing speaks against it. Neighboring hook points look alike, with an FVU a few times larger: compare them where in doubt.",
  };
}

/** The measures as a table, with the verdict. */
export function describeFit(
  { nTokens, fvu, L0, deadShare }: SaeEvaluation,
  d_sae: number,
  { verdict }: Fit,
): string {
  const on = `${formatCount(nTokens)} vectors`;
  const table = formatTable(["measure", "value", "meaning"], [
    ["FVU", fvu.toFixed(4), `variance unexplained, against the mean of ${on}`],
    ["L0", L0.toFixed(2), `features that fire on a token, mean of ${on}`],
    [
      "dead",
      `${(100 * deadShare).toFixed(2)} %`,
      `of ${formatCount(d_sae)} features fire on none of ${on}`,
    ],
  ]);
  return `${table}\n\n${verdict}`;
}
