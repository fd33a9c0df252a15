// What is seen, in words: a table, and a region that screen readers speak.

import { byId, element, scoreText, setText } from "./dom.js";

const SPEAK_EVERY_MS = 5000;
const MOST_ROWS = 100;

/** Rows of the table stay where their thing stays, so that a button keeps the keyboard's focus. */
export class Describer {
  /** @param {import("./settings.js").Settings} settings */
  constructor(settings) {
    this.settings = settings;
    this.spokenAtMs = 0;
    this.panel = byId("seen-panel");
    this.body = byId("seen");
    /** @type {Map<string, any>} */
    this.rows = new Map();
  }

  /** @param {import("./tile.js").Tile[]} tiles */
  update(tiles) {
    if (this.panel.open) this.#table(tiles);
    const now = performance.now();
    if (!this.settings.get("speak") || now - this.spokenAtMs < SPEAK_EVERY_MS) return;
    this.spokenAtMs = now;
    const seen = tiles.map((tile) => `${tile.stream.cam.name}: ${tile.summary() || "nothing"}`);
    setText(byId("spoken"), seen.join(". "));
  }

  #table(tiles) {
    const present = new Set();
    for (const tile of tiles)
      tile.things.slice(0, MOST_ROWS).forEach((/** @type {any} */ thing, /** @type {number} */ position) => {
        const key = `${tile.stream.cam.id} ${thing.track > 0 ? thing.track : `at ${position}`}`;
        present.add(key);
        this.#row(key, tile, thing);
      });
    for (const [key, { row }] of this.rows)
      if (!present.has(key)) {
        row.remove();
        this.rows.delete(key);
      }
    byId("nothing-seen").hidden = present.size > 0;
  }

  #row(key, tile, thing) {
    let known = this.rows.get(key);
    if (!known) {
      const cells = Array.from({ length: 4 }, () => element("td"));
      const pin = element("button", { type: "button", click: () => tile.pin(tile.pinned === known.track ? 0 : known.track) }, "Pin");
      known = { row: element("tr", {}, ...cells, element("td", {}, pin)), cells, pin };
      this.rows.set(key, known);
      this.body.append(known.row);
    }
    known.track = thing.track;
    const texts = [tile.stream.cam.name, thing.text, thing.track > 0 ? `#${thing.track}` : "–", scoreText(thing.score)];
    texts.forEach((text, k) => setText(known.cells[k], text));
    known.pin.disabled = thing.track <= 0;
    known.pin.setAttribute("aria-pressed", String(thing.pinned));
    known.pin.setAttribute("aria-label", `Pin ${thing.text} ${texts[2]} of ${texts[0]}`);
  }
}
