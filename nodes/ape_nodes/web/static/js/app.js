// The page: cameras, words, zones and numbers around one connection.

import { canDecodeH264 } from "./decode.js";
import { Describer } from "./describe.js";
import { DeviceCamera, whyNoCamera } from "./device.js";
import { byId, element, notice, setText } from "./dom.js";
import { Graph, legend } from "./graph.js";
import { History } from "./history.js";
import { keysOf, listen } from "./keys.js";
import { Link, enter } from "./link.js";
import { saveHere } from "./save.js";
import { Settings } from "./settings.js";
import { showImage, takeDropped } from "./still.js";
import { Stream } from "./stream.js";
import { Tile } from "./tile.js";
import { WordPanel, bindSets } from "./word-panel.js";
import { fromLink, sameRows, toLink } from "./wordlist.js";
import { Words, rowsOf } from "./words.js";
import { ZonePanel } from "./zone-panel.js";
import { Zones } from "./zones.js";

const STATUS_MS = 200;
const SLOW_MS = 500;
const VIEWS = ["instances", "semantic", "panoptic"];
const LINK_NAMES = { connecting: "Connecting", open: "Connected", lost: "Reconnecting", ended: "Ended", denied: "Token needed" };

export class App {
  constructor() {
    this.settings = new Settings();
    this.history = new History();
    this.link = new Link({ json: (message) => this.#json(message), binary: (message) => this.tiles[message.cam]?.stream.receive(message), state: (state, why) => this.#state(state, why) });
    this.words = new Words(this.link, this.history);
    /** @type {string[]} */
    this.palette = [];
    this.panel = new WordPanel(this.words, () => this.palette);
    this.zonePanel = new ZonePanel(() => this.role === "control");
    this.describer = new Describer(this.settings);
    this.device = new DeviceCamera(this.link, (why) => this.#sending(why));
    /** @type {Tile[]} */
    this.tiles = [];
    /** @type {Tile | null} */
    this.chosen = null;
    /** @type {Tile | null} */
    this.large = null;
    this.role = "view";
    /** @type {Record<string, any>} */
    this.can = {};
    this.h264 = false;
    const painter = new URLSearchParams(location.search).get("painter") ?? "";
    this.painter = /** @type {"auto" | "webgl" | "2d"} */ (["webgl", "2d"].includes(painter) ? painter : "auto");
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.act = { snapshot: this.#snapshot.bind(this), record: this.#record.bind(this), enlarge: this.#enlarge.bind(this), choose: this.#choose.bind(this) };
    this.graphs = ["image", "masks"].map((what) => new Graph(byId(`${what}-graph`), byId(`${what}-latency`), what === "image" ? "Images" : "Masks"));
    this.#bind();
  }

  async start() {
    this.h264 = await canDecodeH264();
    const entered = await enter();
    if (!entered.ok && !(await fetch("/api/stats")).ok) this.#login(entered.reason);
    else this.link.open();
    const frame = () => {
      for (const tile of this.tiles) if (!tile.node.hidden) tile.frame();
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    setInterval(() => this.#status(), STATUS_MS);
    setInterval(() => this.#slow(), SLOW_MS);
  }

  // -- messages -----------------------------------------------------------------------------

  #json(message) {
    const tile = this.tiles[message.cam];
    switch (message.type) {
      case "welcome": return this.#welcome(message);
      case "state": return this.#words(message);
      case "cam":
        tile.stream.sourceState = message.state;
        tile.stream.recording = Boolean(message.recording);
        return;
      case "zones": return tile.zones.receive(message);
      case "stats": return setText(byId("viewers"), message.viewers === 1 ? "1 viewer" : `${message.viewers} viewers`);
      case "event": return this.#event(message);
      case "error": return message.id == null && notice(message.reason, { kind: "error" });
    }
  }

  #welcome({ role, cams, can, palette, blur }) {
    this.role = role;
    this.can = can;
    this.palette = palette ?? [];
    this.words.mayEdit = role === "control";
    setText(byId("role"), role === "control" ? "" : "view only");
    setText(byId("blurred"), blur?.length ? `Blurred by the server: ${blur.join(", ")}` : "");
    const names = JSON.stringify(cams.map((/** @type {any} */ cam) => [cam.name, cam.live, cam.browser, cam.still]));
    if (names === this.names) this.tiles.forEach((tile) => tile.stream.restart());
    else this.#build(cams);
    this.names = names;
    this.#device(cams);
    byId("still-panel").hidden = !this.tiles.some(({ stream }) => stream.cam.still);
    for (const name of ["still-file", "still-look", "still-everywhere"]) byId(name).disabled = role !== "control";
    byId("view").disabled = !can.maps;
    byId("view").title = can.maps ? "" : "This model makes no maps of every pixel";
    this.tiles.forEach((tile) => tile.subscribe());
  }

  #build(cams) {
    this.tiles = cams.map((/** @type {any} */ cam) => new Tile(new Stream(cam, this.link), new Zones(cam.id, this.link, this.history), this));
    const grid = byId("grid");
    grid.replaceChildren(...this.tiles.map(({ node }) => node));
    grid.style.setProperty("--columns", String(Math.ceil(Math.sqrt(cams.length))));
    this.large = null;
    if (this.tiles.length) this.#choose(this.tiles[0]);
    for (const tile of this.tiles) {
      tile.bigButton.hidden = cams.length < 2;
      if (tile.stream.cam.still) takeDropped(tile.node, (file) => this.#showImage(tile, file));
      tile.status();
    }
  }

  #words(message) {
    this.words.receive(message);
    const link = toLink(rowsOf(this.words.list));
    if (!this.offered) {
      this.offered = true;
      const wished = fromLink(/(?:^#|&)w=([^&]*)/.exec(location.hash)?.[1] ?? "");
      if (wished.length && !sameRows(wished, rowsOf(this.words.list))) return this.#offer(wished, link);
    }
    history.replaceState(null, "", `${location.pathname}${location.search}#w=${link}`);
  }

  /** A link's words are used only when somebody says so: others may be looking. */
  #offer(wished, link) {
    const keep = () => history.replaceState(null, "", `${location.pathname}${location.search}#w=${link}`);
    const texts = wished.map(({ text }) => text).join(", ");
    if (!this.words.mayEdit) return keep();
    notice(`The link has other words: ${texts}.`, { actions: [["Use them", () => this.words.replace(wished, "words of the link")], ["Keep the present ones", keep]] });
  }

  #event({ event, zone, prompt, track, stream }) {
    const what = { entered: "entered", left: "left", crossed_in: "crossed in", crossed_out: "crossed out" }[event] ?? event;
    const list = byId("events");
    list.prepend(element("li", {}, `${new Date().toLocaleTimeString()} ${stream}: ${prompt} #${track} ${what} ${zone}`));
    while (list.children.length > 20) list.lastElementChild.remove();
    byId("events-panel").hidden = false;
  }

  #state(state, why) {
    byId("connection").dataset.state = state;
    setText(byId("connection"), LINK_NAMES[state]);
    if (state === "ended") notice(`The run is over: ${why}.`);
    if (state === "denied") this.#login("the token is no longer valid");
    this.tiles.forEach((tile) => tile.status());
  }

  #login(reason) {
    const dialog = byId("login");
    setText(byId("login-reason"), reason);
    if (!dialog.open) dialog.showModal();
  }

  // -- now and then -------------------------------------------------------------------------

  #status() {
    const counts = new Map();
    for (const tile of this.tiles) {
      tile.status();
      tile.cardStatus();
      const counted = tile.stream.found?.message.meta.counts;
      if (counted && counted !== tile.zones.counts) tile.zones.count(counted);
      for (const { word } of /** @type {any[]} */ (tile.things)) counts.set(word, (counts.get(word) ?? 0) + 1);
    }
    this.panel.count(counts);
  }

  #slow() {
    this.describer.update(this.tiles);
    const { chosen } = this;
    if (!chosen || !byId("graph-panel").open || document.hidden) return;
    this.graphs[0].draw(chosen.stream.images);
    this.graphs[1].draw(chosen.stream.wish.mode === "sync" ? chosen.stream.images : chosen.stream.masks);
  }

