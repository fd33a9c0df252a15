// Image and masks on a canvas: WebGL2 where there is one, else 2D; both draw the same.

import { GlPainter } from "./painter-gl.js";
import { FlatPainter } from "./painter-2d.js";

/**
 * @typedef {"tint" | "blur" | "pixelate" | "none"} Fill
 *
 * @typedef {object} Scene what is painted
 * @property {import("./decode.js").Bitmap} bitmap
 * @property {number} serial another number for another bitmap
 * @property {import("./protocol.js").LabelMap | null} map
 * @property {Uint8Array} colours 256 x (red, green, blue, 255 if it is shown) by label
 * @property {Uint8Array} marked 256: 1 for labels whose outline is always drawn
 * @property {Fill} fill
 * @property {boolean} outline
 * @property {number} opacity of tints, 0..1
 * @property {boolean} image false: only masks, on black
 * @property {boolean} grey the image is old
 * @property {[number, number, number, number]} view part of the image that is seen: x y width height, 0..1
 *
 * @typedef {object} Painter
 * @property {(scene: Scene) => void} paint
 */

/** A block of `pixelate`, and the width of `blur`, in parts of the image's width. */
export const BLOCK = 1 / 48;

/** Whether a graphics card draws WebGL2; in software it is slower than 2D. */
function hasGraphicsCard() {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  const names = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = names ? gl.getParameter(names.UNMASKED_RENDERER_WEBGL) : "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext(); // a page has few
  return gl !== null && !/swiftshader|llvmpipe|software/i.test(name);
}

/** @type {boolean | undefined} */
let found;

/**
 * Whether WebGL2 draws.
 * @param {"auto" | "webgl" | "2d"} kind
 */
export const isAccelerated = (kind) => kind === "webgl" || (kind === "auto" && (found ??= hasGraphicsCard()));

/**
 * A 2D context; in software without the copies that a graphics process would need.
 * @param {HTMLCanvasElement | OffscreenCanvas} canvas
 * @param {{accelerated?: boolean, alpha?: boolean}} [options]
 * @returns {any}
 */
export const flatContext = (canvas, { accelerated = false, alpha = true } = {}) => canvas.getContext("2d", { alpha, willReadFrequently: !accelerated });

/**
 * @param {HTMLCanvasElement} canvas
 * @param {"auto" | "webgl" | "2d"} [kind]
 * @returns {Painter}
 */
export function painterFor(canvas, kind = "auto") {
  if (isAccelerated(kind)) {
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false });
    if (gl) return new GlPainter(gl);
  }
  return new FlatPainter(flatContext(canvas, { alpha: false }));
}
