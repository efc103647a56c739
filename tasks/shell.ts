/**
 * Programs of the machine that a task can do without: run through Deno's own shell, so that no
 * permission to run them is asked for, also where they are not installed.
 * @module
 */
import { repoPath } from "./cli.ts";

/** How a command ended. */
export interface ShellRun {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command; a program that is missing is a code other than 0. */
export async function runInShell(words: readonly string[]): Promise<ShellRun> {
  const { code, stdout, stderr } = await new Deno.Command("deno", {
    args: ["task", "-q", "--eval", commandLine(words)],
    cwd: repoPath("."),
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const decoder = new TextDecoder();
  return {
    code,
    stdout: decoder.decode(stdout),
    stderr: decoder.decode(stderr),
  };
}

/** Words as a shell takes them. */
export function commandLine(words: readonly string[]): string {
  return words.map(quoted).join(" ");
}

/** A word in quotes, where a shell, or Deno's, which knows no \', would read it as something else. */
export function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text)
    ? text
    : `'${text.replaceAll("'", `'"'"'`)}'`;
}
