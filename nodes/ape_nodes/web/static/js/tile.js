// One camera on the page: its image, what is drawn above it, its state, and what is pinned.

import { detectionColour, rgb, shade } from "./colours.js";
import { element, iconButton, scoreText, setIcon, setText } from "./dom.js";
import { Overlay } from "./overlay.js";
import { isAccelerated, painterFor } from "./painter.js";
import { ZoneEditor } from "./zone-editor.js";

const FOLLOW_PART = 0.45; // of the image's width that is seen while a thing is followed
const EASE = 0.2;
const LOST_MS = 2000;
const STATE_NAMES = {
  waiting: "WAITING", reconnecting: "RECONNECTING", ended: "ENDED", frozen: "FROZEN",
  stale: "STALE", delayed: "DELAYED", still: "IMAGE", playing: "PLAYING", live: "LIVE",
};
const OLD = new Set(["reconnecting", "ended", "stale"]);
const WHOLE = /** @type {[number, number, number, number]} */ ([0, 0, 1, 1]);

/**
 * @typedef {object} App what tiles share
 * @property {import("./link.js").Link} link
 * @property {import("./words.js").Words} words
 * @property {import("./settings.js").Settings} settings
 * @property {string[]} palette
 * @property {"auto" | "webgl" | "2d"} painter
 * @property {boolean} still fewer movements are preferred
 * @property {{snapshot: (tile: Tile) => void, record: (tile: Tile) => void, enlarge: (tile: Tile) => void, choose: (tile: Tile) => void}} act
 */

export class Tile {
  /**
   * @param {import("./stream.js").Stream} stream
   * @param {import("./zones.js").Zones} zones
   * @param {App} app
   */
  constructor(stream, zones, app) {
    this.stream = stream;
    this.zones = zones;
    this.app = app;
    this.pinned = 0; // track
    this.solo = false;
    this.following = false;
    this.pinnedAtMs = 0;
    this.view = WHOLE;
    this.version = 0;
    this.serial = 0;
    /** @type {import("./overlay.js").Drawn[]} */
    this.things = [];
    this.colours = new Uint8Array(1024);
    this.marked = new Uint8Array(256);
    this.#build();
    this.editor = new ZoneEditor(zones, this.stage, (event) => this.partOf(event));
    new ResizeObserver(() => this.#resize()).observe(this.stage);
  }

  #build() {
    const { app, stream } = this;
    const { name } = stream.cam;
    this.overlayCanvas = element("canvas", { class: "overlay", "aria-hidden": "true" });
    this.overlay = new Overlay(this.overlayCanvas, isAccelerated(app.painter));
    this.message = element("p", { class: "stage-message" });
    this.stage = element("div", { class: "stage" }, this.overlayCanvas, this.message);
    this.#useCanvas(app.painter);
    this.badge = element("span", { class: "badge" });
    this.maskBadge = element("span", { class: "badge quiet" });
    this.recBadge = element("span", { class: "badge rec", hidden: true }, "REC");
    this.freezeButton = iconButton("pause", "Freeze", () => this.freeze());
    this.photoButton = iconButton("photo", `Snapshot of ${name}`, () => app.act.snapshot(this));
    this.recordButton = iconButton("record", `Record ${name}`, () => app.act.record(this));
    this.bigButton = iconButton("big", `Enlarge ${name}`, () => app.act.enlarge(this));
    this.card = element("div", { class: "card", hidden: true });
    this.tools = element("div", { class: "tools" }, this.freezeButton, this.photoButton, this.recordButton, this.bigButton);
    const bar = element("header", { class: "tile-bar" }, element("h2", {}, name), this.badge, this.maskBadge, this.recBadge, this.tools);
    this.node = element("section", { class: "tile", "aria-label": `Camera ${name}` }, bar, this.stage, this.card);
    this.node.addEventListener("focusin", () => app.act.choose(this));
    this.node.addEventListener("pointerdown", () => app.act.choose(this));
    for (const button of [this.freezeButton, this.recordButton]) button.hidden = stream.cam.still;
    this.stage.addEventListener("click", (/** @type {PointerEvent} */ event) => this.#click(event));
    this.stage.addEventListener("dblclick", () => this.editor.drawing || app.act.enlarge(this));
  }

  #useCanvas(/** @type {App["painter"]} */ kind) {
    const canvas = element("canvas", { class: "image", role: "img", "aria-label": `Camera ${this.stream.cam.name}` });
    if (this.canvas) this.canvas.replaceWith(canvas);
    else this.stage.prepend(canvas);
    this.canvas = canvas;
    this.painter = painterFor(canvas, kind);
    // A graphics driver may be reset: what is then left is 2D.
    canvas.addEventListener("webglcontextlost", () => (this.#useCanvas("2d"), this.#resize()));
  }

  #resize() {
    const scale = devicePixelRatio;
    const { clientWidth, clientHeight } = this.stage;
    const [width, height] = [Math.round(clientWidth * scale), Math.round(clientHeight * scale)];
    if (!width || !height) return;
    for (const canvas of [this.overlayCanvas, this.canvas]) [canvas.width, canvas.height] = [width, height];
    this.version += 1;
    this.subscribe();
  }

  /** Ask for images as large as they are seen. */
  subscribe() {
    const { settings, h264, can } = /** @type {any} */ (this.app);
    const codec = settings.get("codec") === "jpeg" || !h264 || this.stream.cam.still ? "jpeg" : "h264";
    const view = can.maps ? settings.get("view") : "instances";
    this.stream.subscribe({ codec, mode: settings.get("mode"), view, max_w: Math.max(320, this.overlayCanvas.width) }, !this.node.hidden);
  }

  // -- drawing ------------------------------------------------------------------------------

  /** Once per frame of the screen: draw if anything has changed. */
  frame() {
    const { stream, app } = this;
    const image = stream.takeNext();
    if (!image) return;
    if (this.image !== image) {
      this.image = image;
      this.serial += 1;
      this.#shape(image.message.meta.size);
    }
    const grey = OLD.has(stream.state().name);
    // What lies above the image changes with the masks: images come more often.
    const above = [stream.version, app.words.version, this.zones.version, this.version].join();
    const state = [this.serial, above, grey].join();
    if (state === this.drawn && !this.following) return;
    this.drawn = state;
    const moved = above !== this.above || this.following;
    this.above = above;
    if (moved) this.#collect();
    if (moved) this.#follow();
    this.#paint(image, grey);
    if (!moved) return;
    const options = Object.fromEntries(["boxes", "labels", "ids", "trails", "zones"].map((name) => [name, app.settings.get(name)]));
    this.overlay.draw(this.things, /** @type {any} */ (options), this.zones.shapes(), this.view, devicePixelRatio);
  }

  #shape([height, width]) {
    const ratio = `${width} / ${height}`;
    if (this.ratio === ratio) return;
    this.ratio = ratio;
    this.stage.style.aspectRatio = ratio;
    this.node.style.setProperty("--ratio", String(width / height));
  }

