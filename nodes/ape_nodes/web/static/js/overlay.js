// Boxes, labels, trails and zones above the masks, at the screen's own pixels.

import { inkOn } from "./colours.js";
import { flatContext } from "./painter.js";

const HANDLE_PX = 30; // of a handle that is touched, and half a plate
const FONT = 12;
const PAD = 4;
const TRAIL_MS = 4000;

/**
 * @typedef {object} Drawn a detection that is shown
 * @property {string} text of its word
 * @property {string} colour
 * @property {number | null} score null: it has none, as in a semantic map
 * @property {number} track
 * @property {[number, number, number, number]} box x1 y1 x2 y2, parts of the image
 * @property {boolean} pinned
 *
 * @typedef {object} Layers
 * @property {boolean} boxes
 * @property {boolean} labels
 * @property {boolean} ids
 * @property {boolean} trails
 * @property {boolean} zones
 */

/** Draws in pixels of the canvas, given parts of the image. */
export class Overlay {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {boolean} accelerated whether a graphics card draws what is below
   */
  constructor(canvas, accelerated) {
    /** @type {CanvasRenderingContext2D} */
    this.context = flatContext(canvas, { accelerated });
    /** @type {Map<number, {colour: string, points: [number, number, number][]}>} by track: x y ms */
    this.trails = new Map();
  }

  /**
   * @param {Drawn[]} things
   * @param {Layers} layers
   * @param {import("./zones.js").Shape[]} zones
   * @param {[number, number, number, number]} view part of the image that is seen
   * @param {number} scale device pixels of a CSS pixel
   */
  draw(things, layers, zones, view, scale) {
    const { context } = this;
    const { width, height } = context.canvas;
    context.clearRect(0, 0, width, height);
    const x = (/** @type {number} */ part) => ((part - view[0]) / view[2]) * width;
    const y = (/** @type {number} */ part) => ((part - view[1]) / view[3]) * height;
    this.at = { x, y, scale };
    context.lineJoin = "round";
    this.#dim(zones.filter(({ kind, points }) => kind === "look" && points.length > 2));
    if (layers.zones) zones.forEach((zone) => this.#zone(zone));
    if (layers.trails) this.#trails();
    for (const thing of things) if (layers.boxes || thing.pinned) this.#box(thing);
    this.#labels(things.filter((thing) => layers.labels || thing.pinned), layers.ids, width, height);
  }

  /**
   * Remember where things are; once per new masks.
   * @param {Drawn[]} things
   * @param {number} atMs
   */
  follow(things, atMs) {
    for (const { track, colour, box } of things) {
      if (track <= 0) continue;
      const trail = this.trails.get(track) ?? { colour, points: [] };
      trail.colour = colour;
      trail.points.push([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, atMs]);
      this.trails.set(track, trail);
    }
    for (const [track, { points }] of this.trails) {
      while (points.length && points[0][2] < atMs - TRAIL_MS) points.shift();
      if (!points.length) this.trails.delete(track);
    }
  }

  #line(points, closed = false) {
    const { context, at } = this;
    context.beginPath();
    points.forEach(([px, py], k) => (k ? context.lineTo(at.x(px), at.y(py)) : context.moveTo(at.x(px), at.y(py))));
    if (closed) context.closePath();
  }

