/**
 * The Hugging Face hub as the person at this machine may use it.
 * @module
 */
import { hubHome } from "../core/hub_cache.ts";
import { HubClient } from "../core/hub_client.ts";
import { variable } from "./environment.ts";

/**
 * The hub of `HF_ENDPOINT`, with the token of `HF_TOKEN`, else of the file that Python's login writes.
 * @param stallMs Milliseconds without a byte after which a request has failed.
 * @throws {TypeError} If the endpoint is no address, or the token is not one word of ASCII.
 */
export async function openHub(stallMs: number): Promise<HubClient> {
  return new HubClient({
    endpoint: variable("HF_ENDPOINT") ?? "https://huggingface.co",
    token: await readToken(),
    stallMs,
  });
}

/** The token of `HF_TOKEN`, else of the file that Python's login writes; undefined where there is none. */
export async function readToken(): Promise<string | undefined> {
  const given = variable("HF_TOKEN") ??
    await Deno.readTextFile(`${hubHome(variable)}/token`).catch(() => "");
  const token = given.trim();
  if (/^[\x21-\x7e]*$/.test(token)) return token || undefined;
  throw new TypeError(
    "Cannot use the token of HF_TOKEN or of the file token: expected one word of ASCII: got other characters",
  );
}
