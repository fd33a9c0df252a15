// Zones and lines of one camera: the server's list, and edits against its revision.

import { notice } from "./dom.js";

/**
 * @typedef {object} Zone as the server has it
 * @property {string} name
 * @property {"area" | "line" | "look"} kind look: only what is inside is shown and counted
 * @property {[number, number][]} points parts of width and height, 0..1
 * @property {string[]} prompts texts that count; none: all
 *
 * @typedef {object} Shape a zone as it is drawn
 * @property {string} name
 * @property {"area" | "line" | "look"} kind
 * @property {[number, number][]} points
 * @property {string} counts
 * @property {boolean} chosen
 */

/**
 * What a zone has counted, in words.
 * @param {any} counts
 */
export function countsText(counts) {
  if (!counts) return "";
  if ("in" in counts) return `${counts.in} in · ${counts.out} out`;
  const time = counts.mean_s ? ` · ${counts.mean_s.toFixed(1)} s` : "";
  return `${counts.inside} now · ${counts.entered} in · ${counts.left} out${time}`;
}

/**
 * A name that no zone has yet.
 * @param {Zone[]} zones
 * @param {"area" | "line" | "look"} kind
 */
export function freeName(zones, kind) {
  const taken = new Set(zones.map(({ name }) => name));
  for (let k = 1; ; k++) if (!taken.has(`${kind} ${k}`)) return `${kind} ${k}`;
}

/** A shape to begin with, where no pointer draws one. @type {Record<string, [number, number][]>} */
export const FIRST_SHAPES = {
  area: [[0.3, 0.3], [0.7, 0.3], [0.7, 0.7], [0.3, 0.7]],
  line: [[0.25, 0.5], [0.75, 0.5]],
  look: [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]],
};

/**
 * The place in a shape where a point belongs: within the nearest side.
 * @param {[number, number][]} points
 * @param {[number, number]} point
 * @returns {number}
 */
export function sideOf(points, [x, y]) {
  const far = points.map(([ax, ay], k) => {
    const [bx, by] = points[(k + 1) % points.length];
    const [dx, dy] = [bx - ax, by - ay];
    const along = Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1)));
    return Math.hypot(x - ax - along * dx, y - ay - along * dy);
  });
  return far.indexOf(Math.min(...far)) + 1;
}

/** Events: `change`. */
export class Zones extends EventTarget {
  /**
   * @param {number} cam
   * @param {import("./link.js").Link} link
   * @param {import("./history.js").History} history
   */
  constructor(cam, link, history) {
    super();
    this.cam = cam;
    this.link = link;
    this.history = history;
    this.known = false;
    this.rev = 0;
    /** As they are shown: with edits that the server has not answered. @type {Zone[]} */
    this.zones = [];
    /** As the server has said last. @type {Zone[]} */
    this.served = [];
    /** The revision that is shown. */
    this.shownRev = 0;
    /** Edits that were not sent. @type {{zones: Zone[], label: string, before: Zone[] | null}[]} */
    this.pending = [];
    this.sending = false;
    /** By name. @type {Record<string, any>} */
    this.counts = {};
    this.chosen = -1;
    this.version = 0;
    /** Points of a shape that is being drawn. @type {Zone | null} */
    this.draft = null;
  }

  receive({ rev, zones, counts }) {
    this.known = true;
    this.rev = rev;
    this.served = zones;
    if (!this.sending) this.#show();
    this.count(counts ?? {});
  }

  /** @param {Record<string, any>} counts */
  count(counts) {
    this.counts = counts;
    this.changed();
  }

  changed() {
    this.version += 1;
    this.dispatchEvent(new Event("change"));
  }

  /** @returns {Shape[]} */
  shapes() {
    const shapes = this.zones.map((zone, k) => ({ ...zone, counts: countsText(this.counts[zone.name]), chosen: k === this.chosen }));
    return this.draft ? [...shapes, { ...this.draft, counts: "", chosen: true }] : shapes;
  }

  /** @param {number} position */
  choose(position) {
    this.chosen = position;
    this.changed();
  }

  /** @param {Zone} zone */
  add(zone) {
    this.chosen = this.zones.length;
    return this.save([...this.zones, zone], `add ${zone.name}`);
  }

  /** @param {number} position */
  remove(position) {
    return this.save(this.zones.filter((_, k) => k !== position), `remove ${this.zones[position].name}`);
  }

  /** Look at the whole image again. */
  lookEverywhere() {
    const others = this.zones.filter(({ kind }) => kind !== "look");
    if (others.length < this.zones.length) return this.save(others, "look everywhere");
  }

  /**
   * @param {number} position
   * @param {Partial<Zone>} values
   * @param {boolean} [sent] false: only here, while it is dragged
   */
  update(position, values, sent = true) {
    const before = this.zones;
    const zones = before.map((zone, k) => (k === position ? { ...zone, ...values } : zone));
    if (sent) return this.save(zones, `change ${zones[position].name}`);
    this.zones = zones;
    this.changed();
  }

  /**
   * Shown at once, and sent after the edits before it: each is against the revision that its
   * forerunner made, so none is in conflict with this page's own.
   * @param {Zone[]} zones
   * @param {string} label
   * @param {Zone[] | null} [before] for undo; null: it is itself one
   */
  save(zones, label, before = this.zones) {
    this.zones = zones;
    this.changed();
    this.pending.push({ zones, label, before });
    if (!this.sending) this.#pump();
  }

  async #pump() {
    this.sending = true;
    for (let rev = this.rev, edit; (edit = this.pending.shift()); ) {
      const answer = await this.link.ask({ type: "zones.set", cam: this.cam, base_rev: rev, zones: edit.zones });
      if (answer.type !== "ok") this.#refused(edit.label, answer);
      else this.#taken(edit, (rev = answer.rev));
    }
    this.sending = false;
    if (this.rev > this.shownRev) this.#show(); // somebody else's that came meanwhile
  }

  #taken({ label, before }, /** @type {number} */ rev) {
    this.rev = Math.max(this.rev, rev);
    this.shownRev = rev;
    if (before) this.history.push(label, () => this.#undo(before, label, rev));
  }

  #refused(/** @type {string} */ label, answer) {
    this.pending = []; // they stand on what was refused
    this.#show();
    const why = answer.type === "conflict" ? "somebody else has changed the zones" : answer.reason;
    notice(`Not possible (${label}): ${why}`, { kind: "error" });
  }

  /** Show the server's zones. */
  #show() {
    this.zones = this.served;
    this.shownRev = this.rev;
    this.chosen = Math.min(this.chosen, this.zones.length - 1);
    this.changed();
  }

  #undo(before, label, rev) {
    if (this.rev !== rev) return notice(`Somebody else has changed the zones since: nothing was undone (${label}).`, { kind: "error" });
    this.save(before, `undo: ${label}`, null);
  }
}