  /** Light on dark, so it is seen on any image. */
  #stroke(colour, width, dash = /** @type {number[]} */ ([])) {
    const { context, at } = this;
    context.setLineDash([]);
    context.strokeStyle = "rgb(0 0 0 / 0.55)";
    context.lineWidth = (width + 2) * at.scale;
    context.stroke();
    context.setLineDash(dash.map((part) => part * at.scale));
    context.strokeStyle = colour;
    context.lineWidth = width * at.scale;
    context.stroke();
    context.setLineDash([]);
  }

  #box({ box: [x1, y1, x2, y2], colour, pinned }) {
    this.#line([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], true);
    this.#stroke(colour, pinned ? 2.5 : 1.5);
  }

  #trails() {
    for (const { points, colour } of this.trails.values()) {
      if (points.length < 2) continue;
      this.#line(points);
      this.#stroke(colour, 2);
    }
  }

  /** Dark outside of where to look. */
  #dim(looks) {
    const { context } = this;
    if (!looks.length) return;
    context.fillStyle = "rgb(0 0 0 / 0.5)";
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
    context.globalCompositeOperation = "destination-out";
    context.fillStyle = "#000";
    for (const { points } of looks) {
      this.#line(points, true);
      context.fill();
    }
    context.globalCompositeOperation = "source-over";
  }

  #zone({ kind, points, name, counts, chosen }) {
    const { context, at } = this;
    this.#line(points, kind !== "line");
    if (kind === "area") {
      context.fillStyle = "rgb(255 255 255 / 0.08)";
      context.fill();
    }
    this.#stroke(chosen ? "#ffd60a" : "#ffffff", 2, kind === "line" ? [] : [7, 5]);
    if (kind === "line" && points.length === 2) this.#arrow(points);
    if (!points.length) return;
    // At the highest point of an area, at the first point of a line: seldom two plates in one spot.
    const [px, py] = kind !== "line" ? points.reduce((a, b) => (b[1] < a[1] ? b : a)) : points[0];
    // The points of a chosen one have handles, which are above the plate.
    const above = chosen ? HANDLE_PX * at.scale : 0;
    this.#plate(`${name}${counts ? `  ${counts}` : ""}`, at.x(px), at.y(py) - above, "#ffffff", "#1a1a1a", true);
  }

  /** The way that counts as in: from the right of the line, seen from its first point, to its left. */
  #arrow([[x1, y1], [x2, y2]]) {
    const { context, at } = this;
    const [ax, ay, bx, by] = [at.x(x1), at.y(y1), at.x(x2), at.y(y2)];
    const length = Math.hypot(bx - ax, by - ay) || 1;
    const [nx, ny] = [(by - ay) / length, -(bx - ax) / length]; // left of the line: y points down
    const [mx, my, far] = [ax + (bx - ax) * 0.75, ay + (by - ay) * 0.75, 16 * at.scale];
    context.beginPath();
    context.moveTo(mx, my);
    context.lineTo(mx + nx * far, my + ny * far);
    context.moveTo(mx + (nx - ny * 0.5) * far * 0.6, my + (ny + nx * 0.5) * far * 0.6);
    context.lineTo(mx + nx * far, my + ny * far);
    context.lineTo(mx + (nx + ny * 0.5) * far * 0.6, my + (ny - nx * 0.5) * far * 0.6);
    this.#stroke("#ffffff", 2);
  }

  /** Plates above their boxes; those of larger boxes first, none outside, later ones moved down. */
  #labels(things, ids, width, height) {
    const taken = [];
    const size = (FONT + 2 * PAD) * this.at.scale;
    const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    for (const thing of [...things].sort((a, b) => area(b) - area(a))) {
      const [left, top, right, bottom] = [this.at.x(thing.box[0]), this.at.y(thing.box[1]), this.at.x(thing.box[2]), this.at.y(thing.box[3])];
      if (right < 0 || bottom < 0 || left > width || top > height) continue;
      const score = thing.score === null ? "" : ` ${thing.score.toFixed(2)}`;
      const text = `${thing.text}${score}${ids && thing.track > 0 ? ` #${thing.track}` : ""}`;
      const wide = this.#width(text);
      const x = Math.max(0, Math.min(left, width - wide));
      let y = Math.max(0, top - size);
      for (let turn = 0; turn < 4 && taken.some((t) => x < t[0] + t[2] && t[0] < x + wide && y < t[1] + size && t[1] < y + size); turn++) y += size;
      taken.push([x, y, wide]);
      this.#plate(text, x, y, thing.colour, inkOn(thing.colour), false);
    }
  }

  #width(text) {
    this.context.font = `600 ${FONT * this.at.scale}px system-ui, sans-serif`;
    return this.context.measureText(text).width + 2 * PAD * this.at.scale;
  }

  #plate(text, x, y, colour, ink, centred) {
    const { context, at } = this;
    const wide = this.#width(text);
    const high = (FONT + 2 * PAD) * at.scale;
    const { width, height } = context.canvas;
    const within = (/** @type {number} */ value, /** @type {number} */ most) => Math.max(0, Math.min(value, most));
    const [left, top] = centred ? [within(x - wide / 2, width - wide), within(y - high / 2, height - high)] : [x, y];
    context.fillStyle = colour;
    context.beginPath();
    context.roundRect(left, top, wide, high, 3 * at.scale);
    context.fill();
    context.fillStyle = ink;
    context.textBaseline = "middle";
    context.fillText(text, left + PAD * at.scale, top + high / 2);
  }
}
