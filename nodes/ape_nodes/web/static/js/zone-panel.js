// The list of zones of the chosen camera in the side pane.

import { byId, element, iconButton, setText } from "./dom.js";
import { countsText } from "./zones.js";

const SHAPE = "Click points on the image, or hold and draw around it. Enter or a click on the first point ends, Esc gives up.";
const DRAWING = { area: SHAPE, look: SHAPE, line: "Click both ends on the image. Esc gives up." };

export class ZonePanel {
  /** @param {() => boolean} mayEdit */
  constructor(mayEdit) {
    this.mayEdit = mayEdit;
    this.panel = byId("zone-panel");
    this.list = byId("zones");
    /** @type {import("./tile.js").Tile | null} */
    this.tile = null;
    this.listener = () => this.update();
    for (const kind of /** @type {("area" | "line" | "look")[]} */ (["area", "line", "look"]))
      byId(`add-${kind}`).addEventListener("click", (/** @type {MouseEvent} */ event) => this.begin(kind, event.detail > 0));
    this.panel.addEventListener("toggle", () => this.tile?.editor.setOpen(this.panel.open && this.mayEdit()));
  }

  /**
   * @param {"area" | "line" | "look"} kind
   * @param {boolean} byPointer
   */
  begin(kind, byPointer) {
    this.panel.open = true;
    this.tile?.editor.setOpen(true);
    this.tile?.editor.begin(kind, byPointer);
  }

  /** @param {import("./tile.js").Tile} tile */
  show(tile) {
    if (tile === this.tile) return;
    this.tile?.zones.removeEventListener("change", this.listener);
    this.tile?.editor.setOpen(false);
    this.tile = tile;
    tile.zones.addEventListener("change", this.listener);
    tile.editor.setOpen(this.panel.open && this.mayEdit());
    this.shape = "";
    this.update();
  }

  update() {
    const { tile } = this;
    if (!tile) return;
    const { zones } = tile;
    this.panel.hidden = !zones.known;
    byId("zone-tools").hidden = !this.mayEdit();
    setText(byId("zone-hint"), zones.draft ? DRAWING[zones.draft.kind] : `Zones of ${tile.stream.cam.name}`);
    const shape = JSON.stringify([zones.zones, this.mayEdit()]);
    // Rebuilt only for another list: a field that is being typed into stays.
    if (shape !== this.shape) {
      this.shape = shape;
      const focused = this.list.contains(document.activeElement) ? [...this.list.querySelectorAll("button, input")].indexOf(document.activeElement) : -1;
      this.list.replaceChildren(...zones.zones.map((zone, k) => this.#row(zone, k)));
      if (focused >= 0) /** @type {HTMLElement} */ ([...this.list.querySelectorAll("button, input")][focused] ?? byId("add-area")).focus();
    }
    zones.zones.forEach(({ name, kind }, k) => {
      const row = this.list.children[k];
      row.classList.toggle("selected", k === zones.chosen);
      setText(row.querySelector("output"), kind === "look" ? "only what is inside is shown and counted" : countsText(zones.counts[name]) || "nothing counted yet");
    });
  }

  #row(zone, position) {
    const zones = /** @type {import("./tile.js").Tile} */ (this.tile).zones;
    const disabled = !this.mayEdit();
    const name = element("input", { type: "text", maxlength: 64, "aria-label": `Name of ${zone.name}`, disabled, focus: () => zones.choose(position), change: () => name.value.trim() && zones.update(position, { name: name.value.trim() }) });
    name.value = zone.name;
    const prompts = element("input", { type: "text", placeholder: "all words", "aria-label": `Words that count in ${zone.name}`, disabled, change: () => zones.update(position, { prompts: prompts.value.split(",").map((/** @type {string} */ text) => text.trim()).filter(Boolean) }) });
    prompts.value = zone.prompts.join(", ");
    const turn = zone.kind === "line" ? [iconButton("reset", `Swap in and out of ${zone.name}`, () => zones.update(position, { points: [...zone.points].reverse() }), { disabled })] : [];
    return element("li", { class: "zone" },
      element("div", { class: "zone-head" }, name, ...turn, iconButton("close", `Remove ${zone.name}`, () => zones.remove(position), { disabled })),
      prompts,
      element("output", {}));
  }
}
