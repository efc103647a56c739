/**
 * The bootstrap script on machines made of stubs: PATH is one folder, in which
 * each command is a shell script of a line or two.
 */
import assert from "node:assert/strict";
import { join } from "node:path";

const SCRIPT = join(import.meta.dirname!, "../ocs");

/** Commands of the real machine that the script needs. */
const TOOLS = "chmod cp dirname grep mkdir mv readlink rm sed touch";

const NO_DRIVER = /^ocs: Cannot find a Vulkan driver: .*apt-get install/m;

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A copy of the script in a folder with a space, and a PATH that holds only stubs. */
class Machine {
  readonly folder = Deno.makeTempDirSync();
  readonly repo = join(this.folder, "my repo");
  readonly #bin = join(this.folder, "bin");

  constructor(stubs: Record<string, string>) {
    Deno.mkdirSync(this.repo);
    Deno.mkdirSync(this.#bin);
    Deno.copyFileSync(SCRIPT, join(this.repo, "ocs"));
    for (const tool of TOOLS.split(" ")) {
      this.stub(tool, `PATH=/usr/bin:/bin; exec ${tool} "$@"`);
    }
    this.stub("uname", "echo Linux");
    this.stub("id", "echo 1000");
    this.stub("ldconfig", "echo 'libvulkan.so.1 => /lib/libvulkan.so.1'");
    for (const [name, body] of Object.entries(stubs)) this.stub(name, body);
    Deno.writeTextFileSync(join(this.folder, "icd.json"), "{}");
  }

  stub(name: string, body: string): void {
    const path = join(this.#bin, name);
    Deno.writeTextFileSync(path, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  }

  exists(path: string): boolean {
    try {
      return Deno.lstatSync(join(this.folder, path)) !== null;
    } catch {
      return false;
    }
  }

  async ocs(args: string[], env: Record<string, string> = {}): Promise<Run> {
    const { code, stdout, stderr } = await new Deno.Command("/bin/sh", {
      args: [join(this.repo, "ocs"), ...args],
      cwd: this.folder,
      clearEnv: true,
      env: {
        PATH: this.#bin,
        HOME: this.folder,
        VK_DRIVER_FILES: join(this.folder, "icd.json"),
        ...env,
      },
    }).output();
    const decoder = new TextDecoder();
    return {
      code,
      stdout: decoder.decode(stdout),
      stderr: decoder.decode(stderr),
    };
  }
}

/** A Deno that says its version, and otherwise what it was called with. */
function deno(version: string): string {
  return `if [ "$1" = --version ]; then echo "deno ${version} (stable)"; exit; fi
for word in "$@"; do echo "[$word]"; done
echo "pwd=$PWD init=$INIT_CWD backend=$DENO_WEBGPU_BACKEND run=$XDG_RUNTIME_DIR"`;
}

/** An npm that installs Deno 2.9.6 as the real one does where install scripts are off. */
const NPM = `modules=$3/node_modules
mkdir -p "$modules/.bin" "$modules/deno"
cat=$(dirname "$0")/new_deno
echo "#!/bin/sh
cp '$cat' '$modules/deno/deno'
exec '$modules/deno/deno' \\"\\$@\\"" >"$modules/.bin/deno"
chmod +x "$modules/.bin/deno"`;

Deno.test("ocs runs the task in the repository when Deno is on PATH", async () => {
  const machine = new Machine({ deno: deno("2.9.0") });
  const run = await machine.ocs(["steer", "a b", "$HOME", "*"]);
  assert.equal(run.stderr, "");
  assert.deepEqual(run.stdout.trimEnd().split("\n"), [
    ...["[task]", "[-q]", "[steer]", "[a b]", "[$HOME]", "[*]"],
    `pwd=${machine.repo} init=${machine.folder} backend=vulkan run=${machine.repo}/.deno/run`,
  ]);
  assert.equal(run.code, 0);
  assert.equal(Deno.statSync(`${machine.repo}/.deno/run`).mode! & 0o777, 0o700);
});

Deno.test("ocs downloads on machines without a Vulkan driver", async () => {
  const machine = new Machine({ deno: deno("2.9.6"), ldconfig: "" });
  const run = await machine.ocs(["download", "a/b"], { VK_DRIVER_FILES: "" });
  assert.equal(run.stderr, "");
  assert.match(run.stdout, /^\[task\]\n\[-q\]\n\[download\]\n\[a\/b\]\n/);
});

Deno.test("ocs lists the tasks when called without one, or for help", async () => {
  const machine = new Machine({ deno: deno("2.9.6"), ldconfig: "" });
  for (const args of [[], ["--help"], ["-h"]]) {
    const run = await machine.ocs(args);
    assert.match(run.stdout, /^\[task\]\npwd=/);
    assert.equal(run.code, 0);
  }
});

Deno.test("ocs passes the task's exit code on when it fails", async () => {
  const body = `[ "$1" = --version ] && echo "deno 2.9.6" || exit 7`;
  const run = await new Machine({ deno: body }).ocs(["test"]);
  assert.equal(run.code, 7);
});

Deno.test("ocs compares versions as numbers when it looks for Deno", async () => {
  for (const version of ["2.10.0", "3.0.0", "10.1.2"]) {
    const machine = new Machine({ deno: deno(version) });
    assert.equal((await machine.ocs(["test"])).code, 0, version);
  }
  for (const version of ["2.8.9", "1.46.3", "0.99.0", "two"]) {
    const run = await new Machine({ deno: deno(version) }).ocs(["test"]);
    assert.match(run.stderr, /^ocs: Cannot find Deno: expected 2\.9 or later/);
    assert.equal(run.code, 1, version);
  }
});

Deno.test("ocs installs Deno once when npm is there and Deno is missing or old", async () => {
  const machine = new Machine({
    deno: deno("2.8.0"),
    new_deno: deno("2.9.6"),
    npm: NPM,
  });
  const first = await machine.ocs(["test"]);
  assert.match(first.stderr, /^ocs: installing Deno 2\.9\.6 into /);
  assert.match(first.stdout, /^\[task\]\n\[-q\]\n\[test\]\npwd=/);
  machine.stub("npm", "exit 1");
  const second = await machine.ocs(["test"]);
  assert.equal(second.stderr, "");
  assert.equal(second.stdout, first.stdout);
});

Deno.test("ocs installs Deno again when the installed one does not run", async () => {
  const machine = new Machine({ new_deno: deno("2.9.6"), npm: NPM });
  await machine.ocs(["test"]);
  const program = join(machine.repo, ".deno/node_modules/deno/deno");
  Deno.writeTextFileSync(program, "");
  const run = await machine.ocs(["test"]);
  assert.match(run.stderr, /installing Deno/);
  assert.match(run.stdout, /^\[task\]/);
});

Deno.test("ocs leaves nothing behind when the install breaks off", async () => {
  const machine = new Machine({ npm: 'mkdir -p "$3/node_modules"; exit 1' });
  const run = await machine.ocs(["test"]);
  assert.match(run.stderr, /ocs: Cannot install Deno 2\.9\.6 with npm: /);
  assert.equal(run.code, 1);
  assert.deepEqual([...Deno.readDirSync(`${machine.repo}/.deno`)], []);
});

Deno.test("ocs says what to install when there is no Vulkan driver and no root", async () => {
  const machine = new Machine({
    deno: deno("2.9.6"),
    ldconfig: "",
    "apt-get": `touch "$HOME/apt"`,
  });
  const run = await machine.ocs(["test"]);
  assert.match(run.stderr, NO_DRIVER);
  assert.equal(run.stderr.trimEnd().split("\n").length, 1);
  assert.equal(run.code, 1);
  assert.equal(run.stdout, "");
  assert.ok(!machine.exists("apt"));
});

Deno.test("ocs says what to install when root has no apt-get", async () => {
  const stubs = { deno: deno("2.9.6"), ldconfig: "", id: "echo 0" };
  const run = await new Machine(stubs).ocs(["test"]);
  assert.match(run.stderr, NO_DRIVER);
  assert.equal(run.code, 1);
});

Deno.test("ocs installs Mesa's driver when root has apt-get", async () => {
  const machine = new Machine({
    deno: deno("2.9.6"),
    id: "echo 0",
    "apt-get": `echo "apt-get $*" >&2; touch "$HOME/apt"`,
    ldconfig: `[ -e "$HOME/apt" ] && echo libvulkan.so.1`,
  });
  const run = await machine.ocs(["test"]);
  assert.match(run.stderr, /^ocs: found no Vulkan driver: installing /);
  assert.match(run.stderr, /install.* mesa-vulkan-drivers libvulkan1$/m);
  assert.match(run.stdout, /^\[task\]/);
  assert.equal(run.code, 0);
});

Deno.test("ocs fails when apt-get does not bring a driver", async () => {
  const stubs = { deno: deno("2.9.6"), ldconfig: "", id: "echo 0" };
  const machine = new Machine({ ...stubs, "apt-get": "exit 100" });
  const run = await machine.ocs(["test"]);
  assert.match(run.stderr, /^ocs: Cannot install a Vulkan driver/m);
  assert.equal(run.code, 1);
});

Deno.test("ocs names the variable's value when it points at no driver", async () => {
  const machine = new Machine({ deno: deno("2.9.6"), id: "echo 0" });
  const run = await machine.ocs(["test"], { VK_DRIVER_FILES: "/none.json" });
  assert.match(run.stderr, /VK_DRIVER_FILES .* got "\/none\.json"\n$/);
  assert.equal(run.code, 1);
});

Deno.test("ocs finds a driver when it lies in a folder that the loader reads", async () => {
  const machine = new Machine({ deno: deno("2.9.6") });
  const icds = join(machine.folder, "share dir/vulkan/icd.d");
  Deno.mkdirSync(icds, { recursive: true });
  Deno.writeTextFileSync(join(icds, "a.json"), "{}");
  const XDG_DATA_DIRS = `/none:${machine.folder}/share dir`;
  const run = await machine.ocs(["test"], {
    VK_DRIVER_FILES: "",
    XDG_DATA_DIRS,
  });
  assert.equal(run.stderr, "");
  assert.equal(run.code, 0);
});

Deno.test("ocs keeps the user's settings when they are set", async () => {
  const machine = new Machine({ deno: deno("2.9.6") });
  const run = await machine.ocs(["test"], {
    DENO_WEBGPU_BACKEND: "gl",
    XDG_RUNTIME_DIR: machine.folder,
  });
  assert.match(run.stdout, / backend=gl /);
  assert.ok(run.stdout.endsWith(` run=${machine.folder}\n`));
});

Deno.test("ocs asks for Metal and no driver when the machine is a Mac", async () => {
  const stubs = { deno: deno("2.9.6"), uname: "echo Darwin", ldconfig: "" };
  const run = await new Machine(stubs).ocs(["test"]);
  assert.match(run.stdout, / backend=metal /);
  assert.equal(run.code, 0);
});