  /** What of the newest masks is shown, and in which colour. */
  #collect() {
    const { app, stream } = this;
    const { found } = stream;
    const by = app.settings.get("colours");
    this.colours.fill(0);
    this.marked.fill(0);
    this.things = [];
    if (!found) return;
    const { size: [height, width], view } = found.message.meta;
    /** Segments so far, by word: each has a shade of its own. @type {Map<number, number>} */
    const segments = new Map();
    for (const detection of found.detections) {
      const word = app.words.get(detection.word);
      if (!word || !this.#isShown(word, detection)) continue;
      const nth = segments.get(word.id) ?? 0;
      segments.set(word.id, nth + 1);
      const own = detectionColour(word, by === "track" ? detection.track : by === "region" ? detection.label : 0, app.palette);
      const colour = view === "panoptic" && by !== "region" ? shade(own, nth) : own;
      const pinned = this.pinned > 0 && this.pinned === detection.track;
      if (pinned) this.pinnedAtMs = performance.now();
      const [x1, y1, x2, y2] = detection.box;
      this.things.push({ ...detection, text: word.text, colour, pinned, box: [x1 / width, y1 / height, x2 / width, y2 / height] });
      if (!detection.label) continue;
      this.colours.set([...rgb(colour), 255], 4 * detection.label);
      this.marked[detection.label] = Number(pinned);
    }
    if (this.followed !== found) {
      this.followed = found;
      this.overlay.follow(this.things, performance.now());
    }
  }

