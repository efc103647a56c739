/**
 * `train`, whose GPU is lost once there is a checkpoint. Run it as the task, with the task's flags.
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { runTask, userPath } from "../../tasks/cli.ts";
import { TRAIN, trainTask } from "../../tasks/train.ts";

await runTask(
  TRAIN,
  (flags, context) =>
    trainTask(flags, {
      ...context,
      async openGpu(wanted) {
        const gpu = await context.openGpu(wanted);
        const checkpoint = join(userPath(flags.out), "checkpoint.safetensors");
        const timer = setInterval(() => {
          if (!existsSync(checkpoint)) return;
          clearInterval(timer);
          gpu.device.destroy();
        }, 1);
        return gpu;
      },
    }),
);
