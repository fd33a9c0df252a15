// Keys, and the table of them that the help shows.

/**
 * @typedef {object} Key
 * @property {string} shown as the help shows it
 * @property {string} what
 * @property {(event: KeyboardEvent) => boolean} is
 * @property {(event: KeyboardEvent) => void} act
 */

const letter = (/** @type {string} */ key) => (/** @type {KeyboardEvent} */ event) => event.key.toLowerCase() === key && !event.ctrlKey && !event.metaKey && !event.altKey;
const digit = (/** @type {KeyboardEvent} */ event) => /^Digit[1-9]$/.test(event.code) && !event.ctrlKey && !event.metaKey && !event.altKey;
const number = (/** @type {KeyboardEvent} */ event) => Number(event.code.slice(-1));

/**
 * @param {any} app
 * @returns {Key[]}
 */
export function keysOf(app) {
  const { settings, words } = app;
  const layer = (/** @type {string} */ key, /** @type {string} */ name, /** @type {string} */ what) => ({ shown: key.toUpperCase(), what, is: letter(key), act: () => settings.toggle(name) });
  const word = (/** @type {KeyboardEvent} */ event) => words.list[number(event) - 1];
  return [
    { shown: "/", what: "add a word", is: (event) => event.key === "/", act: () => app.focusField() },
    { shown: "1–9", what: "show or hide a word", is: (event) => digit(event) && !event.shiftKey, act: (event) => word(event) && words.toggleShown(word(event)) },
    { shown: "Shift 1–9", what: "show only this word", is: (event) => digit(event) && event.shiftKey, act: (event) => word(event) && words.toggleSolo(word(event)) },
    { shown: "[ ]", what: "threshold of the selected word", is: (event) => event.key === "[" || event.key === "]", act: (event) => app.stepThreshold(event.key === "]" ? 0.05 : -0.05) },
    { shown: "Space", what: "freeze the camera, the run goes on", is: (event) => event.key === " ", act: () => app.chosen?.freeze() },
    layer("m", "masks", "masks"),
    layer("o", "outline", "outlines"),
    layer("b", "boxes", "boxes"),
    layer("l", "labels", "labels"),
    layer("t", "ids", "track ids"),
    layer("y", "trails", "trails"),
    layer("z", "zones", "zones"),
    { shown: "V", what: "view: instances, semantic, panoptic", is: letter("v"), act: () => app.nextView() },
    layer("g", "graph", "latency graph"),
    { shown: "S", what: "snapshot", is: letter("s"), act: () => app.chosen && app.act.snapshot(app.chosen) },
    { shown: "R", what: "record", is: letter("r"), act: () => app.chosen && app.act.record(app.chosen) },
    { shown: "F", what: "full screen", is: letter("f"), act: () => app.fullScreen() },
    { shown: "← →", what: "another camera", is: (event) => /^Arrow(Left|Right)$/.test(event.key), act: (event) => app.step(event.key === "ArrowRight" ? 1 : -1) },
    { shown: "Enter", what: "enlarge the camera", is: (event) => event.key === "Enter", act: () => app.chosen && app.act.enlarge(app.chosen) },
    { shown: "Esc", what: "unpin, leave a field, all cameras", is: (event) => event.key === "Escape", act: () => app.escape() },
    { shown: "Ctrl Z", what: "undo", is: (event) => event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey), act: () => app.history.undo() },
    { shown: "?", what: "these keys", is: (event) => event.key === "?", act: () => app.help() },
  ];
}

/**
 * @param {any} app
 * @param {Key[]} keys
 */
export function listen(app, keys) {
  document.addEventListener("keydown", (event) => {
    const { target } = event;
    if (!(target instanceof HTMLElement) || document.querySelector("dialog[open]")) return;
    const field = target.matches("input:not([type=checkbox], [type=range], [type=color]), select, textarea");
    if (field) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (app.chosen?.editor.key(event.key)) return event.preventDefault();
    const control = target.closest("button, a, summary, input");
    // A control's own keys are its own.
    if (control && ["Enter", " "].includes(event.key)) return;
    if (control instanceof HTMLInputElement && event.key.startsWith("Arrow")) return;
    const key = keys.find(({ is }) => is(event));
    const single = event.key.length === 1 && !event.ctrlKey && !event.metaKey;
    if (!key || (single && !app.settings.get("letters") && event.key !== "?")) return;
    event.preventDefault();
    key.act(event);
  });
}
