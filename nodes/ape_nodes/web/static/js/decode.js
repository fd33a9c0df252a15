// Images of one camera, decoded; the newest one wins.

/**
 * @typedef {ImageBitmap | VideoFrame} Bitmap whoever takes one closes it
 */

/**
 * @param {Uint8Array<ArrayBuffer>} jpeg
 * @returns {Promise<Bitmap>}
 */
export async function decodeJpeg(jpeg) {
  const type = "image/jpeg";
  // Never there on plain http. It takes the bytes as they are; a Blob goes through another process.
  if (!("ImageDecoder" in globalThis)) return createImageBitmap(new Blob([jpeg], { type }));
  const decoder = new ImageDecoder({ type, data: jpeg });
  try {
    return (await decoder.decode()).image;
  } finally {
    decoder.close();
  }
}

/** Whether H.264 can be decoded here: never on plain http, except on this machine. */
export async function canDecodeH264() {
  if (!("VideoDecoder" in globalThis)) return false;
  const { supported } = await VideoDecoder.isConfigSupported({ codec: "avc1.42c01f" }).catch(() => ({ supported: false }));
  return Boolean(supported);
}

/** H.264 in Annex B, unit by unit. */
export class H264Decoder {
  /** @param {(why: string) => void} failed called once: JPEG must take over */
  constructor(failed) {
    this.failed = failed;
    this.codec = "";
    /** @type {VideoDecoder | null} */
    this.decoder = null;
    /** By the number of their unit. @type {Map<number, (frame: VideoFrame | null) => void>} */
    this.waiting = new Map();
    // Not `seq`: a frame comes twice where the width changes, and each unit must be acknowledged.
    this.units = 0;
  }

  /**
   * @param {import("./protocol.js").Message} message
   * @returns {Promise<VideoFrame | null>} null: it needs an earlier unit that never came
   */
  decode({ key, meta, image }) {
    if (this.codec !== meta.codec || !this.decoder) {
      if (!key) return Promise.resolve(null);
      this.#configure(meta.codec);
    }
    const timestamp = this.units++;
    return new Promise((resolve) => {
      this.waiting.set(timestamp, resolve);
      this.decoder.decode(new EncodedVideoChunk({ type: key ? "key" : "delta", timestamp, data: image }));
    });
  }

  #configure(/** @type {string} */ codec) {
    this.close();
    this.codec = codec;
    this.decoder = new VideoDecoder({ output: (frame) => this.#decoded(frame), error: (error) => this.#broken(error) });
    this.decoder.configure({ codec, optimizeForLatency: true });
  }

  #decoded(/** @type {VideoFrame} */ frame) {
    const resolve = this.waiting.get(frame.timestamp);
    this.waiting.delete(frame.timestamp);
    if (resolve) resolve(frame);
    else frame.close();
  }

  #broken(/** @type {Error} */ error) {
    this.close();
    this.failed(error.message);
  }

  close() {
    if (this.decoder && this.decoder.state !== "closed") this.decoder.close();
    this.decoder = null;
    for (const resolve of this.waiting.values()) resolve(null);
    this.waiting.clear();
  }
}
