/**
 * CSV as RFC 4180 has it, strictly: a file that another program read in another way is refused.
 * @module
 */
import type { Source } from "./source.ts";
import { chunksOf } from "./text_lines.ts";

/** One row of a file. */
export interface CsvRow {
  /** Its fields, as many as the heading has. */
  readonly fields: readonly string[];
  /** Its number, from 1 for the heading. */
  readonly number: number;
}

/** A quote that is never closed must not take the whole file into memory. */
const MAX_FIELD_CHARACTERS = 16 * 2 ** 20;
const MAX_COLUMNS = 1024;

/**
 * The rows of a CSV file in UTF-8, the heading first; a byte order mark is dropped.
 * @throws {SyntaxError} If it is not UTF-8, a quote stands where none may, or a row has more or fewer fields than the
 * heading: names the file and the row.
 * @throws {RangeError} If a field has more than 16 Mi characters, or the heading more than 1,024 fields.
 */
export async function* readCsv(source: Source): AsyncGenerator<CsvRow> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const parser = new CsvParser(source.name);
  for await (const bytes of chunksOf(source)) {
    yield* parser.push(decode(source, decoder, bytes));
  }
  yield* parser.push(decode(source, decoder));
  yield* parser.end();
}

function decode(
  { name }: Source,
  decoder: TextDecoder,
  bytes?: Uint8Array<ArrayBuffer>,
): string {
  try {
    return decoder.decode(bytes, { stream: bytes !== undefined });
  } catch (cause) {
    throw new SyntaxError(
      `Cannot read "${name}": expected UTF-8: got other bytes: convert the file to UTF-8`,
      { cause },
    );
  }
}

/** A row as it is written, without a line break; fields are quoted where they must be. */
export function csvLine(fields: readonly (string | number)[]): string {
  return fields.map((field) => {
    const text = String(field);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }).join(",");
}

/** Takes text in pieces that may end anywhere. */
class CsvParser {
  readonly #name: string;
  /** Where the next character stands: in a field without quotes, in one with quotes, or after a quote in that. */
  #place: "start" | "bare" | "quoted" | "quote" = "start";
  #field = "";
  #fields: string[] = [];
  #nColumns: number | undefined;
  #number = 1;
  /** Whether the last character was a carriage return, which must end a line. */
  #isReturned = false;

  constructor(name: string) {
    this.#name = name;
  }

  *push(text: string): Generator<CsvRow> {
    let at = 0;
    while (at < text.length) {
      if (this.#place === "quoted") {
        const end = text.indexOf('"', at);
        this.#append(text.slice(at, end < 0 ? text.length : end));
        if (end < 0) return;
        this.#place = "quote";
        at = end + 1;
        continue;
      }
      const character = text[at++]!;
      if (this.#isReturned && character !== "\n") {
        throw this.#refuse("a line break after a carriage return");
      }
      if (character === "\n") {
        this.#isReturned = false;
        this.#endField();
        yield this.#endRow();
      } else if (character === "\r") this.#isReturned = true;
      else if (character === ",") this.#endField();
      else if (character === '"') this.#quote();
      else if (this.#place === "quote") {
        throw this.#refuse("a comma or a line break after a closing quote");
      } else {
        this.#place = "bare";
        let end = at;
        while (end < text.length && !/[",\r\n]/.test(text[end]!)) end++;
        this.#append(text.slice(at - 1, end));
        at = end;
      }
    }
  }

  *end(): Generator<CsvRow> {
    if (this.#place === "quoted") throw this.#refuse("a closing quote");
    if (this.#isReturned) {
      throw this.#refuse("a line break after a carriage return");
    }
    // The last line may end with the file.
    if (this.#place === "start" && this.#fields.length === 0) return;
    this.#endField();
    yield this.#endRow();
  }

  #quote(): void {
    if (this.#place === "start") this.#place = "quoted";
    else if (this.#place === "quote") {
      this.#append('"');
      this.#place = "quoted";
    } else throw this.#refuse("no quote inside a field without quotes");
  }

  #append(text: string): void {
    this.#field += text;
    if (this.#field.length <= MAX_FIELD_CHARACTERS) return;
    throw new RangeError(
      `Cannot read "${this.#name}" row ${this.#number}: expected fields of at most ${MAX_FIELD_CHARACTERS} characters: got a longer one: a quote may be missing`,
    );
  }

  #endField(): void {
    this.#fields.push(this.#field);
    this.#field = "";
    this.#place = "start";
    if (this.#fields.length <= (this.#nColumns ?? MAX_COLUMNS)) return;
    throw this.#wrongWidth();
  }

  #endRow(): CsvRow {
    const row = { fields: this.#fields, number: this.#number };
    this.#nColumns ??= row.fields.length;
    if (row.fields.length !== this.#nColumns) throw this.#wrongWidth();
    this.#fields = [];
    this.#number++;
    return row;
  }

  #wrongWidth(): Error {
    const n = this.#fields.length;
    return this.#nColumns === undefined
      ? new RangeError(
        `Cannot read "${this.#name}": expected at most ${MAX_COLUMNS} columns: got more`,
      )
      : this.#refuse(
        `${this.#nColumns} fields, as the heading has: got ${
          n > this.#nColumns ? "more" : n
        }`,
      );
  }

  #refuse(expected: string): SyntaxError {
    return new SyntaxError(
      `Cannot read "${this.#name}" row ${this.#number}: expected ${expected}: correct the file, or fetch it again`,
    );
  }
}
