// Latencies of the last minute as stacked columns, drops as ticks above them.

import { setText } from "./dom.js";
import { STAGES } from "./series.js";

const COLUMNS = 120;
const ROUND_TO_MS = 25;
const RECENT_S = 10;

/** Okabe and Ito, in the order of STAGES. */
export const STAGE_COLOURS = ["#999999", "#e69f00", "#f0e442", "#56b4e9", "#0072b2", "#009e73", "#cc79a7"];

export class Graph {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLElement} caption
   * @param {string} what
   */
  constructor(canvas, caption, what) {
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.caption = caption;
    this.what = what;
  }

  /** @param {import("./series.js").Series} series */
  draw(series) {
    const { canvas, context } = this;
    const now = performance.now();
    const scale = devicePixelRatio;
    const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    context.clearRect(0, 0, width, height);
    const columns = series.columns(now, COLUMNS);
    const totals = columns.map(({ stages }) => stages?.reduce((a, b) => a + b, 0) ?? 0);
    const top = Math.max(ROUND_TO_MS, Math.ceil((1.1 * Math.max(...totals)) / ROUND_TO_MS) * ROUND_TO_MS);
    columns.forEach((column, k) => this.#column(column, (k * width) / COLUMNS, width / COLUMNS, top));
    this.#scale(top);
    this.#say(series.summary(now, RECENT_S), columns.reduce((sum, { drops }) => sum + drops, 0));
  }

  #column({ stages, drops }, x, wide, top) {
    const { context, canvas } = this;
    let y = canvas.height;
    stages?.forEach((ms, k) => {
      const high = (ms / top) * canvas.height;
      context.fillStyle = STAGE_COLOURS[k];
      context.fillRect(x, y - high, Math.max(1, wide - 1), high);
      y -= high;
    });
    if (!drops) return;
    context.fillStyle = "#d55e00";
    context.fillRect(x, 0, Math.max(2, wide / 2), 6 * devicePixelRatio);
  }

  #scale(top) {
    const { context, canvas } = this;
    const style = getComputedStyle(canvas);
    context.fillStyle = style.color;
    context.strokeStyle = style.getPropertyValue("--line");
    context.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    context.textBaseline = "top";
    for (const part of [1, 0.5]) {
      const y = (1 - part) * canvas.height;
      context.beginPath();
      context.moveTo(0, y + 0.5);
      context.lineTo(canvas.width, y + 0.5);
      context.stroke();
      context.fillText(`${Math.round(part * top)} ms`, 4 * devicePixelRatio, y + 7 * devicePixelRatio);
    }
  }

  #say({ rate, p50, p95 }, drops) {
    const ms = (/** @type {number} */ value) => (Number.isNaN(value) ? "–" : Math.round(value));
    const text = `${this.what}: ${rate.toFixed(1)} a second · p50 ${ms(p50)} ms · p95 ${ms(p95)} ms · ${drops} left out in the last minute`;
    setText(this.caption, text);
    this.canvas.setAttribute("aria-label", text);
  }
}

/** @returns {[string, string][]} names and colours for the legend */
export const legend = () => STAGES.map((name, k) => [name, STAGE_COLOURS[k]]);