  // -- what somebody does -------------------------------------------------------------------

  async #snapshot(tile) {
    if (!this.can.snapshot || this.role !== "control") return saveHere(tile);
    const answer = await this.link.ask({ type: "snapshot", cam: tile.stream.cam.id });
    notice(answer.type === "ok" ? `Snapshot: ${answer.file}` : `No snapshot: ${answer.reason}`, { kind: answer.type === "ok" ? "info" : "error" });
  }

  async #record(tile) {
    if (!this.can.record || this.role !== "control") return notice("This server does not record, or your token may only look.", { kind: "error" });
    const on = !tile.stream.recording;
    const answer = await this.link.ask({ type: "record", cam: tile.stream.cam.id, on, overlay: byId("record-overlay").checked });
    if (answer.type !== "ok") return notice(`Recording: ${answer.reason}`, { kind: "error" });
    notice(on ? "Recording" : "Recording has ended");
  }

  async #showImage(tile, file) {
    const why = await showImage(this.link, tile.stream.cam.id, file);
    if (why) notice(why, { kind: "error" });
  }

  /** The still image that a control of the page speaks of. */
  get stillTile() {
    return this.chosen?.stream.cam.still ? this.chosen : this.tiles.find(({ stream }) => stream.cam.still);
  }

  #lookHere(byPointer) {
    if (!this.stillTile) return;
    this.#choose(this.stillTile);
    this.zonePanel.begin("look", byPointer);
  }

  #choose(tile) {
    if (this.chosen === tile) return;
    this.chosen?.node.classList.remove("chosen");
    this.chosen = tile;
    tile.node.classList.toggle("chosen", this.tiles.length > 1);
    this.zonePanel.show(tile);
  }

  #enlarge(tile) {
    if (this.tiles.length < 2) return;
    this.large = this.large ? null : tile;
    for (const other of this.tiles) other.node.hidden = this.large !== null && other !== tile;
    byId("grid").classList.toggle("single", this.large !== null);
    this.#choose(tile);
    this.tiles.forEach((other) => other.subscribe());
  }

  step(/** @type {number} */ by) {
    const at = this.tiles.indexOf(/** @type {Tile} */ (this.chosen));
    const next = this.tiles[(at + by + this.tiles.length) % this.tiles.length];
    if (!next) return;
    const { large } = this;
    if (large && large !== next) {
      this.#enlarge(large);
      this.#enlarge(next);
    }
    this.#choose(next);
  }

  escape() {
    if (this.chosen?.pinned) this.chosen.pin(0);
    else if (this.large) this.#enlarge(this.large);
  }

  stepThreshold(/** @type {number} */ by) {
    this.panel.stepThreshold(by);
  }

  nextView() {
    if (this.can.maps) this.settings.set("view", VIEWS[(VIEWS.indexOf(String(this.settings.get("view"))) + 1) % VIEWS.length]);
  }

  focusField() {
    byId("new-word").focus();
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.chosen?.node.requestFullscreen?.();
  }

  help() {
    byId("help").showModal();
  }

  // -- the page's controls ------------------------------------------------------------------

  #bind() {
    for (const control of document.querySelectorAll("[data-setting]")) this.settings.bind(/** @type {any} */ (control));
    this.settings.addEventListener("change", () => {
      this.tiles.forEach((tile) => (tile.version++, tile.subscribe()));
      byId("graph-panel").open = Boolean(this.settings.get("graph"));
    });
    byId("graph-panel").open = Boolean(this.settings.get("graph"));
    byId("graph-panel").addEventListener("toggle", () => this.settings.set("graph", byId("graph-panel").open));
    byId("legend").replaceChildren(...legend().map(([name, colour]) => {
      const swatch = element("i", {});
      swatch.style.background = colour;
      return element("li", {}, swatch, name);
    }));
    const undo = byId("undo");
    undo.addEventListener("click", () => this.history.undo());
    this.history.addEventListener("change", () => {
      undo.disabled = !this.history.label;
      undo.title = this.history.label ? `Undo: ${this.history.label}` : "Nothing to undo";
    });
    byId("copy-link").addEventListener("click", () => this.#copyLink());
    byId("help-button").addEventListener("click", () => this.help());
    byId("still-file").addEventListener("change", ({ target }) => {
      if (this.stillTile && target.files[0]) this.#showImage(this.stillTile, target.files[0]);
      target.value = ""; // the same one may be chosen again
    });
    byId("still-save").addEventListener("click", () => this.stillTile && saveHere(this.stillTile));
    byId("still-look").addEventListener("click", (/** @type {MouseEvent} */ event) => this.#lookHere(event.detail > 0));
    byId("still-everywhere").addEventListener("click", () => this.stillTile?.zones.lookEverywhere());
    const keys = keysOf(this);
    byId("keys").replaceChildren(...keys.map(({ shown, what }) => element("tr", {}, element("td", {}, element("kbd", {}, shown)), element("td", {}, what))));
    listen(this, keys);
    byId("login-form").addEventListener("submit", (/** @type {Event} */ event) => (event.preventDefault(), this.#enterAgain()));
    bindSets(this.words, (rows) => this.words.replace(rows, "another set"), { toLink, fromLink, rows: () => rowsOf(this.words.list) });
  }

  async #enterAgain() {
    const { ok, reason } = await enter(byId("token").value.trim());
    if (!ok) return setText(byId("login-reason"), reason);
    byId("login").close();
    this.link.open();
  }

  async #copyLink() {
    try {
      await navigator.clipboard.writeText(location.href);
      notice("The link is copied. Whoever opens it needs a token of this server.");
    } catch {
      notice(`Copy this link: ${location.href}`); // plain http has no clipboard
    }
  }

  #device(cams) {
    const panel = byId("device-panel");
    const free = cams.filter((/** @type {any} */ cam) => cam.browser);
    panel.hidden = !free.length || this.role !== "control";
    if (panel.hidden) return;
    byId("device-cam").replaceChildren(...free.map((/** @type {any} */ cam) => element("option", { value: cam.id }, cam.name)));
    const why = whyNoCamera();
    this.#sending(why);
    const button = byId("device-start");
    button.disabled = Boolean(why);
    button.onclick = () => this.device.cam >= 0 ? this.device.stop() : this.device.start(Number(byId("device-cam").value), byId("device-facing").value);
    this.device.resume();
  }

  /** @param {string} why this device's camera is not sent, where it should be */
  #sending(why) {
    setText(byId("device-why"), why);
    setText(byId("device-start"), this.device.cam >= 0 ? "Stop sending" : "Send this camera");
  }
}
