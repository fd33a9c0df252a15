// Draw and move zones on a camera's image, by pointer and by keyboard.

import { element } from "./dom.js";
import { FIRST_SHAPES, freeName, sideOf } from "./zones.js";

const STEP = 0.01;
const LARGE_STEP = 0.05;
const NEAR_PX = 14;
const MOST_POINTS = 64; // the server's limit

/** @typedef {[number, number]} Point */

/** The points of the chosen zone are buttons above the image: they can be dragged, and moved by arrow keys. */
export class ZoneEditor {
  /**
   * @param {import("./zones.js").Zones} zones
   * @param {HTMLElement} stage its size is the image's
   * @param {(event: PointerEvent) => Point} partOf where a pointer is, parts of the image
   */
  constructor(zones, stage, partOf) {
    this.zones = zones;
    this.stage = stage;
    this.partOf = partOf;
    this.open = false;
    this.layer = element("div", { class: "handles" });
    this.stage.append(this.layer);
    this.dragged = false;
    zones.addEventListener("change", () => this.update());
    /** Points of an outline that is drawn with the pointer held. @type {Point[]} */
    this.stroke = [];
    this.stroked = false;
    stage.addEventListener("pointerdown", (event) => this.#press(event));
    stage.addEventListener("pointermove", (event) => this.#lead(event));
    stage.addEventListener("pointerup", () => this.#lift());
    stage.addEventListener("dblclick", (event) => this.drawing && (event.preventDefault(), this.#finish()));
  }

  get drawing() {
    return this.zones.draft !== null;
  }

  /** @param {boolean} open */
  setOpen(open) {
    this.open = open;
    if (!open) this.cancel();
    this.update();
  }

  /**
   * @param {"area" | "line" | "look"} kind
   * @param {boolean} byPointer false: begin with a shape whose points are moved by keys
   */
  begin(kind, byPointer) {
    const { zones } = this;
    const zone = { name: freeName(zones.zones, kind), kind, points: /** @type {Point[]} */ ([]), prompts: [] };
    if (byPointer) {
      zones.draft = zone;
      zones.chosen = -1;
      zones.changed();
      return;
    }
    zones.add({ ...zone, points: FIRST_SHAPES[kind] });
    /** @type {HTMLElement | null} */ (this.layer.querySelector("button"))?.focus();
  }

  cancel() {
    if (!this.zones.draft) return false;
    this.zones.draft = null;
    this.zones.changed();
    return true;
  }

  /**
   * A click on the image while drawing adds a point.
   * @param {PointerEvent} event
   * @returns {boolean} whether the click was for drawing
   */
  click(event) {
    const { draft } = this.zones;
    if (this.stroked) return !(this.stroked = false); // the outline is already there
    if (!draft) return false;
    const at = this.partOf(event);
    const points = this.#placed();
    if (draft.kind !== "line" && points.length >= 3 && this.#near(points[0], at)) {
      this.#finish();
      return true;
    }
    draft.points = [...points, at, at]; // the last one goes with the pointer
    if (draft.kind === "line" && points.length === 1) this.#finish();
    else this.zones.changed();
    return true;
  }

  /** Points of the draft without the one that goes with the pointer. */
  #placed() {
    return this.zones.draft?.points.slice(0, -1) ?? [];
  }

  #near([ax, ay], [bx, by]) {
    const { clientWidth, clientHeight } = this.stage;
    return Math.hypot((ax - bx) * clientWidth, (ay - by) * clientHeight) < NEAR_PX;
  }

  #lead(/** @type {PointerEvent} */ event) {
    const { draft } = this.zones;
    if (this.stroke.length && event.buttons & 1) this.#draw(this.partOf(event));
    if (!draft?.points.length) return;
    draft.points = [...this.#placed(), this.partOf(event)];
    this.zones.changed();
  }

  #press(/** @type {PointerEvent} */ event) {
    const { draft } = this.zones;
    this.stroked = false;
    this.stroke = draft && draft.kind !== "line" && !draft.points.length && event.button === 0 ? [this.partOf(event)] : [];
    if (this.stroke.length) this.stage.setPointerCapture(event.pointerId);
  }

  /** The outline goes on to here, coarser where it would have too many points. */
  #draw(/** @type {Point} */ at) {
    const { draft } = this.zones;
    if (!draft || this.#near(/** @type {Point} */ (this.stroke.at(-1)), at)) return;
    if (this.stroke.length >= MOST_POINTS - 1) this.stroke = this.stroke.filter((_, k) => k % 2 === 0);
    this.stroke.push(at);
    if (this.stroke.length > 2) draft.points = [...this.stroke, at];
  }

  #lift() {
    const { draft } = this.zones;
    const drawn = this.stroke.length > 2;
    this.stroke = [];
    if (!drawn || !draft) return;
    this.stroked = true;
    this.#finish();
  }

  /** @param {string} key while drawing: Enter ends, Escape gives up, Backspace takes a point back */
  key(key) {
    const { draft } = this.zones;
    if (!draft) return false;
    if (key === "Enter") this.#finish();
    else if (key === "Escape") this.cancel();
    else if (key === "Backspace") {
      draft.points = [...this.#placed().slice(0, -1), ...draft.points.slice(-1)];
      this.zones.changed();
    } else return false;
    return true;
  }

  #finish() {
    const { draft } = this.zones;
    if (!draft) return;
    // A double click has put the same point twice.
    const points = this.#placed().filter((point, k, all) => k === 0 || !this.#near(point, all[k - 1]));
    const least = draft.kind === "line" ? 2 : 3;
    if (points.length < least) return;
    this.zones.draft = null;
    this.zones.add({ ...draft, points });
  }

  update() {
    const zone = this.open && !this.drawing ? this.zones.zones[this.zones.chosen] : undefined;
    const points = zone?.points ?? [];
    while (this.layer.children.length > points.length) this.layer.lastElementChild?.remove();
    while (this.layer.children.length < points.length) this.layer.append(this.#handle(this.layer.children.length));
    points.forEach(([x, y], k) => {
      const handle = /** @type {HTMLElement} */ (this.layer.children[k]);
      handle.style.left = `${100 * x}%`;
      handle.style.top = `${100 * y}%`;
      handle.setAttribute("aria-label", `Point ${k + 1} of ${zone?.name}: ${Math.round(100 * x)} % from the left, ${Math.round(100 * y)} % from the top`);
    });
    this.stage.classList.toggle("drawing", this.drawing);
  }

  #handle(/** @type {number} */ index) {
    const handle = element("button", { type: "button", class: "handle", keydown: (event) => this.#moveByKey(event, index) });
    handle.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      handle.setPointerCapture(event.pointerId);
      event.stopPropagation();
    });
    handle.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      this.dragged = true;
      this.#move(index, this.partOf(event), false);
    });
    handle.addEventListener("pointerup", () => {
      if (this.dragged) this.#commit();
      this.dragged = false;
    });
    return handle;
  }

  #move(index, point, sent) {
    const { zones } = this;
    if (!this.before) this.before = zones.zones;
    const inside = point.map((value) => Math.min(1, Math.max(0, value)));
    zones.update(zones.chosen, { points: zones.zones[zones.chosen].points.map((old, k) => (k === index ? inside : old)) }, false);
    clearTimeout(this.timer);
    if (sent) this.timer = setTimeout(() => this.#commit(), 500); // one edit for a row of key presses
  }

  #commit() {
    const { zones, before } = this;
    this.before = undefined;
    const zone = zones.zones[zones.chosen];
    if (zone && before) zones.save(zones.zones, `move ${zone.name}`, before);
  }

  #moveByKey(/** @type {KeyboardEvent} */ event, index) {
    const { zones } = this;
    const { points, kind } = zones.zones[zones.chosen];
    const [x, y] = points[index];
    const step = event.shiftKey ? LARGE_STEP : STEP;
    const ways = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const way = ways[event.key];
    if (way) this.#move(index, [x + way[0], y + way[1]], true);
    else if (event.key === "Delete" && kind !== "line" && points.length > 3) zones.update(zones.chosen, { points: points.filter((_, k) => k !== index) });
    else if (event.key === "Insert" && kind !== "line") this.#insert(middle(points[index], points[(index + 1) % points.length]));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** A new point in the nearest side of the chosen area. */
  #insert(/** @type {Point} */ point) {
    const { zones } = this;
    const points = [...zones.zones[zones.chosen].points];
    points.splice(sideOf(points, point), 0, point);
    zones.update(zones.chosen, { points });
  }
}

/** @returns {Point} */
const middle = ([ax, ay], [bx, by]) => [(ax + bx) / 2, (ay + by) / 2];
