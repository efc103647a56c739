/**
 * Pages that open without a network: one file with its style, and no script.
 * @module
 */

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2b33; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; } figcaption { font-size: .85rem; font-weight: 600; }
.wide { overflow-x: auto; } .legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; list-style: none; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border-radius: .15em; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #d9e1e5; vertical-align: top; }
td.number, th.number { text-align: right; } .quiet { color: #5b6b75; }
@media (prefers-color-scheme: dark) { body { background: #12191d; color: #dde6ea; } th, td { border-color: #33424a; } .quiet { color: #93a4ad; } }
`;

/**
 * A whole page.
 * @param title As text.
 * @param body As markup.
 */
export function page(title: string, body: string): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escape(title)}</title><style>${STYLE}</style></head><body>
${body}
</body></html>
`;
}

/** Rows under a heading; columns whose cells all start with a digit are set to the right. */
export function table(
  heading: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const isNumber = heading.map((_, column) =>
    rows.every((row) => /^[\d.,-]+[x%]?$/.test(row[column] ?? ""))
  );
  const cells = (row: readonly string[], tag: "td" | "th"): string =>
    row.map((cell, column) =>
      `<${tag}${isNumber[column] ? ` class="number"` : ""}>${
        escape(cell)
      }</${tag}>`
    ).join("");
  return `<table><thead><tr>${cells(heading, "th")}</tr></thead><tbody>${
    rows.map((row) => `<tr>${cells(row, "td")}</tr>`).join("\n")
  }</tbody></table>`;
}

/** Text as a page shows it. */
export function escape(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replace(/[&<>"']/g, (character) => entities[character]!);
}
