// What can be undone, across words and zones.

const MOST = 50;

export class History extends EventTarget {
  constructor() {
    super();
    /** @type {{label: string, undo: () => void}[]} */
    this.steps = [];
  }

  /**
   * @param {string} label what was done
   * @param {() => void} undo
   */
  push(label, undo) {
    this.steps.push({ label, undo });
    if (this.steps.length > MOST) this.steps.shift();
    this.dispatchEvent(new Event("change"));
  }

  /** What would be undone next; empty: nothing. */
  get label() {
    return this.steps.at(-1)?.label ?? "";
  }

  undo() {
    const step = this.steps.pop();
    this.dispatchEvent(new Event("change"));
    step?.undo();
  }
}