  #isShown(word, { track, score }) {
    if (this.pinned > 0 && this.pinned === track) return true;
    if (this.pinned > 0 && this.solo) return false;
    return this.app.words.isShown(word) && (score ?? 1) >= (word.threshold ?? 0);
  }

  /** Keep the pinned thing in the middle. */
  #follow() {
    const thing = this.following && this.things.find(({ pinned }) => pinned);
    if (this.following && !thing && performance.now() - this.pinnedAtMs > LOST_MS) this.pin(0);
    let aim = this.following ? this.view : WHOLE;
    if (thing) {
      const [x1, y1, x2, y2] = thing.box;
      const part = Math.min(1, Math.max(FOLLOW_PART, 1.5 * (x2 - x1), 1.5 * (y2 - y1)));
      const within = (/** @type {number} */ middle) => Math.min(1 - part, Math.max(0, middle - part / 2));
      aim = [within((x1 + x2) / 2), within((y1 + y2) / 2), part, part];
    }
    const ease = this.app.still || !this.following ? 1 : EASE;
    this.view = /** @type {any} */ (this.view.map((value, k) => value + ease * (aim[k] - value)));
  }

  #paint(image, grey) {
    const { settings } = this.app;
    this.painter.paint({
      bitmap: image.bitmap,
      serial: this.serial,
      map: this.stream.found?.map ?? null,
      colours: this.colours,
      marked: this.marked,
      fill: settings.get("masks") ? settings.get("fill") : "none",
      outline: settings.get("outline"),
      opacity: settings.get("opacity"),
      image: settings.get("image"),
      grey,
      view: this.view,
    });
  }

  // -- state --------------------------------------------------------------------------------

  /** A few times a second: what may be said of the image. */
  status() {
    const { stream } = this;
    const { name, ageMs } = stream.state();
    const late = ["stale", "delayed", "frozen"].includes(name);
    this.badge.dataset.state = name;
    setText(this.badge, late ? `${STATE_NAMES[name]} ${(ageMs / 1e3).toFixed(1)} s` : name === "live" ? `LIVE ${Math.round(ageMs)} ms` : STATE_NAMES[name]);
    this.stage.classList.toggle("old", OLD.has(name));
    const behind = stream.behindMs();
    const together = stream.wish.mode === "sync";
    this.maskBadge.hidden = !stream.shown || (stream.cam.still && behind === 0);
    setText(this.maskBadge, together ? "masks in step" : Number.isNaN(behind) ? "no masks yet" : stream.cam.still ? "finding masks" : `masks ${Math.round(behind)} ms behind`);
    this.maskBadge.classList.toggle("late", behind > 1000 && !together);
    this.recBadge.hidden = !stream.recording;
    setIcon(this.recordButton, stream.recording ? "stop" : "record", `${stream.recording ? "Stop recording" : "Record"} ${stream.cam.name}`);
    setIcon(this.freezeButton, stream.frozen ? "play" : "pause", `${stream.frozen ? "Go on showing" : "Freeze"} ${stream.cam.name}`);
    this.message.hidden = Boolean(stream.shown);
    setText(this.message, stream.cam.browser ? "No device sends its camera yet" : "Waiting for the first image");
    this.#describe();
  }

  #describe() {
    const text = `Camera ${this.stream.cam.name}: ${this.summary() || "nothing found"}`;
    if (this.canvas.getAttribute("aria-label") !== text) this.canvas.setAttribute("aria-label", text);
  }

  /** Such as "2 person, 1 dog". */
  summary() {
    const counts = new Map();
    for (const { text } of this.things) counts.set(text, (counts.get(text) ?? 0) + 1);
    return [...counts].map(([text, number]) => `${number} ${text}`).join(", ");
  }

  freeze() {
    this.stream.freeze(!this.stream.frozen);
    this.status();
  }

  // -- pointing -----------------------------------------------------------------------------

  /**
   * @param {MouseEvent} event
   * @returns {[number, number]} parts of the image
   */
  partOf(event) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    const [x, y, w, h] = this.view;
    const within = (/** @type {number} */ value) => Math.min(1, Math.max(0, value));
    return [within(x + ((event.clientX - left) / width) * w), within(y + ((event.clientY - top) / height) * h)];
  }

  #click(event) {
    if (event.target instanceof HTMLButtonElement || this.editor.click(event)) return;
    const thing = this.#thingAt(this.partOf(event));
    if (thing) this.pin(thing.track === this.pinned ? 0 : thing.track);
    else if (this.pinned) this.pin(0);
  }

  /** By mask, else the smallest box there. */
  #thingAt([x, y]) {
    const map = this.stream.found?.map;
    const label = map?.labels[Math.floor(y * map.height) * map.width + Math.floor(x * map.width)];
    const byMask = label && this.things.find((thing) => /** @type {any} */ (thing).label === label);
    if (byMask) return byMask;
    const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    const there = this.things.filter(({ box }) => box[0] <= x && x <= box[2] && box[1] <= y && y <= box[3]);
    return there.sort((a, b) => area(a) - area(b))[0];
  }

  /** @param {number} track 0: none; a thing without a track cannot be kept */
  pin(track) {
    this.pinned = Math.max(0, track);
    this.pinnedAtMs = performance.now();
    this.solo = this.following = false;
    this.version += 1;
    this.card.hidden = !this.pinned;
    if (!this.pinned) return;
    const toggle = (/** @type {"following" | "solo"} */ name, /** @type {string} */ text) => {
      const button = element("button", { type: "button", "aria-pressed": "false", click: () => {
        this[name] = !this[name];
        button.setAttribute("aria-pressed", String(this[name]));
        this.version += 1;
      } }, text);
      return button;
    };
    this.cardText = element("p", {});
    this.card.replaceChildren(this.cardText, toggle("following", "Follow"), toggle("solo", "Solo"), iconButton("close", "Unpin", () => this.pin(0)));
    this.cardStatus();
  }

  /** What is known of the pinned thing. */
  cardStatus() {
    if (!this.pinned || !this.cardText) return;
    const thing = this.things.find(({ pinned }) => pinned);
    const gone = Math.round((performance.now() - this.pinnedAtMs) / 1e3);
    setText(this.cardText, thing ? `${thing.text} #${this.pinned} · ${scoreText(thing.score)}` : `#${this.pinned} · gone for ${gone} s`);
  }
}
