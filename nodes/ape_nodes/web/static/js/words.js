// The words: the server's list, edits against its revision, and what only this page changes.

import { notice } from "./dom.js";
import { revert } from "./wordlist.js";

const SEND_AFTER_MS = 250;
const BETWEEN_EDITS_MS = 220; // the server takes 5 a second

/**
 * @typedef {object} Word
 * @property {number} id
 * @property {string} text
 * @property {number | null} threshold null: the run's own
 * @property {boolean} enabled
 * @property {string | null} color
 * @property {"on" | "encoding" | "off" | "error"} state
 * @property {string | null} reason
 * @property {number | null} encode_ms
 * @property {boolean} locked
 */

/** Events: `list` when the server's list has changed, `view` when only what is shown has. */
export class Words extends EventTarget {
  /**
   * @param {import("./link.js").Link} link
   * @param {import("./history.js").History} history
   */
  constructor(link, history) {
    super();
    this.link = link;
    this.history = history;
    this.rev = 0;
    /** @type {Word[]} */
    this.list = [];
    /** @type {Map<number, Word>} */
    this.byId = new Map();
    this.mayEdit = false;
    /** Texts that this page does not show. @type {Set<string>} */
    this.hidden = new Set();
    /** The only text that is shown; empty: all. */
    this.solo = "";
    /** Not yet with the server, by id. @type {Map<number, {threshold?: number | null, color?: string | null}>} */
    this.drafts = new Map();
    this.version = 0;
    /** @type {{ops: object[], label: string, undo: boolean}[]} */
    this.pending = [];
    this.sending = false;
    /** @type {Map<number, ReturnType<typeof setTimeout>>} */
    this.timers = new Map();
    /** Undo steps that wait for the list that they made. @type {{rev: number, after: Word[] | null}[]} */
    this.unsettled = [];
  }

  /** @param {{rev: number, prompts: Word[]}} state */
  receive({ rev, prompts }) {
    this.rev = rev;
    this.list = prompts;
    this.byId = new Map(prompts.map((word) => [word.id, word]));
    for (const [id, draft] of this.drafts) {
      const word = this.byId.get(id);
      if (draft.threshold !== undefined && draft.threshold === word?.threshold) delete draft.threshold;
      if (draft.color !== undefined && draft.color === word?.color) delete draft.color;
      if (!word || !Object.keys(draft).length) this.drafts.delete(id);
    }
    this.#settle();
    this.#changed("list");
  }

