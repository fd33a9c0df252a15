// Snapshots that this browser keeps: an image as it is seen, and what was found as JSON.

import { element } from "./dom.js";

/** @param {import("./tile.js").Tile} tile */
export async function saveHere(tile) {
  const { shown } = tile.stream;
  if (!shown) return;
  const { seq, meta } = shown.message;
  const name = `${tile.stream.cam.name.replace(/[^\w.-]+/g, "_")}-${seq}`;
  const found = tile.stream.found?.message;
  const record = { stream: tile.stream.cam.name, frame: seq, time_s: meta.time, size: meta.size, masks_of_frame: found?.seq ?? null, view: found?.meta.view ?? "instances" };
  const masks = tile.stream.found ? segmentations(tile.stream.found.map, meta.size) : new Map();
  const detections = tile.things.map(({ text, score, track, label, box: [x1, y1, x2, y2] }) => ({
    prompt: text, score, track_id: track || null,
    box: [x1 * meta.size[1], y1 * meta.size[0], x2 * meta.size[1], y2 * meta.size[0]].map(Math.round),
    segmentation: masks.get(label) ?? null,
  }));
  download(`${name}.png`, await bitmap(tile));
  download(`${name}.json`, new Blob([JSON.stringify({ ...record, detections }, null, 1)], { type: "application/json" }));
}

/**
 * The masks of a label map at the size of the image, as COCO's uncompressed run lengths: column by
 * column, the first run is of pixels outside.
 * @param {import("./protocol.js").LabelMap} map
 * @param {[number, number]} size height, width
 * @returns {Map<number, {size: [number, number], counts: number[]}>} by label
 */
export function segmentations({ width, height, labels }, size) {
  const [rows, columns] = size;
  const found = new Map();
  const ends = new Map(); // pixels that the counts of a label cover
  let label = 0;
  let start = 0;
  const close = (/** @type {number} */ end) => {
    if (label) {
      if (!found.has(label)) found.set(label, { size, counts: [] });
      found.get(label).counts.push(start - (ends.get(label) ?? 0), end - start);
      ends.set(label, end);
    }
    start = end;
  };
  for (let pixel = 0; pixel < rows * columns; pixel++) {
    const x = Math.floor((Math.floor(pixel / rows) + 0.5) * width / columns);
    const y = Math.floor((pixel % rows + 0.5) * height / rows);
    const next = labels[y * width + x];
    if (next === label) continue;
    close(pixel);
    label = next;
  }
  close(rows * columns);
  for (const [key, end] of ends) if (end < rows * columns) found.get(key).counts.push(rows * columns - end);
  return found;
}

/** @param {import("./tile.js").Tile} tile */
function bitmap(tile) {
  tile.drawn = "";
  tile.frame(); // WebGL forgets what it drew as soon as the screen has it
  const canvas = new OffscreenCanvas(tile.canvas.width, tile.canvas.height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.drawImage(tile.canvas, 0, 0);
  context.drawImage(tile.overlayCanvas, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

/**
 * @param {string} name
 * @param {Blob} blob
 */
function download(name, blob) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
