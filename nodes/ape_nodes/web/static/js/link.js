// The WebSocket: comes back by itself, knows the server's clock, matches answers to questions.

import { PROTOCOL, readMessage } from "./protocol.js";

const FIRST_RETRY_MS = 250;
const LONGEST_RETRY_MS = 5000;
const PING_MS = 2000;
const PINGS = 16;
const KEY = "ape-stream.token";

/** The token of the URL's fragment; the address bar no longer shows it afterwards. */
export function takeToken() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const token = parts.get("t");
  if (token === null) return;
  sessionStorage.setItem(KEY, token);
  const words = /(?:^#|&)(w=[^&]*)/.exec(location.hash)?.[1];
  history.replaceState(null, "", location.pathname + location.search + (words ? `#${words}` : ""));
}

/**
 * Exchange the token for a cookie. It is kept for this tab: a server that was restarted has
 * forgotten its cookies.
 * @param {string} [token]
 * @returns {Promise<{ok: boolean, reason: string}>}
 */
export async function enter(token = sessionStorage.getItem(KEY) ?? "") {
  if (!token) return { ok: false, reason: "a token is needed" };
  const answer = await fetch("/api/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
  if (answer.ok) sessionStorage.setItem(KEY, token);
  const { reason = "" } = await answer.json().catch(() => ({}));
  return { ok: answer.ok, reason };
}

/**
 * @typedef {object} Handlers
 * @property {(message: any) => void} json
 * @property {(message: import("./protocol.js").Message) => void} binary
 * @property {(state: "connecting" | "open" | "lost" | "ended" | "denied", why: string) => void} state
 */

export class Link {
  /** @param {Handlers} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {"connecting" | "open" | "lost" | "ended" | "denied"} */
    this.state = "connecting";
    this.retryMs = FIRST_RETRY_MS;
    this.nextId = 1;
    /** @type {Map<number, (answer: any) => void>} */
    this.waiting = new Map();
    /** @type {{roundMs: number, offsetUs: number}[]} */
    this.clocks = [];
    setInterval(() => this.send({ type: "ping", t: performance.now() }), PING_MS);
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => {
      this.send({ type: "vis", visible: !document.hidden });
      if (!document.hidden) this.retryNow();
    });
  }

  open() {
    clearTimeout(this.timer);
    const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws`, PROTOCOL);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => socket.send(JSON.stringify({ type: "hello", visible: !document.hidden }));
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.#text(data) : this.handlers.binary(readMessage(data)));
    socket.onclose = () => this.#closed();
  }

  /** @param {string} text */
  #text(text) {
    const message = JSON.parse(text);
    if (message.type === "pong") return this.#pong(message);
    if (message.type === "welcome") this.#welcomed(message);
    if (message.type === "bye") this.#become("ended", message.why);
    const answer = message.id != null && this.waiting.get(message.id);
    if (answer) {
      this.waiting.delete(message.id);
      answer(message);
    }
    this.handlers.json(message);
  }

  #welcomed(message) {
    this.retryMs = FIRST_RETRY_MS;
    // Another process may have another clock.
    this.clocks = [{ roundMs: Infinity, offsetUs: message.now_us - 1e3 * performance.now() }];
    this.#become("open", "");
    this.send({ type: "ping", t: performance.now() });
  }

  #pong({ t, now_us }) {
    const now = performance.now();
    this.clocks.push({ roundMs: now - t, offsetUs: now_us - 1e3 * ((now + t) / 2) });
    if (this.clocks.length > PINGS) this.clocks.shift();
  }

  /** Microseconds of the server's clock now, by the ping that was answered fastest. */
  nowUs() {
    return this.atUs(performance.now());
  }

  /** @param {number} ms of performance.now() */
  atUs(ms) {
    const best = this.clocks.reduce((a, b) => (b.roundMs < a.roundMs ? b : a), { roundMs: Infinity, offsetUs: this.clocks[0]?.offsetUs ?? 0 });
    return 1e3 * ms + best.offsetUs;
  }

  #become(state, why) {
    this.state = state;
    this.handlers.state(state, why);
  }

  async #closed() {
    for (const answer of this.waiting.values()) answer({ type: "error", reason: "the connection was lost" });
    this.waiting.clear();
    if (this.state !== "ended") this.#become("lost", "");
    const wait = this.retryMs * (0.75 + Math.random() / 2); // viewers must not all come at once
    this.retryMs = Math.min(LONGEST_RETRY_MS, 2 * this.retryMs);
    this.timer = setTimeout(() => this.#retry(), wait);
  }

  async #retry() {
    try {
      // A socket's refusal has no reason in a browser; that of a request has.
      let { status } = await fetch("/api/stats");
      if (status === 401) status = (await enter()).ok ? 200 : 401;
      if (status === 401) return this.#become("denied", "");
    } catch {
      return this.#closed(); // no server
    }
    this.open();
  }

  /** Do not wait for the next attempt. */
  retryNow() {
    if (this.state === "open" || this.state === "denied") return;
    if (this.socket?.readyState === WebSocket.CONNECTING) return;
    clearTimeout(this.timer);
    this.#retry();
  }

  /** @param {object | ArrayBuffer} message dropped where there is no connection */
  send(message) {
    if (this.socket?.readyState !== WebSocket.OPEN || this.state !== "open") return false;
    this.socket.send(message instanceof ArrayBuffer ? message : JSON.stringify(message));
    return true;
  }

  /**
   * @param {object} message
   * @returns {Promise<any>} `ok`, `conflict` or `error`
   */
  ask(message) {
    const id = this.nextId++;
    return new Promise((resolve) => {
      this.waiting.set(id, resolve);
      if (!this.send({ ...message, id })) {
        this.waiting.delete(id);
        resolve({ type: "error", reason: "there is no connection" });
      }
    });
  }

  /** Bytes that wait to be sent. */
  get queued() {
    return this.socket?.bufferedAmount ?? 0;
  }
}
