/**
 * Variables of the environment.
 * @module
 */

/** Reads a variable; undefined where it is empty or not set, or may not be read. */
export function variable(name: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  return state === "granted" ? Deno.env.get(name) || undefined : undefined;
}
