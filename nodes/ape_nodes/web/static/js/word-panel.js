// The list of words in the side pane: one chip each, changed in place.

import { paletteColour } from "./colours.js";
import { byId, element, iconButton, setIcon, setText } from "./dom.js";
import { splitTyped } from "./wordlist.js";

export class WordPanel {
  /**
   * @param {import("./words.js").Words} words
   * @param {() => string[]} palette
   */
  constructor(words, palette) {
    this.words = words;
    this.palette = palette;
    /** @type {Map<number, Chip>} */
    this.chips = new Map();
    this.selected = 0;
    this.list = byId("words");
    this.field = byId("new-word");
    byId("add-form").addEventListener("submit", (event) => (event.preventDefault(), this.#add(this.field.value)));
    this.field.addEventListener("input", () => this.#typed());
    this.field.addEventListener("paste", (event) => this.#pasted(event));
    words.addEventListener("list", () => this.update());
    words.addEventListener("view", () => this.update());
    words.addEventListener("refused", (event) => this.#giveBack(/** @type {CustomEvent} */ (event).detail));
  }

  #add(/** @type {string} */ typed) {
    this.field.value = "";
    this.words.add(splitTyped(typed));
  }

  /** A comma ends a word, as Enter does. */
  #typed() {
    if (this.field.value.includes(",")) this.#add(this.field.value);
  }

  /** A field takes one line: it would join the lines of a list. */
  #pasted(/** @type {ClipboardEvent} */ event) {
    const text = event.clipboardData?.getData("text") ?? "";
    if (!/[\n,]/.test(text)) return;
    event.preventDefault();
    this.#add(this.field.value + text);
  }

  /** What was refused can be corrected. */
  #giveBack(/** @type {any[]} */ ops) {
    const texts = ops.filter(({ op }) => op === "add").map(({ text }) => text);
    if (texts.length === 1 && !this.field.value) this.field.value = texts[0];
  }

  update() {
    const { words } = this;
    byId("add-form").hidden = !words.mayEdit;
    const ids = new Set(words.list.map(({ id }) => id));
    for (const [id, chip] of this.chips)
      if (!ids.has(id)) {
        chip.leave(this.field);
        this.chips.delete(id);
      }
    words.list.forEach(({ id }, position) => {
      let chip = this.chips.get(id);
      if (!chip) this.chips.set(id, (chip = new Chip(id, this)));
      if (this.list.children[position] !== chip.node) this.list.insertBefore(chip.node, this.list.children[position] ?? null);
      chip.update(position);
    });
    byId("no-words").hidden = words.list.length > 0;
  }

  /** @param {Map<number, number>} counts by id of the word */
  count(counts) {
    for (const [id, chip] of this.chips) chip.count(counts.get(id) ?? 0);
  }

  /** @param {number} id */
  select(id) {
    this.selected = id;
    for (const [other, chip] of this.chips) chip.node.classList.toggle("selected", other === id);
  }

  /**
   * Change the threshold of the selected word, the first one where none is.
   * @param {number} step
   */
  stepThreshold(step) {
    const word = this.words.get(this.selected) ?? this.words.get(this.words.list[0]?.id);
    if (!word) return;
    this.select(word.id);
    const value = Math.min(1, Math.max(0, (word.threshold ?? 0) + step));
    this.words.setThreshold(word, Math.round(100 * value) / 100);
  }
}

class Chip {
  /**
   * @param {number} id
   * @param {WordPanel} panel
   */
  constructor(id, panel) {
    this.id = id;
    this.panel = panel;
    const { words } = panel;
    const act = (/** @type {(word: import("./words.js").Word) => void} */ f) => () => this.word && f(this.word);
    this.colour = element("input", { type: "color", class: "swatch", input: () => words.setColour(this.word, this.colour.value) });
    this.name = element("button", { type: "button", class: "word-name", click: () => panel.select(id), dblclick: () => this.#rename(), keydown: (/** @type {KeyboardEvent} */ event) => event.key === "F2" && this.#rename() });
    this.busy = element("span", { class: "spinner", role: "img", "aria-label": "is being encoded" });
    this.number = element("output", { class: "count", title: "seen now" });
    this.eye = iconButton("eye", "Hide", act((word) => words.toggleShown(word)));
    this.power = iconButton("power", "Switch off", act((word) => words.toggleEnabled(word)));
    this.bin = iconButton("close", "Remove", act((word) => words.remove(word)));
    this.slider = element("input", { type: "range", min: 0, max: 1, step: 0.01, input: () => words.setThreshold(this.word, Number(this.slider.value)) });
    this.exact = element("input", { type: "number", min: 0, max: 1, step: 0.01, placeholder: "auto", input: () => this.#typed() });
    this.reset = iconButton("reset", "Reset", act((word) => words.setThreshold(word, null)));
    this.error = element("p", { class: "word-error", hidden: true });
    this.node = element("li", { class: "word", "data-id": id },
      element("div", { class: "word-head" }, this.colour, this.name, element("span", { class: "word-tools" }, this.busy, this.number, this.eye, this.power, this.bin)),
      element("div", { class: "word-threshold" }, this.slider, this.exact, this.reset),
      this.error);
  }

  get word() {
    return /** @type {import("./words.js").Word} */ (this.panel.words.get(this.id));
  }

  #typed() {
    const value = Number(this.exact.value);
    if (this.exact.value === "") this.panel.words.setThreshold(this.word, null);
    else if (value >= 0 && value <= 1) this.panel.words.setThreshold(this.word, value);
  }

  /** @param {number} position */
  update(position) {
    const { word, panel } = this;
    const { mayEdit } = panel.words;
    const shown = panel.words.isShown(word);
    const { text } = word;
    this.node.dataset.state = word.state;
    this.node.classList.toggle("unseen", !shown);
    setText(this.name, text);
    this.name.title = `${text}${position < 9 ? ` (key ${position + 1})` : ""}${word.encode_ms ? `, encoded in ${word.encode_ms} ms` : ""}`;
    this.colour.value = word.color ?? paletteColour(word.id - 1, panel.palette());
    this.busy.hidden = word.state !== "encoding";
    setIcon(this.eye, shown ? "eye" : "hidden", `${shown ? "Hide" : "Show"} ${text} on this page`);
    this.eye.setAttribute("aria-pressed", String(!shown));
    setIcon(this.power, "power", `${word.enabled ? "Switch off" : "Switch on"} ${text}: it is ${word.enabled ? "" : "not "}looked for`);
    this.power.setAttribute("aria-pressed", String(!word.enabled));
    setIcon(this.bin, "close", `Remove ${text}`);
    for (const control of [this.power, this.bin]) control.disabled = !mayEdit || word.locked;
    this.colour.disabled = !mayEdit;
    this.colour.setAttribute("aria-label", `Colour of ${text}`);
    this.#showThreshold(word);
    this.error.hidden = word.state !== "error";
    setText(this.error, word.reason ?? "");
  }

  #showThreshold(/** @type {import("./words.js").Word} */ { text, threshold, locked }) {
    for (const control of [this.slider, this.exact]) {
      control.setAttribute("aria-label", `Threshold of ${text}`);
      control.disabled = locked;
    }
    this.slider.setAttribute("aria-valuetext", threshold === null ? "auto" : String(threshold));
    this.slider.classList.toggle("auto", threshold === null);
    if (Number(this.slider.value) !== (threshold ?? 0)) this.slider.value = String(threshold ?? 0);
    // Not while it is typed: "0." is on its way to "0.5".
    if (document.activeElement !== this.exact) this.exact.value = threshold === null ? "" : threshold.toFixed(2);
    setIcon(this.reset, "reset", `Reset the threshold of ${text}`);
    this.reset.disabled = threshold === null || locked;
  }

  /** @param {number} number */
  count(number) {
    setText(this.number, String(number));
    this.number.setAttribute("aria-label", `${number} seen now`);
    this.number.classList.toggle("none", number === 0);
  }

  #rename() {
    const { word, panel } = this;
    if (!panel.words.mayEdit || word.locked) return;
    const field = element("input", { type: "text", class: "word-rename", "aria-label": `New text for ${word.text}`, maxlength: 200 });
    field.value = word.text;
    const end = (/** @type {boolean} */ keep) => {
      if (!field.isConnected) return;
      field.replaceWith(this.name);
      if (keep) panel.words.rename(word, field.value.trim());
    };
    field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" || event.key === "Escape") end(event.key === "Enter");
    });
    field.addEventListener("blur", () => end(true));
    this.name.replaceWith(field);
    field.select();
    field.focus();
  }

