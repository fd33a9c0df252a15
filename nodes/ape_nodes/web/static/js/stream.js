// One camera as it arrives: images and masks apart, the newest of each, and how old they are.

import { H264Decoder, decodeJpeg } from "./decode.js";
import { H264, MASKS, SYNCED, inflate, readLabelMap } from "./protocol.js";
import { Series, stagesOf } from "./series.js";

/** An image that is older is not shown as live. */
export const STALE_MS = 1000;

/**
 * @typedef {object} Shown an image
 * @property {import("./decode.js").Bitmap} bitmap
 * @property {import("./protocol.js").Message} message
 * @property {number} receivedUs
 * @property {number} decodedUs
 *
 * @typedef {object} Detection
 * @property {number} word id of the word
 * @property {number | null} score null: a semantic map has none
 * @property {number} track 0: none yet
 * @property {[number, number, number, number]} box x1 y1 x2 y2, pixels of the source's image
 * @property {number} label its value in the label map
 *
 * @typedef {object} Found masks of one frame
 * @property {import("./protocol.js").Message} message
 * @property {import("./protocol.js").LabelMap} map
 * @property {Detection[]} detections
 */

export class Stream {
  /**
   * @param {{id: number, name: string, live: boolean, browser: boolean, still: boolean}} cam
   * @param {import("./link.js").Link} link
   */
  constructor(cam, link) {
    this.cam = cam;
    this.link = link;
    /** @type {Shown | null} */
    this.shown = null;
    /** @type {Found | null} */
    this.found = null;
    /** Decoded, not drawn yet. @type {Shown | null} */
    this.next = null;
    /** waiting, up or stale, as the server sees the source. */
    this.sourceState = "waiting";
    this.recording = false;
    this.frozenAtMs = 0;
    this.wish = { codec: "jpeg", mode: "live", view: "instances", max_w: 1280 };
    this.wanted = false;
    this.broken = "";
    this.images = new Series();
    this.masks = new Series();
    this.lastSeq = -1;
    this.version = 0; // counts masks; images are told apart by themselves
    this.h264 = new H264Decoder((why) => this.#withoutH264(why));
  }

  /**
   * Ask for the camera, or for no more of it.
   * @param {{codec: string, mode: string, view: string, max_w: number}} wish
   * @param {boolean} wanted
   */
  subscribe(wish, wanted = true) {
    const codec = this.broken ? "jpeg" : wish.codec;
    const same = JSON.stringify({ ...wish, codec }) === JSON.stringify(this.wish) && wanted === this.wanted;
    if (same) return;
    if (codec !== this.wish.codec || !wanted) this.h264.close();
    this.wish = { ...wish, codec };
    this.wanted = wanted;
    this.#ask();
  }

  #ask() {
    this.lastSeq = -1;
    this.link.send(this.wanted ? { type: "sub", cam: this.cam.id, ...this.wish } : { type: "unsub", cam: this.cam.id });
  }

  /** The connection is new: nothing is on its way, and H.264 begins with a key frame. */
  restart() {
    this.h264.close();
    if (this.wanted) this.#ask();
  }