  #settle() {
    for (const step of this.unsettled) if (step.rev <= this.rev) step.after = this.list;
    this.unsettled = this.unsettled.filter((step) => !step.after);
  }

  #changed(/** @type {"list" | "view"} */ what) {
    this.version += 1;
    this.dispatchEvent(new Event(what));
  }

  // -- what is shown -----------------------------------------------------------------------

  /** The word as this page shows it; undefined: it was removed. */
  get(/** @type {number} */ id) {
    const word = this.byId.get(id);
    return word && { ...word, ...this.drafts.get(id) };
  }

  /**
   * Whether a word is shown.
   * @param {Word} word
   */
  isShown(word) {
    return word.enabled && (this.solo ? this.solo === word.text : !this.hidden.has(word.text));
  }

  /** @param {Word} word */
  toggleShown({ text }) {
    this.solo = "";
    if (!this.hidden.delete(text)) this.hidden.add(text);
    this.#changed("view");
  }

  /** @param {Word} word */
  toggleSolo({ text }) {
    this.solo = this.solo === text ? "" : text;
    this.#changed("view");
  }

  // -- edits --------------------------------------------------------------------------------

  /** @param {string[]} texts */
  add(texts) {
    const known = texts.filter((text) => this.list.some((word) => word.text === text));
    if (known.length) notice(`There already: ${known.join(", ")}`);
    const fresh = texts.filter((text) => !known.includes(text));
    if (fresh.length) this.edit(fresh.map((text) => ({ op: "add", text })), `add ${fresh.join(", ")}`);
  }

  /** @param {Word} word */
  remove(word) {
    this.edit([{ op: "remove", prompt: word.id }], `remove ${word.text}`);
  }

  /**
   * @param {Word} word
   * @param {string} text
   */
  rename(word, text) {
    if (text && text !== word.text) this.edit([{ op: "rename", prompt: word.id, text }], `rename ${word.text}`);
  }

  /** @param {Word} word */
  toggleEnabled(word) {
    this.edit([{ op: "enable", prompt: word.id, enabled: !word.enabled }], `${word.enabled ? "switch off" : "switch on"} ${word.text}`);
  }

  /**
   * Shown at once; the server learns it when the value rests.
   * @param {Word} word
   * @param {number | null} threshold
   */
  setThreshold(word, threshold) {
    this.#draft(word, { threshold }, [{ op: "threshold", prompt: word.id, threshold }], `threshold of ${word.text}`);
  }

  /**
   * @param {Word} word
   * @param {string | null} color
   */
  setColour(word, color) {
    this.#draft(word, { color }, [{ op: "color", prompt: word.id, color }], `colour of ${word.text}`);
  }

  #draft(word, values, ops, label) {
    this.drafts.set(word.id, { ...this.drafts.get(word.id), ...values });
    this.#changed("view");
    if (!this.mayEdit) return; // then it is this page's own
    clearTimeout(this.timers.get(word.id));
    this.timers.set(word.id, setTimeout(() => this.edit(ops, label), SEND_AFTER_MS));
  }

  /**
   * @param {import("./wordlist.js").Row[]} rows all words
   * @param {string} label
   */
  replace(rows, label) {
    this.edit([{ op: "replace", prompts: rows }], label);
  }

  /**
   * Send steps against the revision that is shown; those made meanwhile go together.
   * @param {object[]} ops
   * @param {string} label
   * @param {boolean} [undo] it is itself one that takes back
   */
  edit(ops, label, undo = false) {
    this.pending.push({ ops, label, undo });
    if (!this.sending) this.#pump();
  }

  async #pump() {
    this.sending = true;
    while (this.pending.length) {
      const edits = this.pending.splice(0);
      await this.#send(edits.flatMap(({ ops }) => ops), edits.map(({ label }) => label).join(", "), edits.every(({ undo }) => undo));
      await new Promise((resolve) => setTimeout(resolve, BETWEEN_EDITS_MS));
    }
    this.sending = false;
  }

  async #send(ops, label, undo) {
    const before = this.list;
    const answer = await this.link.ask({ type: "prompts.set", base_rev: this.rev, ops });
    if (answer.type === "ok") {
      this.rev = Math.max(this.rev, answer.rev);
      if (!undo) this.#remember(label, before, answer.rev);
      return;
    }
    this.drafts.clear();
    this.#changed("list");
    if (answer.type === "conflict") {
      const again = /** @type {[string, () => void]} */ (["Try again", () => this.edit(ops, label, undo)]);
      notice(`Somebody else has changed the words: yours was not used (${label}).`, { kind: "error", actions: [again] });
    } else {
      notice(`Not possible (${label}): ${answer.reason}`, { kind: "error" });
      this.dispatchEvent(new CustomEvent("refused", { detail: ops }));
    }
  }

  #remember(label, before, rev) {
    const step = { rev, after: /** @type {Word[] | null} */ (null) };
    this.unsettled.push(step);
    if (this.list !== before) this.#settle();
    this.history.push(label, () => {
      const rows = revert(rowsOf(this.list), rowsOf(before), rowsOf(step.after ?? this.list));
      this.edit([{ op: "replace", prompts: rows }], `undo: ${label}`, true);
    });
  }
}

/**
 * @param {Word[]} words
 * @returns {import("./wordlist.js").Row[]}
 */
export const rowsOf = (words) => words.map(({ text, threshold, enabled, color }) => ({ text, threshold, enabled, color }));
