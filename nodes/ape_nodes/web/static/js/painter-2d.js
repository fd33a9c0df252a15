// Image and masks on a 2D canvas, where there is no WebGL2: the masks are layers of their own size.

import { BLOCK, flatContext } from "./painter.js";

/** @typedef {import("./painter.js").Painter} Painter */

const HIDDEN = new Uint32Array(256).fill(0xffffffff);
const NO_EDGES = new Uint32Array(256);

/** @implements {Painter} */
export class FlatPainter {
  /** @param {CanvasRenderingContext2D} context */
  constructor(context) {
    this.context = context;
    /** Tints and outlines, kept until masks or colours change: images come more often. */
    this.masks = new Layer();
    /** What is blurred, or in blocks. */
    this.hidden = new Layer();
    this.small = offscreen();
  }

  /** @param {import("./painter.js").Scene} scene */
  paint(scene) {
    const { context } = this;
    const { width, height } = context.canvas;
    if (scene.image) {
      context.filter = scene.grey ? "grayscale(1) brightness(0.7)" : "none";
      this.#place(scene.bitmap, sizeOf(scene.bitmap), scene.view);
      context.filter = "none";
    } else {
      context.fillStyle = "#000";
      context.fillRect(0, 0, width, height);
    }
    if (!scene.map) return;
    if (scene.image && (scene.fill === "blur" || scene.fill === "pixelate")) this.#hide(scene);
    const inside = scene.fill === "tint" ? pixelsOf(scene, () => scene.opacity) : NO_EDGES;
    const edge = pixelsOf(scene, (label) => Number(scene.outline || scene.marked[label] > 0));
    if (inside.some(Boolean) || edge.some(Boolean)) {
      this.masks.paint(scene.map, inside, edge);
      this.#place(this.masks.canvas, [scene.map.width, scene.map.height], scene.view);
    }
  }

  /** One part of a bitmap over the whole canvas. */
  #place(bitmap, [w, h], [x, y, width, height]) {
    const { context } = this;
    context.drawImage(bitmap, x * w, y * h, width * w, height * h, 0, 0, context.canvas.width, context.canvas.height);
  }

  /** Blurred or in blocks where a shown label is. */
  #hide(scene) {
    const { width, height } = scene.map;
    const [w, h] = sizeOf(scene.bitmap);
    const columns = Math.round((scene.fill === "blur" ? 0.5 : 1) / BLOCK);
    const rows = Math.max(1, Math.round((columns * h) / w));
    resize(this.small.canvas, columns, rows);
    this.small.imageSmoothingQuality = "high"; // means of all pixels, not some of them
    this.small.drawImage(scene.bitmap, 0, 0, columns, rows);
    const { context, canvas } = this.hidden;
    this.hidden.paint(scene.map, HIDDEN.map((pixel, label) => (scene.colours[4 * label + 3] ? pixel : 0)), NO_EDGES);
    context.globalCompositeOperation = "source-in";
    context.imageSmoothingEnabled = scene.fill === "blur";
    context.drawImage(this.small.canvas, 0, 0, width, height);
    context.globalCompositeOperation = "source-over";
    this.hidden.forget();
    this.context.imageSmoothingEnabled = false; // what is hidden stays hidden up to its last pixel
    this.#place(canvas, [width, height], scene.view);
    this.context.imageSmoothingEnabled = true;
  }
}

/** A label map in colours, at its own size. */
class Layer {
  constructor() {
    this.context = offscreen();
    this.canvas = this.context.canvas;
    this.image = new ImageData(1, 1);
    this.forget();
  }

  /** Its pixels are no longer those that were painted. */
  forget() {
    /** @type {import("./protocol.js").LabelMap | null} */
    this.map = null;
    this.inside = this.edge = NO_EDGES;
  }

  /**
   * @param {import("./protocol.js").LabelMap} map
   * @param {Uint32Array} inside 256 pixels by label, as of `pixelsOf`; 0: nothing
   * @param {Uint32Array} edge the same for the edges of a label; 0: as inside
   */
  paint(map, inside, edge) {
    if (map === this.map && same(inside, this.inside) && same(edge, this.edge)) return;
    Object.assign(this, { map, inside, edge });
    if (this.image.width !== map.width || this.image.height !== map.height) {
      this.image = new ImageData(map.width, map.height);
      resize(this.canvas, map.width, map.height);
    }
    colourLabels(map, inside, edge, new Uint32Array(this.image.data.buffer));
    this.context.putImageData(this.image, 0, 0);
  }
}

/**
 * @param {import("./protocol.js").LabelMap} map
 * @param {Uint32Array} inside 256 pixels by label
 * @param {Uint32Array} edge 256 for pixels of a label next to another one; 0: as inside
 * @param {Uint32Array} pixels height * width, are written
 */
function colourLabels({ width, height, labels }, inside, edge, pixels) {
  for (let row = 0, p = 0; row < height; row++) {
    const above = row > 0 ? width : 0;
    const below = row < height - 1 ? width : 0;
    for (let column = 0; column < width; column++, p++) {
      const label = labels[p];
      let pixel = inside[label];
      if (edge[label]) {
        const left = column > 0 ? 1 : 0;
        const right = column < width - 1 ? 1 : 0;
        if (labels[p - left] !== label || labels[p + right] !== label || labels[p - above] !== label || labels[p + below] !== label) pixel = edge[label];
      }
      pixels[p] = pixel;
    }
  }
}

/**
 * Colours of the labels as pixels of ImageData; 0 for those that are not shown.
 * @param {import("./painter.js").Scene} scene
 * @param {(label: number) => number} alphaOf 0..1
 */
function pixelsOf({ colours }, alphaOf) {
  const pixels = new Uint32Array(256);
  for (let label = 1, at = 4; label < 256; label++, at += 4) {
    if (!colours[at + 3]) continue;
    const alpha = Math.round(255 * alphaOf(label));
    if (alpha) pixels[label] = (alpha << 24) | (colours[at + 2] << 16) | (colours[at + 1] << 8) | colours[at]; // little endian
  }
  return pixels;
}

const same = (/** @type {Uint32Array} */ a, /** @type {Uint32Array} */ b) => a.every((value, k) => value === b[k]);

/** @returns {OffscreenCanvasRenderingContext2D} */
const offscreen = () => flatContext(new OffscreenCanvas(1, 1));

/**
 * @param {import("./decode.js").Bitmap} bitmap
 * @returns {[number, number]} width, height
 */
export function sizeOf(bitmap) {
  return "displayWidth" in bitmap ? [bitmap.displayWidth, bitmap.displayHeight] : [bitmap.width, bitmap.height];
}

function resize(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}
