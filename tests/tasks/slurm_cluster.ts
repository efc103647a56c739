/**
 * A Slurm cluster of one node, this machine, for one test: munged, slurmctld and slurmd in a scratch
 * folder, with ports of their own.
 * @module
 */
import { join } from "node:path";

/** Prints why there can be no cluster here, if so. Daemons are in folders that only root has on its PATH. */
const CHECK = `
[ "$(uname -s)" = Linux ] || { echo "Slurm runs on Linux"; exit; }
[ "$(id -u)" = 0 ] || { echo "its daemons want to be root"; exit; }
for name in munged slurmctld slurmd sbatch scontrol scancel; do
  command -v "$name" >/dev/null || {
    echo "$name is not installed: apt-get install slurmctld slurmd slurm-client munge"
    exit
  }
done`;

/** Why there can be no cluster here; undefined where there can. */
export function whyNoCluster(): string | undefined {
  if (Deno.build.os === "windows") return "Slurm runs on Linux";
  const { stdout } = shell(CHECK).outputSync();
  return new TextDecoder().decode(stdout).trim() || undefined;
}

/** A cluster that runs until it is disposed of. */
export class SlurmCluster implements AsyncDisposable {
  /** Variables with which Slurm's commands reach it. */
  readonly env: Readonly<Record<string, string>>;
  readonly #folder: string;
  readonly #daemons: Deno.ChildProcess[] = [];

  private constructor(folder: string) {
    this.#folder = folder;
    this.env = { SLURM_CONF: join(folder, "slurm.conf") };
  }

  /**
   * Starts the daemons, and waits until the node takes jobs.
   * @param folder For their files; nobody else may write into it.
   */
  static async start(folder: string): Promise<SlurmCluster> {
    await using owned = new AsyncDisposableStack();
    const cluster = owned.use(new SlurmCluster(folder));
    const deadline = Date.now() + 120_000;
    const key = crypto.getRandomValues(new Uint8Array(1024));
    Deno.writeFileSync(join(folder, "munge.key"), key, { mode: 0o400 });
    const { stdout: host } = await run(["uname", "-n"], {});
    Deno.writeTextFileSync(
      cluster.env["SLURM_CONF"]!,
      configuration(folder, host.trim().split(".")[0]!),
    );
    for (const name of ["state", "spool"]) Deno.mkdirSync(join(folder, name));
    cluster.#spawn("munged", [
      // Else it refuses a socket in a folder that is closed to other users, as that of tests is.
      ...["--foreground", "--force"],
      `--socket=${join(folder, "munge.socket")}`,
      `--key-file=${join(folder, "munge.key")}`,
      `--pid-file=${join(folder, "munged.pid")}`,
      `--log-file=${join(folder, "munged.log")}`,
      `--seed-file=${join(folder, "munged.seed")}`,
    ]);
    await cluster.until(deadline, "munged's socket", () => {
      return exists(join(folder, "munge.socket"));
    });
    cluster.#spawn("slurmctld", ["-D", "-i"]);
    cluster.#spawn("slurmd", ["-D"]);
    await cluster.until(deadline, "an idle node", async () => {
      return / State=IDLE[ +]/.test(await cluster.ask("show", "node"));
    });
    owned.move();
    return cluster;
  }

  /** What scontrol prints; "" where it fails. */
  async ask(...words: string[]): Promise<string> {
    const { stdout } = await this.#scontrol(words);
    return stdout;
  }

  /** Has scontrol do something. */
  async tell(...words: string[]): Promise<void> {
    const { code, stderr } = await this.#scontrol(words);
    if (code !== 0) throw new Error(`scontrol ${words.join(" ")}: ${stderr}`);
  }

  /** Waits for something; says what the daemons said where it does not come in time. */
  async until(
    deadline: number,
    what: string,
    isThere: () => boolean | Promise<boolean>,
  ): Promise<void> {
    while (!await isThere()) {
      if (Date.now() > deadline) {
        throw new Error(
          `waited in vain for ${what}\n${await this.ask("show", "job")}${
            tails(this.#folder)
          }`,
        );
      }
      await pause();
    }
  }

  /** Ends all jobs, then the daemons. */
  async [Symbol.asyncDispose](): Promise<void> {
    await run(["scancel", "--user=root"], this.env);
    // A job that outlives the daemons would look for them for minutes; Slurm kills it after 30 seconds.
    const deadline = Date.now() + 40_000;
    const areOver = async (): Promise<boolean> => {
      const jobs = await this.ask("show", "job", "--oneliner");
      return !/ JobState=(RUNNING|COMPLETING) /.test(jobs);
    };
    while (Date.now() < deadline && !await areOver()) await pause();
    for (const daemon of this.#daemons.reverse()) await end(daemon);
  }

  #spawn(name: string, args: string[]): void {
    // Into a file, so that nobody has to read it on.
    const script = `exec "$@" >'${join(this.#folder, name)}.out' 2>&1`;
    this.#daemons.push(shell(script, [name, ...args], this.env).spawn());
  }

  #scontrol(words: readonly string[]): Promise<Output> {
    return run(["scontrol", ...words], this.env);
  }
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 100));
}

