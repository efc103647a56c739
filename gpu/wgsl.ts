/** What a shader declares to the host: storage bindings in order, uniform fields, override names. */
export interface WgslInterface {
  /** Storage bindings, by their `@binding` number. */
  readonly bindings: readonly { name: string; access: "read" | "read_write" }[];
  /** Fields of `struct Uniforms`, in order; empty where the shader has none. */
  readonly uniforms: readonly { name: string; type: string }[];
  /** Names of `override` constants. */
  readonly overrides: readonly string[];
}

/** Reads a shader's declarations. Comments are ignored; functions are not looked into. */
export function parseWgsl(source: string): WgslInterface {
  const code = source.replace(/\/\/[^\n]*/g, "").replace(
    /\/\*[\s\S]*?\*\//g,
    "",
  );
  const found = code.matchAll(
    /@group\(0\)\s*@binding\((\d+)\)\s*var<storage\s*,\s*(read|read_write)>\s*(\w+)/g,
  );
  const bindings = [...found]
    .map((match) => ({
      at: Number(match[1]),
      access: match[2] as "read" | "read_write",
      name: match[3]!,
    }))
    .sort((x, y) => x.at - y.at)
    .map(({ name, access }) => ({ name, access }));
  const body = /struct\s+Uniforms\s*\{([^}]*)\}/.exec(code)?.[1] ?? "";
  const uniforms = [...body.matchAll(/(\w+)\s*:\s*(\w+)/g)]
    .map((match) => ({ name: match[1]!, type: match[2]! }));
  const overrides = [...code.matchAll(/\boverride\s+(\w+)/g)]
    .map((match) => match[1]!);
  return { bindings, uniforms, overrides };
}
