// The camera of this device as a source: JPEGs over the page's socket, the newest one only.

import { packCameraImage } from "./protocol.js";

const FPS = 15;
const QUALITY = 0.8;
const LONGEST_SIDE = 960;
const MOST_BYTES = 1 << 20;

/** Why a camera cannot be used here; empty: it can. */
export function whyNoCamera() {
  if (!isSecureContext) return "Browsers give a camera only to pages over https or on this machine: start with --tls.";
  if (!navigator.mediaDevices?.getUserMedia) return "This browser gives no camera to pages.";
  return "";
}

export class DeviceCamera {
  /**
   * @param {import("./link.js").Link} link
   * @param {(why: string) => void} changed it is sent now, or no longer; why not, empty if somebody wished so
   */
  constructor(link, changed) {
    this.link = link;
    this.changed = changed;
    this.video = document.createElement("video");
    this.video.muted = this.video.playsInline = true;
    this.canvas = new OffscreenCanvas(1, 1);
    /** Camera that it is sent as; -1: none. */
    this.cam = -1;
    this.seq = 0;
  }

  /**
   * @param {number} cam
   * @param {"user" | "environment"} facing
   */
  async start(cam, facing) {
    if (this.starting) return; // a second press: the first one's camera would stay on
    this.starting = true;
    try {
      await this.#start(cam, facing);
    } finally {
      this.starting = false;
    }
  }

  /**
   * @param {number} cam
   * @param {"user" | "environment"} facing
   */
  async #start(cam, facing) {
    try {
      this.media = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing, width: { ideal: LONGEST_SIDE }, frameRate: { ideal: 2 * FPS } } });
      this.video.srcObject = this.media;
      await this.video.play();
    } catch (error) {
      return this.#end(`The camera was not given: ${error instanceof Error ? error.message : error}`);
    }
    const answer = await this.#say(cam, true);
    if (answer.type !== "ok") return this.#end(answer.reason);
    this.cam = cam;
    for (const track of this.media.getTracks()) track.onended = () => this.stop("The camera gives no more images.");
    this.timer = setInterval(() => this.#send(), 1e3 / FPS);
    this.changed("");
  }

  /** Over a new connection the server has to be told again whose images come. */
  async resume() {
    if (this.cam < 0) return;
    const answer = await this.#say(this.cam, true);
    // Where the connection is lost already, the next one tries again.
    if (answer.type !== "ok" && this.link.state === "open") this.#end(answer.reason);
  }

  /** @param {string} [why] */
  async stop(why = "") {
    if (this.cam >= 0) await this.#say(this.cam, false);
    this.#end(why);
  }

  /**
   * @param {number} cam
   * @param {boolean} on
   */
  #say(cam, on) {
    return this.link.ask({ type: "camera", cam, on });
  }

  /** @param {string} why */
  #end(why) {
    clearInterval(this.timer);
    this.cam = -1;
    this.#release();
    this.changed(why);
  }

  #release() {
    for (const track of this.media?.getTracks() ?? []) track.stop();
    this.video.srcObject = null;
  }

  async #send() {
    // While the last image is not yet out a newer one would only wait behind it.
    if (this.busy || this.link.queued > 0 || !this.video.videoWidth) return;
    this.busy = true;
    try {
      const part = Math.min(1, LONGEST_SIDE / Math.max(this.video.videoWidth, this.video.videoHeight));
      const [width, height] = [this.video.videoWidth, this.video.videoHeight].map((side) => Math.round(part * side));
      if (this.canvas.width !== width || this.canvas.height !== height) [this.canvas.width, this.canvas.height] = [width, height];
      this.canvas.getContext("2d")?.drawImage(this.video, 0, 0, width, height);
      const capturedUs = 1e3 * performance.now();
      const jpeg = await (await this.canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY })).arrayBuffer();
      if (this.cam >= 0 && jpeg.byteLength <= MOST_BYTES) this.link.send(packCameraImage(this.cam, this.seq++, capturedUs, jpeg));
    } finally {
      this.busy = false;
    }
  }
}
