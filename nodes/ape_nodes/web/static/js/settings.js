// What this browser remembers of how to show things; nothing of it goes to the server.

const KEY = "ape-stream.settings";

/** @type {Record<string, boolean | number | string>} */
const DEFAULTS = {
  image: true,
  masks: true,
  outline: true,
  boxes: false,
  labels: true,
  ids: true,
  trails: false,
  zones: true,
  fill: "tint", // tint, blur, pixelate
  opacity: 0.45,
  colours: "word", // word, track, region
  mode: "live", // live, sync
  view: "instances", // instances, semantic, panoptic
  codec: "auto", // auto, jpeg, h264
  letters: true, // single letters are keys
  speak: false, // say what is seen
  graph: false,
};

export class Settings extends EventTarget {
  constructor() {
    super();
    this.values = { ...DEFAULTS, ...read() };
  }

  /** @param {string} name */
  get(name) {
    return this.values[name];
  }

  /**
   * @param {string} name
   * @param {boolean | number | string} value
   */
  set(name, value) {
    if (this.values[name] === value) return;
    this.values[name] = value;
    try {
      localStorage.setItem(KEY, JSON.stringify(this.values));
    } catch {
      // A browser may forbid it: then it is forgotten.
    }
    this.dispatchEvent(new CustomEvent("change", { detail: name }));
  }

  /** @param {string} name */
  toggle(name) {
    this.set(name, !this.values[name]);
  }

  /**
   * Make a form's control show and change a setting.
   * @param {HTMLInputElement | HTMLSelectElement} control its name is the setting's
   */
  bind(control) {
    const box = control instanceof HTMLInputElement && control.type === "checkbox" ? control : null;
    const show = () => (box ? (box.checked = Boolean(this.get(control.name))) : (control.value = String(this.get(control.name))));
    control.addEventListener("input", () => this.set(control.name, box ? box.checked : control.type === "range" ? Number(control.value) : control.value));
    this.addEventListener("change", show);
    show();
  }
}

function read() {
  try {
    const known = Object.entries(JSON.parse(localStorage.getItem(KEY) ?? "{}"));
    return Object.fromEntries(known.filter(([name, value]) => typeof value === typeof DEFAULTS[name]));
  } catch {
    return {};
  }
}
