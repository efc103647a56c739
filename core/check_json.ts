/**
 * JSON from files, checked against a schema.
 * @module
 */
import type { z } from "zod";

/**
 * The value as the schema describes it.
 * @param place Where in the file it stands, such as " line 3"; default "".
 * @throws {SyntaxError} If it does not fit: names the file and the first field that is wrong, in one line.
 */
export function checkJson<T>(
  schema: z.ZodType<T>,
  json: unknown,
  file: string,
  place = "",
): T {
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0]!;
  const field = path.length > 0 ? `field "${path.join(".")}": ` : "";
  throw new SyntaxError(
    `Cannot read "${file}"${place}: ${field}${
      message.replace("Invalid input: ", "").replace(/\s+/g, " ")
    }: correct the file, or fetch it again`,
  );
}
