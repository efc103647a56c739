/**
 * Who asks the hub.
 * @module
 */
import { hubHome } from "../core/hub_cache.ts";
import { variable } from "./environment.ts";

/** The token of `HF_TOKEN`, else of the file that Python's login writes. */
export async function readToken(): Promise<string | undefined> {
  const given = variable("HF_TOKEN") ??
    await Deno.readTextFile(`${hubHome(variable)}/token`).catch(() => "");
  const token = given.trim();
  if (/^[\x21-\x7e]*$/.test(token)) return token || undefined;
  throw new TypeError(
    "Cannot use the token of HF_TOKEN or of the file token: expected one word of ASCII: got other characters",
  );
}
