// Small helpers around the document. Text is only ever put in as text.

/**
 * @param {string} id
 * @returns {any}
 */
export const byId = (id) => {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no ${id}`);
  return found;
};

/**
 * @param {string} tag
 * @param {Record<string, any>} [attributes] functions are listeners; null and false are left out
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, String(value));
  }
  made.append(...children);
  return made;
}

/** Strokes of 24 x 24 icons. @type {Record<string, string>} */
const ICONS = {
  eye: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7-10-7-10-7zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
  hidden: "M4 4l16 16M9.5 5.4A9 9 0 0 1 12 5c6 0 10 7 10 7a18 18 0 0 1-3 3.7M6 7.6A17 17 0 0 0 2 12s4 7 10 7a9 9 0 0 0 4-.9M10 10a3 3 0 0 0 4 4",
  power: "M12 3v8M6.5 6.5a8 8 0 1 0 11 0",
  close: "M6 6l12 12M18 6L6 18",
  reset: "M4 4v6h6M4.6 10A8 8 0 1 1 4 14",
  undo: "M8 5L3 10l5 5M3 10h11a6 6 0 0 1 0 12h-3",
  photo: "M3 7h4l2-3h6l2 3h4v12H3zM12 9a4 4 0 1 0 0 8 4 4 0 0 0 0-8z",
  record: "M12 5a7 7 0 1 0 0 14 7 7 0 0 0 0-14z",
  stop: "M6 6h12v12H6z",
  big: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  pause: "M8 5v14M16 5v14",
  play: "M7 4l13 8-13 8z",
  zones: "M4 6l9-3 7 7-4 10-10-2zM4 6h.01M13 3h.01M20 10h.01M16 20h.01M6 18h.01",
  follow: "M12 2v4M12 18v4M2 12h4M18 12h4M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z",
  solo: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
};

/**
 * @param {string} name of ICONS
 * @returns {SVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/**
 * A button with an icon and a name for tooltips and screen readers.
 * @param {string} name icon
 * @param {string} label
 * @param {(event: Event) => void} click
 * @param {Record<string, any>} [attributes]
 */
export function iconButton(name, label, click, attributes = {}) {
  return element("button", { type: "button", class: "icon-button", title: label, "aria-label": label, click, ...attributes }, icon(name));
}

/**
 * Change icon and name of a button that `iconButton` made, if they differ.
 * @param {HTMLElement} button
 * @param {string} name
 * @param {string} label
 */
export function setIcon(button, name, label) {
  if (button.getAttribute("aria-label") === label) return;
  button.title = label;
  button.setAttribute("aria-label", label);
  button.replaceChildren(icon(name));
}

/**
 * @param {Element} node
 * @param {string} text put in only if it differs: screen readers say every change of a live region
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const NOTICE_MS = 8000;

/**
 * A message that goes away by itself, unless it asks something.
 * @param {string} text
 * @param {{kind?: "info" | "error", actions?: [string, () => void][]}} [options]
 */
export function notice(text, { kind = "info", actions = [] } = {}) {
  const box = element("div", { class: `notice ${kind}` }, element("p", {}, text));
  for (const [label, act] of actions)
    box.append(element("button", { type: "button", click: () => (box.remove(), act()) }, label));
  box.append(iconButton("close", "Dismiss this message", () => box.remove()));
  const region = byId(kind === "error" ? "alerts" : "notices");
  region.append(box);
  while (region.children.length > 3) region.firstElementChild.remove();
  if (!actions.length) setTimeout(() => box.remove(), NOTICE_MS);
}

/** @param {number | null} score null: there is none */
export const scoreText = (score) => (score === null ? "–" : score.toFixed(2));
