// Reads ape_stream results in plain JavaScript: node examples/reader.js FILE (one message),
// or node examples/reader.js tcp://127.0.0.1:5557 (a pub sink; the ZeroMQ handshake is below).
"use strict";
const fs = require("fs"), net = require("net");

function unpack(b) { // msgpack: the forms that a head can hold
  let at = 0;
  const take = (n) => { at += n; if (at > b.length) throw Error("the head is cut off"); return at - n; };
  const text = (n) => { const p = take(n); return b.toString("utf8", p, p + n); };
  const bytes = (n) => { const p = take(n); return b.subarray(p, p + n); };
  const list = (n) => Array.from({ length: n }, value);
  const map = (n) => Object.fromEntries(Array.from({ length: n }, () => [value(), value()]));
  const u = (n) => (n === 8 ? Number(b.readBigUInt64BE(take(8))) : b.readUIntBE(take(n), n));
  const i = (n) => (n === 8 ? Number(b.readBigInt64BE(take(8))) : b.readIntBE(take(n), n));
  function value() {
    const t = b[take(1)];
    if (t < 0x80) return t;
    if (t < 0x90) return map(t & 15);
    if (t < 0xa0) return list(t & 15);
    if (t < 0xc0) return text(t & 31);
    if (t >= 0xe0) return t - 256;
    if (t === 0xc0) return null;
    if (t === 0xc2 || t === 0xc3) return t === 0xc3;
    if (t >= 0xc4 && t <= 0xc6) return bytes(u(1 << (t - 0xc4)));
    if (t === 0xca) return b.readFloatBE(take(4));
    if (t === 0xcb) return b.readDoubleBE(take(8));
    if (t >= 0xcc && t <= 0xcf) return u(1 << (t - 0xcc));
    if (t >= 0xd0 && t <= 0xd3) return i(1 << (t - 0xd0));
    if (t >= 0xd9 && t <= 0xdb) return text(u(1 << (t - 0xd9)));
    if (t === 0xdc || t === 0xdd) return list(u(t === 0xdc ? 2 : 4));
    if (t === 0xde) return map(u(2));
    throw Error(`msgpack form ${t} is not expected here`);
  }
  return value();
}

function mask(form, data, pixels) { // 0/1 per pixel, row by row
  const out = new Uint8Array(pixels);
  if (form === 0) return out.map((_, k) => (data[k >> 3] >> (7 - (k & 7))) & 1);
  for (let at = 0, k = 0, on = 0; at < data.length; on ^= 1) {
    let run = 0, shift = 1, byte;
    do { byte = data[at++]; run += (byte & 127) * shift; shift *= 128; } while (byte & 128);
    out.fill(on, k, k += run);
  }
  return out;
}

function decode(b) {
  if (b.toString("latin1", 0, 4) !== "APES" || b[4] !== 1) throw Error("not format version 1");
  const start = 12 + b.readUInt32LE(8), head = unpack(b.subarray(12, start)), parts = {};
  let at = start;
  for (const [name, codec, length] of head.parts)
    parts[name] = { codec, data: b.subarray(at, at += length) };
  const n = b[5] === 1 ? head.n : 0, instances = [];
  for (let k = 0, from = 0; k < n; k++) {
    const box = [0, 4, 8, 12].map((o) => head.boxes.readFloatLE(16 * k + o));
    const [x, y, w, h] = [0, 4, 8, 12].map((o) => head.mask_boxes.readUInt32LE(16 * k + o));
    const length = head.mask_bytes.readUInt32LE(4 * k);
    const pixels = mask(head.mask_forms[k], parts.masks.data.subarray(from, from += length), w * h);
    instances.push({
      phrase: head.prompts[head.prompt_ids.readUInt32LE(4 * k)].text,
      score: head.scores.readFloatLE(4 * k), box, mask: { x, y, w, h, pixels },
      track: head.track_ids && Number(head.track_ids.readBigInt64LE(8 * k)),
    });
  }
  return { stream: head.stream, seq: head.seq, index: head.index, time: head.time, instances };
}

function show(result) {
  for (const one of result.instances)
    one.mask = { ...one.mask, pixels: undefined, area: one.mask.pixels.reduce((a, v) => a + v, 0) };
  console.log(JSON.stringify(result));
}

function frames(socket, onMessage) { // ZMTP 3.0, NULL mechanism, as a SUB socket: rfc.zeromq.org/23
  let got = Buffer.alloc(0), greeted = false;
  const hello = Buffer.alloc(64);
  hello.write("\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL", "latin1");
  socket.write(hello);
  const ready = Buffer.from("\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB", "latin1");
  socket.on("data", (chunk) => {
    got = Buffer.concat([got, chunk]);
    for (;;) {
      const long = got[0] & 2, size = !greeted ? 64 : long ? 9 : 2;
      if (got.length < size) return;
      const end = !greeted ? 64 : size + (long ? Number(got.readBigUInt64BE(1)) : got[1]);
      if (got.length < end) return;
      // Each step waits for the other side's: what comes before its READY may be lost.
      if (!greeted) socket.write(ready);
      else if (got[0] & 4) socket.write("\0\x01\x01"); // subscribe to every topic
      else onMessage(got.subarray(size, end));
      [greeted, got] = [true, got.subarray(end)];
    }
  });
}

const where = process.argv[2], url = /^tcp:\/\/(.+):(\d+)$/.exec(where);
if (url) frames(net.connect(+url[2], url[1]), (m) => show(decode(m.subarray(m.indexOf(0) + 1))));
else show(decode(fs.readFileSync(where)));
