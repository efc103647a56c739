import { deepEqual, equal, match, throws } from "node:assert/strict";
import { kubernetesJobs, type KubernetesWork } from "../../tasks/kubernetes.ts";

const WORK: KubernetesWork = {
  name: "collect",
  out: "/data/Fine Web_1B",
  words: ["--text=/data/text", "--out=/data/Fine Web_1B", "--hook=$(HOME)"],
  gpu: undefined,
  merge: ["data", "merge", "/data/Fine Web_1B"],
};

const FLAGS = {
  tasks: 64,
  jobs: undefined,
  image: "registry.example:5000/ocs@sha256:0123",
  volume: ["scratch:/data"],
  secret: [],
  limit: [],
} as const;

/** The two Jobs as a reader of JSON or YAML has them. */
function itemsOf(
  work: Partial<KubernetesWork> = {},
  flags: Partial<Parameters<typeof kubernetesJobs>[1]> = {},
) {
  const { manifest } = kubernetesJobs(
    { ...WORK, ...work },
    { ...FLAGS, ...flags },
  );
  const { apiVersion, kind, items } = JSON.parse(manifest);
  deepEqual([apiVersion, kind, items.length], ["v1", "List", 2]);
  return items;
}

Deno.test("kubernetesJobs() has a pod for each share, tried again by itself, and not counted when the cluster takes it", () => {
  const [{ apiVersion, kind, metadata, spec }] = itemsOf({}, { jobs: 8 });
  deepEqual([apiVersion, kind], ["batch/v1", "Job"]);
  equal(metadata.name, "ocs-collect-fine-web-1b");
  const { template, ...job } = spec;
  deepEqual(job, {
    completionMode: "Indexed",
    completions: 64,
    parallelism: 8,
    backoffLimitPerIndex: 3,
    podFailurePolicy: {
      rules: [{
        action: "Ignore",
        onPodConditions: [{ type: "DisruptionTarget", status: "True" }],
      }],
    },
  });
  // What podFailurePolicy and backoffLimitPerIndex demand.
  equal(template.spec.restartPolicy, "Never");
  equal(template.spec.terminationGracePeriodSeconds, 120);
  equal(itemsOf()[0].spec.parallelism, 64);
});

Deno.test("kubernetesJobs() gives pods their count, a GPU with Vulkan, volumes, and the words as they are", () => {
  const [{ spec: { template } }] = itemsOf();
  const [container] = template.spec.containers;
  deepEqual(container.command, [
    "./ocs",
    "collect",
    "--text=/data/text",
    "--out=/data/Fine Web_1B",
    // $$ keeps Kubernetes from putting a variable there.
    "--hook=$$(HOME)",
  ]);
  deepEqual(container.env, [
    { name: "OCS_SHARD_COUNT", value: "64" },
    { name: "NVIDIA_DRIVER_CAPABILITIES", value: "all" },
  ]);
  deepEqual(container.resources, { limits: { "nvidia.com/gpu": "1" } });
  deepEqual(container.volumeMounts, [{ name: "volume-0", mountPath: "/data" }]);
  deepEqual(template.spec.volumes, [
    { name: "volume-0", persistentVolumeClaim: { claimName: "scratch" } },
  ]);
});

Deno.test("kubernetesJobs() writes to S3 with the credentials of a secret, and no GPU where others are wanted", () => {
  const flags = {
    volume: [],
    secret: ["s3"],
    limit: ["cpu=4", "memory=32Gi"],
  };
  const out = "s3://bucket/residuals";
  for (const { spec: { template } } of itemsOf({ out }, flags)) {
    const [container] = template.spec.containers;
    deepEqual(container.envFrom, [{ secretRef: { name: "s3" } }]);
    equal(template.spec.volumes, undefined);
  }
  const [{ spec }] = itemsOf({ out }, flags);
  const [{ resources, env }] = spec.template.spec.containers;
  deepEqual(resources, { limits: { cpu: "4", memory: "32Gi" } });
  equal(env.length, 1);
});

Deno.test("kubernetesJobs() suspends the Job that merges, and says how to let it run", () => {
  const [shares, merge] = itemsOf();
  equal(merge.metadata.name, `${shares.metadata.name}-merge`);
  equal(merge.spec.suspend, true);
  const [container] = merge.spec.template.spec.containers;
  deepEqual(container.command, [
    ...["./ocs", "data", "merge", "/data/Fine Web_1B"],
  ]);
  equal(container.resources, undefined);
  const advice = kubernetesJobs(WORK, FLAGS).advice.join("\n");
  match(
    advice,
    /wait .*job\/ocs-collect-fine-web-1b .*-merge .*"suspend":false/,
  );
});

Deno.test("kubernetesJobs() keeps names short enough for the hosts of pods", () => {
  const [, merge] = itemsOf({ out: `/data/${"Ä long name ".repeat(20)}` });
  match(merge.metadata.name, /^[a-z0-9]([a-z0-9-]{0,55}[a-z0-9])?$/);
});

for (
  const [what, work, flags, message] of [
    ["no image", {}, { image: undefined }, /--image .* got nothing/],
    ["an image with a space", {}, { image: "a b" }, /--image .* got "a b"/],
    ["a folder inside the pod", { out: "out" }, {}, /--out .* got "out"/],
    ["a folder beside the volume", { out: "/database/x" }, {}, /--out /],
    ["a volume without a path", {}, { volume: ["a"] }, /CLAIM:\/PATH.* "a"/],
    ["a claim that is no name", {}, { volume: ["A_b:/data"] }, /"A_b"/],
    ["a secret that is no name", {}, { secret: ["a b"] }, /--secret .*"a b"/],
    ["a limit without an amount", {}, { limit: ["gpu"] }, /--limit .*"gpu"/],
  ] as const
) {
  Deno.test(`kubernetesJobs() refuses ${what}`, () => {
    throws(() => itemsOf(work, flags), (error) => {
      match(String(error), /^TypeError: Cannot write Jobs for Kubernetes: /);
      match(String(error), message);
      return true;
    });
  });
}
