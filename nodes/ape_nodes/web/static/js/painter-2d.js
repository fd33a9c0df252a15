// Image and masks on a 2D canvas, where there is no WebGL2: the masks are layers of their own size.

import { BLOCK } from "./painter.js";

/** @typedef {import("./painter.js").Painter} Painter */

/** @implements {Painter} */
export class FlatPainter {
  /** @param {CanvasRenderingContext2D} context */
  constructor(context) {
    this.context = context;
    this.layer = /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(1, 1).getContext("2d"));
    this.small = /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(1, 1).getContext("2d"));
  }

  /** @param {import("./painter.js").Scene} scene */
  paint(scene) {
    const { context } = this;
    const { width, height } = context.canvas;
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    if (scene.image) {
      context.filter = scene.grey ? "grayscale(1) brightness(0.7)" : "none";
      this.#place(context, scene.bitmap, sizeOf(scene.bitmap), scene.view);
      context.filter = "none";
    }
    if (!scene.map) return;
    if (scene.fill === "tint") this.#layer(scene, (label) => 255 * scene.opacity * Number(scene.colours[4 * label + 3] > 0));
    else if (scene.fill !== "none" && scene.image) this.#hide(scene);
    if (scene.outline || scene.marked.includes(1)) this.#outline(scene);
  }

  /** One part of a bitmap over the whole canvas. */
  #place(context, bitmap, [w, h], [x, y, width, height]) {
    context.drawImage(bitmap, x * w, y * h, width * w, height * h, 0, 0, context.canvas.width, context.canvas.height);
  }

  /**
   * The label map in colours.
   * @param {import("./painter.js").Scene} scene
   * @param {(label: number, pixel: number) => number} alphaOf 0..255
   */
  #layer(scene, alphaOf) {
    const { width, height, labels } = scene.map;
    const image = new ImageData(width, height);
    for (let pixel = 0; pixel < labels.length; pixel++) {
      const label = labels[pixel];
      const alpha = label && alphaOf(label, pixel);
      if (!alpha) continue;
      image.data.set(scene.colours.subarray(4 * label, 4 * label + 3), 4 * pixel);
      image.data[4 * pixel + 3] = alpha;
    }
    resize(this.layer.canvas, width, height);
    this.layer.putImageData(image, 0, 0);
    this.#place(this.context, this.layer.canvas, [width, height], scene.view);
  }

  #outline(scene) {
    const { width, labels } = scene.map;
    const edge = (/** @type {number} */ pixel) =>
      labels[pixel] !== (labels[pixel + 1] ?? 0) || labels[pixel] !== (labels[pixel - 1] ?? 0) ||
      labels[pixel] !== (labels[pixel + width] ?? 0) || labels[pixel] !== (labels[pixel - width] ?? 0);
    this.#layer(scene, (label, pixel) => {
      const drawn = scene.colours[4 * label + 3] && (scene.outline || scene.marked[label]);
      return drawn && edge(pixel) ? 255 : 0;
    });
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
    const opaque = { ...scene, view: [0, 0, 1, 1] };
    const mask = new ImageData(width, height);
    opaque.map.labels.forEach((label, pixel) => (mask.data[4 * pixel + 3] = label ? scene.colours[4 * label + 3] : 0));
    resize(this.layer.canvas, width, height);
    this.layer.putImageData(mask, 0, 0);
    this.layer.globalCompositeOperation = "source-in";
    this.layer.imageSmoothingEnabled = scene.fill === "blur";
    this.layer.drawImage(this.small.canvas, 0, 0, width, height);
    this.layer.globalCompositeOperation = "source-over";
    this.context.imageSmoothingEnabled = false; // what is hidden stays hidden up to its last pixel
    this.#place(this.context, this.layer.canvas, [width, height], scene.view);
    this.context.imageSmoothingEnabled = true;
  }
}

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
