// An image that stays: another may be chosen, dropped or pasted in its place.

import { packCameraImage } from "./protocol.js";

const LONGEST_SIDE = 2048;
const MOST_BYTES = 1 << 20;
const QUALITIES = [0.95, 0.85, 0.7, 0.5];

/**
 * Show this file on the server's still image, for all viewers.
 * @param {import("./link.js").Link} link
 * @param {number} cam
 * @param {Blob} file
 * @returns {Promise<string>} why it cannot be, empty if it is
 */
export async function showImage(link, cam, file) {
  let jpeg;
  try {
    jpeg = await asJpeg(file);
  } catch {
    return "This file is no image that the browser can read.";
  }
  if (!jpeg) return "The image is too large.";
  const answer = await link.ask({ type: "camera", cam, on: true });
  if (answer.type !== "ok") return answer.reason;
  link.send(packCameraImage(cam, 0, 0, jpeg));
  await link.ask({ type: "camera", cam, on: false });
  return "";
}

/** At most `MOST_BYTES`: turned as EXIF says, smaller and coarser as far as needed. */
async function asJpeg(/** @type {Blob} */ file) {
  const bitmap = await createImageBitmap(file);
  const part = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(part * bitmap.width)), Math.max(1, Math.round(part * bitmap.height)));
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "white"; // below what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  for (const quality of QUALITIES) {
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality });
    if (blob.size <= MOST_BYTES - 64) return blob.arrayBuffer();
  }
  return null;
}

/**
 * Take images that are dropped on a node or pasted into the page.
 * @param {HTMLElement} node
 * @param {(file: Blob) => void} take
 */
export function takeDropped(node, take) {
  const image = (/** @type {DataTransfer | null} */ data) => [...(data?.files ?? [])].find(({ type }) => type.startsWith("image/"));
  node.addEventListener("dragover", (event) => {
    event.preventDefault();
    node.classList.add("dropping");
  });
  node.addEventListener("dragleave", () => node.classList.remove("dropping"));
  node.addEventListener("drop", (event) => {
    event.preventDefault();
    node.classList.remove("dropping");
    const file = image(event.dataTransfer);
    if (file) take(file);
  });
  node.ownerDocument.addEventListener("paste", (event) => {
    const file = node.isConnected && image(event.clipboardData);
    if (file) take(file);
  });
}
