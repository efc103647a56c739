/**
 * Work on Kubernetes: an Indexed Job with a pod for each share, and a Job that puts together what
 * they made. That one is suspended until a person lets it run: nothing holds a node while it waits.
 * @module
 */
// deno-lint-ignore-file no-console
import { basename } from "node:path";
import type { SharedFlags } from "./engine_flags.ts";
import { gpuPlace } from "./gpu_places.ts";
import type { SharedWork } from "./shared_work.ts";

/** Work as Kubernetes gets it: paths are those that its pods see. */
export type KubernetesWork = Omit<SharedWork, "isDone">;

/** What is printed. */
export interface KubernetesJobs {
  /** A List of both Jobs as JSON, which `kubectl apply -f -` takes. */
  readonly manifest: string;
  /** How to use it. */
  readonly advice: readonly string[];
}

/** Seconds between SIGTERM and the end of a pod: enough for a task to stop where it can go on. */
const SECONDS_TO_STOP = 120;

/** How often a share is tried again; pods that the cluster takes away do not count. */
const RETRIES = 3;

type Flags = Pick<
  SharedFlags,
  "tasks" | "jobs" | "image" | "volume" | "secret" | "limit"
>;

/**
 * The Jobs of a work.
 * @throws {TypeError} If a flag is missing, is no such name, or the folder would be lost with its pod.
 */
export function kubernetesJobs(
  work: KubernetesWork,
  flags: Flags,
): KubernetesJobs {
  const { image, tasks = 1, jobs = tasks } = flags;
  checkImage(image);
  const volumes = flags.volume.map(parseVolume);
  checkOut(work.out, volumes);
  const limits = limitsOf(flags.limit);
  const name = jobName(work);
  const isNvidia = Object.keys(limits).some((key) => key.startsWith("nvidia."));
  const container = {
    image,
    ...(flags.secret.length > 0 && {
      envFrom: flags.secret.map((secret) => ({
        secretRef: { name: checkName("--secret", secret) },
      })),
    }),
    ...(volumes.length > 0 && {
      volumeMounts: volumes.map(({ mountPath }, i) => ({
        name: `volume-${i}`,
        mountPath,
      })),
    }),
  };
  const shares = job(
    name,
    {
      completionMode: "Indexed",
      completions: tasks,
      parallelism: Math.min(jobs, tasks),
      backoffLimitPerIndex: RETRIES,
      podFailurePolicy: {
        rules: [{
          action: "Ignore",
          onPodConditions: [{ type: "DisruptionTarget", status: "True" }],
        }],
      },
    },
    volumes,
    {
      ...container,
      name: work.name,
      command: ["./ocs", work.name, ...work.words, ...gpuPlace(work.gpu).words]
        .map(literal),
      env: [
        { name: "OCS_SHARD_COUNT", value: String(tasks) },
        // Without "graphics", containers get no Vulkan driver.
        ...(isNvidia
          ? [{ name: "NVIDIA_DRIVER_CAPABILITIES", value: "all" }]
          : []),
      ],
      resources: { limits },
    },
  );
  const merge = job(
    `${name}-merge`,
    {
      suspend: true,
      backoffLimit: RETRIES,
    },
    volumes,
    {
      ...container,
      name: "merge",
      command: ["./ocs", ...work.merge.map(literal)],
    },
  );
  const list = { apiVersion: "v1", kind: "List", items: [shares, merge] };
  return { manifest: JSON.stringify(list, null, 2), advice: adviceOn(name) };
}

/** Prints the Jobs of a work for kubectl, and on standard error how to use them. @returns The exit code. */
export function printJobs(work: KubernetesWork, flags: Flags): number {
  const { manifest, advice } = kubernetesJobs(work, flags);
  console.log(manifest);
  for (const line of advice) console.error(line);
  return 0;
}

function adviceOn(name: string): string[] {
  return [
    "kubectl apply -f FILE starts it; when all shares are done, let the Job behind them run:",
    `kubectl wait --for=condition=complete --timeout=-1s job/${name} && kubectl patch job/${name}-merge --type=merge -p '{"spec":{"suspend":false}}'`,
    `if shares fail: kubectl delete job ${name}, and apply it again: shares that are done end at once`,
  ];
}

interface Volume {
  readonly claimName: string;
  readonly mountPath: string;
}

function job(
  name: string,
  spec: Readonly<Record<string, unknown>>,
  volumes: readonly Volume[],
  container: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  return {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name, labels: { "app.kubernetes.io/name": name } },
    spec: {
      ...spec,
      template: {
        spec: {
          restartPolicy: "Never",
          terminationGracePeriodSeconds: SECONDS_TO_STOP,
          containers: [container],
          ...(volumes.length > 0 && {
            volumes: volumes.map(({ claimName }, i) => ({
              name: `volume-${i}`,
              persistentVolumeClaim: { claimName },
            })),
          }),
        },
      },
    },
  };
}

/** Kubernetes replaces $(NAME) in commands by variables; $$ stands for $. */
function literal(word: string): string {
  return word.replaceAll("$", "$$$$");
}

/** A name that pods can have as their host's, with an index behind it. */
function jobName({ name, out }: KubernetesWork): string {
  const of = basename(out).toLowerCase().replace(/[^a-z0-9]+/g, "-")
    .slice(0, 30);
  return `ocs-${name}-${of}`.replace(/-+$/, "");
}

function refuse(expected: string, got: string | undefined): TypeError {
  return new TypeError(
    `Cannot write Jobs for Kubernetes: expected ${expected}: got ${
      got === undefined ? "nothing" : JSON.stringify(got)
    }`,
  );
}

function checkImage(image: string | undefined): asserts image is string {
  if (image !== undefined && /^[\w][\w./:@-]*$/.test(image)) return;
  throw refuse("--image to name a container image with this repository", image);
}

function checkName(flag: string, name: string): string {
  if (/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/.test(name)) return name;
  throw refuse(`${flag} to be a name of Kubernetes`, name);
}

function parseVolume(typed: string): Volume {
  const [, claimName = "", mountPath = ""] =
    /^([^:]+):(\/[^:]*)$/.exec(typed) ??
      [];
  if (mountPath === "") throw refuse("--volume CLAIM:/PATH", typed);
  return { claimName: checkName("--volume", claimName), mountPath };
}

function checkOut(out: string, volumes: readonly Volume[]): void {
  const isKept = out.startsWith("s3://") ||
    volumes.some(({ mountPath }) =>
      out.startsWith(`${mountPath.replace(/\/+$/, "")}/`)
    );
  if (isKept) return;
  throw refuse(
    "--out to be s3://BUCKET/FOLDER or a path on a --volume, because pods leave nothing else behind",
    out,
  );
}

function limitsOf(typed: readonly string[]): Record<string, string> {
  const limits = typed.length === 0 ? ["nvidia.com/gpu=1"] : typed;
  return Object.fromEntries(limits.map((limit) => {
    const [, resource, amount] =
      /^([a-z0-9][a-z0-9./-]*)=(\d+(?:\.\d+)?[a-zA-Z]{0,2})$/.exec(limit) ?? [];
    if (resource === undefined || amount === undefined) {
      throw refuse("--limit RESOURCE=AMOUNT, such as nvidia.com/gpu=1", limit);
    }
    return [resource, amount];
  }));
}
