// Lists of words: what is typed, what a link holds, what undo brings back. Pure: no page is needed.

/**
 * @typedef {object} Row one word as an edit has it
 * @property {string} text
 * @property {number | null} threshold null: the run's own
 * @property {boolean} enabled
 * @property {string | null} color #rrggbb, null: the page's choice
 */

/**
 * Words in a typed or pasted text: commas, semicolons and line ends separate them.
 * @param {string} typed
 * @returns {string[]} each once, in order
 */
export function splitTyped(typed) {
  const words = typed.split(/[,;\n\r\t]+/).map((word) => word.replace(/\s+/g, " ").trim());
  return [...new Set(words.filter(Boolean))];
}

/**
 * @param {Row[]} rows
 * @returns {string} for the part of a URL after `#w=`: words with commas between, each with `~0.4`
 *   (threshold), `~off` and `~e69f00` (colour) where it has them
 */
export function toLink(rows) {
  const quoted = (/** @type {string} */ text) => encodeURIComponent(text).replaceAll("~", "%7E");
  return rows
    .map(({ text, threshold, enabled, color }) => {
      const parts = [quoted(text)];
      if (threshold !== null) parts.push(String(threshold));
      if (!enabled) parts.push("off");
      if (color) parts.push(color.slice(1));
      return parts.join("~");
    })
    .join(",");
}

/**
 * @param {string} link as `toLink` makes it
 * @returns {Row[]} without what cannot be read
 */
export function fromLink(link) {
  /** @type {Map<string, Row>} */
  const rows = new Map();
  for (const item of link.split(",").filter(Boolean)) {
    const [quoted, ...parts] = item.split("~");
    const text = unquoted(quoted).trim();
    if (!text) continue;
    const row = { text, threshold: /** @type {number | null} */ (null), enabled: true, color: /** @type {string | null} */ (null) };
    for (const part of parts) {
      if (part === "off") row.enabled = false;
      else if (/^[0-9a-f]{6}$/i.test(part)) row.color = `#${part.toLowerCase()}`;
      else if (Number(part) >= 0 && Number(part) <= 1) row.threshold = Number(part);
    }
    rows.set(text, row);
  }
  return [...rows.values()];
}

function unquoted(/** @type {string} */ text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

/**
 * @param {Row[]} a
 * @param {Row[]} b
 */
export const sameRows = (a, b) => toLink(a) === toLink(b);

/**
 * Take one edit back, and nothing of what others changed since.
 * @param {Row[]} current
 * @param {Row[]} before the list before the edit
 * @param {Row[]} after the list after it
 * @returns {Row[]}
 */
export function revert(current, before, after) {
  const old = new Map(before.map((row) => [row.text, row]));
  const made = new Map(after.map((row) => [row.text, row]));
  const kept = current.filter((row) => old.has(row.text) || !made.has(row.text));
  const rows = kept.map((row) => revertRow(row, old.get(row.text), made.get(row.text)));
  before.forEach((row, position) => {
    if (!made.has(row.text) && !rows.some((other) => other.text === row.text)) rows.splice(position, 0, row);
  });
  return rows;
}

/**
 * @param {Row} row
 * @param {Row} [before]
 * @param {Row} [after]
 * @returns {Row}
 */
function revertRow(row, before, after) {
  if (!before || !after) return row;
  const changed = Object.keys(after).filter((key) => before[key] !== after[key]);
  return { ...row, ...Object.fromEntries(changed.map((key) => [key, before[key]])) };
}
