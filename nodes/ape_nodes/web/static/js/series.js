// Latencies of the last minute. Pure: no page is needed.

/** From the camera to the screen, in this order. */
export const STAGES = ["wait", "model", "track", "encode", "wire", "decode", "draw"];

/**
 * @typedef {object} Sample
 * @property {number} atMs when it was shown, performance.now()
 * @property {number[]} stages milliseconds by STAGES
 */

/**
 * @param {number[]} values
 * @param {number} part 0..1
 * @returns {number} NaN for none
 */
export function percentile(values, part) {
  if (!values.length) return NaN;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
}

/**
 * Milliseconds of each stage of one message; clocks of two machines make some differ a little, so
 * none is below 0.
 * @param {import("./protocol.js").Message} message
 * @param {{receivedUs: number, decodedUs: number, shownUs: number}} times on the server's clock
 * @returns {number[]}
 */
export function stagesOf({ meta, capturedUs, sentUs }, { receivedUs, decodedUs, shownUs }) {
  const model = meta.timings?.perceive ?? 0;
  const track = meta.timings?.track ?? 0;
  const encode = meta.encode_ms ?? 0;
  const wait = (sentUs - capturedUs) / 1e3 - model - track - encode;
  const rest = [receivedUs - sentUs, decodedUs - receivedUs, shownUs - decodedUs].map((us) => us / 1e3);
  return [wait, model, track, encode, ...rest].map((ms) => Math.max(0, ms));
}

/** Samples of the last `seconds`, and when images were left out. */
export class Series {
  /** @param {number} [seconds] */
  constructor(seconds = 60) {
    this.seconds = seconds;
    /** @type {Sample[]} */
    this.samples = [];
    /** @type {{atMs: number, count: number}[]} */
    this.drops = [];
  }

  /**
   * @param {number} atMs
   * @param {number[]} stages
   */
  add(atMs, stages) {
    this.samples.push({ atMs, stages });
    // Thrown out a few hundred at a time: an array's first element is slow to take.
    if (this.samples.length > 256 && this.samples[256].atMs < atMs - this.seconds * 1e3) this.samples.splice(0, 256);
  }

  /**
   * @param {number} atMs
   * @param {number} count images
   */
  drop(atMs, count) {
    this.drops.push({ atMs, count });
    while (this.drops.length && this.drops[0].atMs < atMs - this.seconds * 1e3) this.drops.shift();
  }

  /**
   * Means of each stage in equal spans of time, the newest last.
   * @param {number} nowMs
   * @param {number} count
   * @returns {{stages: number[] | null, drops: number}[]} stages: null where nothing was shown
   */
  columns(nowMs, count) {
    const span = (this.seconds * 1e3) / count;
    // Spans begin at multiples of their length: a column does not change while it moves left.
    const last = Math.floor(nowMs / span);
    const columns = Array.from({ length: count }, () => ({ sums: STAGES.map(() => 0), n: 0, drops: 0 }));
    const of = (/** @type {number} */ atMs) => columns[count - 1 - (last - Math.floor(atMs / span))];
    for (const { atMs, stages } of this.samples) {
      const column = of(atMs);
      if (!column) continue;
      column.n += 1;
      stages.forEach((ms, k) => (column.sums[k] += ms));
    }
    for (const { atMs, count: dropped } of this.drops) {
      const column = of(atMs);
      if (column) column.drops += dropped;
    }
    return columns.map(({ sums, n, drops }) => ({ stages: n ? sums.map((sum) => sum / n) : null, drops }));
  }

  /**
   * @param {number} nowMs
   * @param {number} seconds
   */
  summary(nowMs, seconds) {
    const recent = this.samples.filter(({ atMs }) => atMs > nowMs - seconds * 1e3);
    const totals = recent.map(({ stages }) => stages.reduce((sum, ms) => sum + ms, 0));
    return { rate: recent.length / seconds, p50: percentile(totals, 0.5), p95: percentile(totals, 0.95) };
  }
}