  /** Go, and keep the keyboard's focus near. */
  leave(/** @type {HTMLElement} */ otherwise) {
    const next = this.node.nextElementSibling ?? this.node.previousElementSibling;
    const focused = this.node.contains(document.activeElement);
    this.node.remove();
    if (focused) (next?.querySelector(".word-name") ?? otherwise).focus();
  }
}

/**
 * Sets of words that this browser remembers.
 * @param {import("./words.js").Words} words
 * @param {(rows: import("./wordlist.js").Row[]) => void} use
 * @param {{toLink: Function, fromLink: Function, rows: () => any[]}} lists
 */
export function bindSets(words, use, { toLink, fromLink, rows }) {
  const key = "ape-stream.sets";
  const read = () => JSON.parse(localStorage.getItem(key) ?? "{}");
  const menu = byId("sets");
  const field = byId("set-name");
  const show = () => menu.replaceChildren(...Object.keys(read()).sort().map((name) => element("option", { value: name }, name)));
  const keep = (/** @type {object} */ sets) => (localStorage.setItem(key, JSON.stringify(sets)), show());
  byId("save-set").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    const name = field.value.trim() || words.list.map(({ text }) => text).join(", ").slice(0, 40);
    if (name) keep({ ...read(), [name]: toLink(rows()) });
    field.value = "";
    menu.value = name;
  });
  byId("use-set").addEventListener("click", () => menu.value && use(fromLink(read()[menu.value])));
  byId("forget-set").addEventListener("click", () => {
    const { [menu.value]: _gone, ...kept } = read();
    keep(kept);
  });
  show();
}