  #withoutH264(/** @type {string} */ why) {
    console.warn(`H.264 cannot be decoded, JPEG is used: ${why}`);
    this.broken = why;
    this.subscribe({ ...this.wish, codec: "jpeg" }, this.wanted);
  }

  /** @param {import("./protocol.js").Message} message */
  async receive(message) {
    const receivedUs = this.link.nowUs();
    if (this.frozen && message.kind !== H264) return this.#acknowledge(message);
    try {
      if (message.kind === MASKS) await this.#takeMasks(message, receivedUs);
      else await this.#takeImage(message, receivedUs);
    } catch (error) {
      console.warn("a message cannot be decoded", error);
      this.#acknowledge(message);
    }
  }

  async #takeMasks(message, receivedUs) {
    const found = await readFound(message);
    const nowUs = this.link.nowUs();
    if (!this.frozen && !(this.found && isOlder(message, this.found.message))) {
      this.found = found;
      this.version += 1;
      this.masks.add(performance.now(), stagesOf(message, { receivedUs, decodedUs: nowUs, shownUs: nowUs }));
    }
    this.#acknowledge(message);
  }

  async #takeImage(message, receivedUs) {
    if (message.kind !== H264 && this.wish.codec === "jpeg") this.h264.close();
    const [bitmap, found] = await Promise.all([
      message.kind === H264 ? this.h264.decode(message) : decodeJpeg(message.image),
      message.kind === SYNCED ? readFound(message) : null,
    ]);
    if (!bitmap) return this.#acknowledge(message);
    const newer = this.next ?? this.shown;
    // Images are decoded side by side and may overtake one another.
    if (this.frozen || (newer && isOlder(message, newer.message))) {
      bitmap.close();
      return this.#acknowledge(message);
    }
    this.#countDrops(message);
    if (this.next) this.#discard(this.next);
    this.next = { bitmap, message, receivedUs, decodedUs: this.link.nowUs() };
    if (found) {
      this.found = found;
      this.version += 1;
    }
    if (document.hidden) this.takeNext(); // nothing is drawn in a hidden page, and the server waits
  }

  #countDrops({ seq, kind }) {
    // In sync mode the model leaves frames out: they are no loss of the delivery.
    if (this.lastSeq >= 0 && seq > this.lastSeq + 1 && kind !== SYNCED) this.images.drop(performance.now(), seq - this.lastSeq - 1);
    this.lastSeq = seq;
  }

  #discard(/** @type {Shown} */ image) {
    image.bitmap.close();
    this.images.drop(performance.now(), 1);
    this.#acknowledge(image.message);
  }

  /** The image to draw now; called once per drawn frame of the screen. */
  takeNext() {
    const next = this.next;
    if (!next) return this.shown;
    this.next = null;
    this.shown?.bitmap.close();
    this.shown = next;
    const shownUs = this.link.nowUs();
    this.images.add(performance.now(), stagesOf(next.message, { ...next, shownUs }));
    this.#acknowledge(next.message, (shownUs - next.message.capturedUs) / 1e3, (next.decodedUs - next.receivedUs) / 1e3);
    return next;
  }

  /**
   * @param {import("./protocol.js").Message} message
   * @param {number} [ageMs]
   * @param {number} [decodeMs]
   */
  #acknowledge({ cam, seq, kind }, ageMs, decodeMs) {
    const what = kind === MASKS ? "masks" : "video";
    const times = ageMs === undefined ? {} : { age_ms: rounded(ageMs), decode_ms: rounded(decodeMs ?? 0) };
    this.link.send({ type: "ack", cam, seq, what, ...times });
  }

  get frozen() {
    return this.frozenAtMs > 0;
  }

  /** @param {boolean} on */
  freeze(on) {
    this.frozenAtMs = on ? performance.now() : 0;
    if (on && this.next) this.takeNext();
  }

  /** Age of the image that is shown, milliseconds. */
  ageMs() {
    return this.shown ? Math.max(0, (this.link.nowUs() - this.shown.message.capturedUs) / 1e3) : NaN;
  }

  /** How far the masks are behind the image, milliseconds. */
  behindMs() {
    if (!this.shown || !this.found) return NaN;
    return Math.max(0, (this.shown.message.capturedUs - this.found.message.capturedUs) / 1e3);
  }

  /**
   * What may be said of the image that is shown.
   * @returns {{name: "waiting" | "reconnecting" | "ended" | "frozen" | "stale" | "delayed" | "still" | "playing" | "live", ageMs: number}}
   */
  state() {
    const ageMs = this.ageMs();
    const of = (/** @type {any} */ name) => ({ name, ageMs });
    if (this.link.state === "ended") return of("ended");
    if (this.link.state !== "open") return of("reconnecting");
    if (!this.shown) return of("waiting");
    if (this.frozen) return { name: "frozen", ageMs: performance.now() - this.frozenAtMs };
    if (this.cam.still) return of("still");
    if (!this.cam.live) return of(this.#silent() ? "stale" : "playing");
    if (ageMs < STALE_MS) return of("live");
    // With its own masks an image is as old as the model is slow: it is not live, and not stuck.
    return of(this.wish.mode === "sync" && !this.#silent() ? "delayed" : "stale");
  }

  /** Whether the next image is overdue: nothing for a second and three times the usual pause. */
  #silent() {
    const { samples } = this.images;
    const last = samples.at(-1)?.atMs ?? 0;
    const first = samples.at(-10)?.atMs ?? samples[0]?.atMs ?? last;
    const pause = (last - first) / Math.max(1, Math.min(9, samples.length - 1));
    return performance.now() - last > Math.max(STALE_MS, 3 * pause);
  }
}

const rounded = (/** @type {number} */ ms) => Math.round(10 * ms) / 10;

/**
 * By capture, not by index: the source may have been opened again.
 * @param {import("./protocol.js").Message} a
 * @param {import("./protocol.js").Message} b
 */
const isOlder = (a, b) => a.capturedUs < b.capturedUs;

/**
 * @param {import("./protocol.js").Message} message
 * @returns {Promise<Found>}
 */
async function readFound(message) {
  const map = readLabelMap(await inflate(message.mask));
  const detections = message.meta.dets.map((/** @type {number[]} */ [word, score, track, ...box], /** @type {number} */ k) => ({
    word, score, track, box, label: k < 255 ? k + 1 : 0,
  }));
  return { message, map, detections };
}