/** Ends a daemon, and waits for it. */
async function end(daemon: Deno.ChildProcess): Promise<void> {
  daemon.kill("SIGTERM");
  const patience = setTimeout(() => daemon.kill("SIGKILL"), 5000);
  await daemon.status;
  clearTimeout(patience);
}

interface Output {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A script of the shell, which is all that tests may run. */
function shell(
  script: string,
  words: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Deno.Command {
  return new Deno.Command("/bin/sh", {
    args: ["-c", `PATH=$PATH:/usr/sbin:/sbin\n${script}`, "sh", ...words],
    env: { ...env },
    stdin: "null",
  });
}

async function run(
  words: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Output> {
  const { code, stdout, stderr } = await shell(`exec "$@"`, words, env)
    .output();
  const decoder = new TextDecoder();
  return {
    code,
    stdout: decoder.decode(stdout),
    stderr: decoder.decode(stderr),
  };
}

function configuration(folder: string, host: string): string {
  const [controller, node] = freePorts();
  return [
    "ClusterName=test",
    `SlurmctldHost=${host}(127.0.0.1)`,
    `SlurmctldPort=${controller}`,
    `SlurmdPort=${node}`,
    "SlurmUser=root",
    "AuthType=auth/munge",
    // A job that is requeued waits for as long as its credential lives.
    `AuthInfo=socket=${join(folder, "munge.socket")},cred_expire=15`,
    `StateSaveLocation=${join(folder, "state")}`,
    `SlurmdSpoolDir=${join(folder, "spool")}`,
    `SlurmctldPidFile=${join(folder, "slurmctld.pid")}`,
    `SlurmdPidFile=${join(folder, "slurmd.pid")}`,
    // The node is what is written here, also where the machine is smaller.
    "SlurmdParameters=config_overrides",
    "MailProg=/bin/true",
    "ProctrackType=proctrack/linuxproc",
    "TaskPlugin=task/none",
    "SelectType=select/cons_tres",
    "SelectTypeParameters=CR_CPU",
    "SchedulerParameters=batch_sched_delay=0,sched_interval=2",
    "ReturnToService=2",
    // A slow machine is no broken one: jobs that begin late would be taken for lost, and started again.
    "MessageTimeout=60",
    "BatchStartTimeout=120",
    // A short name: it is in the paths of sockets, which have at most 107 characters.
    `NodeName=n NodeHostname=${host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN`,
    "PartitionName=test Nodes=n Default=YES State=UP",
    "",
  ].join("\n");
}

/** Two ports that nobody listens to, below those that the system gives to whoever asks: by the time they are used these may be taken. */
function freePorts(): [number, number] {
  const ports: number[] = [];
  for (let port = 17_000; ports.length < 2; port++) {
    try {
      using _ = Deno.listen({ hostname: "127.0.0.1", port });
      ports.push(port);
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse) || port > 18_000) {
        throw error;
      }
    }
  }
  return ports as [number, number];
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** The last lines of the daemons. */
function tails(folder: string): string {
  return ["munged.out", "munged.log", "slurmctld.out", "slurmd.out"]
    .filter((name) => exists(join(folder, name)))
    .map((name) => {
      const lines = Deno.readTextFileSync(join(folder, name)).split("\n");
      return `${name}:\n${lines.slice(-12).join("\n")}`;
    }).join("\n");
}
