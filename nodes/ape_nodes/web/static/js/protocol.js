// Binary messages of the live protocol (docs/reference/live-protocol.md). Pure: no page is needed.

export const PROTOCOL = "ape-stream.v1";
export const JPEG = 1;
export const H264 = 2;
export const MASKS = 3;
export const SYNCED = 4;
export const CAMERA_IMAGE = 5;
const HEAD_BYTES = 40;
const VERSION = 1;

/**
 * @typedef {object} Message
 * @property {number} kind JPEG, H264, MASKS or SYNCED
 * @property {number} cam position of the camera in `welcome.cams`
 * @property {boolean} key an H.264 unit that can be decoded without others
 * @property {number} seq index of the frame at its source
 * @property {number} rev revision of the prompts that the masks were found with
 * @property {number} capturedUs when the source delivered the frame, the server's clock
 * @property {number} sentUs when the message was encoded, the same clock
 * @property {Record<string, any>} meta
 * @property {Uint8Array<ArrayBuffer>} mask the label map, deflated
 * @property {Uint8Array<ArrayBuffer>} image
 */

/**
 * @param {ArrayBuffer} buffer
 * @returns {Message}
 */
export function readMessage(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < HEAD_BYTES || view.getUint16(0) !== 0x4150 || view.getUint8(2) !== VERSION)
    throw new Error("no message of this protocol");
  const metaBytes = view.getUint32(32, true);
  const maskBytes = view.getUint32(36, true);
  const maskAt = HEAD_BYTES + metaBytes;
  const meta = new Uint8Array(buffer, HEAD_BYTES, metaBytes);
  return {
    kind: view.getUint8(3),
    cam: view.getUint16(4, true),
    key: (view.getUint16(6, true) & 1) === 1,
    seq: view.getUint32(8, true),
    rev: view.getUint32(12, true),
    // Microseconds since the server's machine was started: far below 2^53.
    capturedUs: Number(view.getBigUint64(16, true)),
    sentUs: Number(view.getBigUint64(24, true)),
    meta: metaBytes ? JSON.parse(new TextDecoder().decode(meta)) : {},
    mask: new Uint8Array(buffer, maskAt, maskBytes),
    image: new Uint8Array(buffer, maskAt + maskBytes),
  };
}

/**
 * @param {number} cam
 * @param {number} seq
 * @param {number} capturedUs on this page's clock
 * @param {ArrayBuffer} jpeg
 * @returns {ArrayBuffer} a message of kind 5
 */
export function packCameraImage(cam, seq, capturedUs, jpeg) {
  const packed = new Uint8Array(HEAD_BYTES + jpeg.byteLength);
  const view = new DataView(packed.buffer);
  view.setUint16(0, 0x4150);
  view.setUint8(2, VERSION);
  view.setUint8(3, CAMERA_IMAGE);
  view.setUint16(4, cam, true);
  view.setUint32(8, seq, true);
  view.setBigUint64(16, BigInt(Math.round(capturedUs)), true);
  packed.set(new Uint8Array(jpeg), HEAD_BYTES);
  return packed.buffer;
}

/**
 * @param {Uint8Array<ArrayBuffer>} deflated zlib, RFC 1950
 * @returns {Promise<Uint8Array>}
 */
export async function inflate(deflated) {
  // Not through a Blob, which another process would have to keep.
  const { readable, writable } = new DecompressionStream("deflate");
  const writer = writable.getWriter();
  const [, bytes] = await Promise.all([writer.write(deflated).then(() => writer.close()), new Response(readable).arrayBuffer()]);
  return new Uint8Array(bytes);
}

/**
 * @typedef {object} LabelMap
 * @property {number} width
 * @property {number} height
 * @property {Uint8Array} labels height * width, row by row: 0 nothing, k the detection k - 1
 */

/**
 * @param {Uint8Array} bytes as `inflate` returns them
 * @returns {LabelMap}
 */
export function readLabelMap(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [width, height, runs] = [view.getUint16(0, true), view.getUint16(2, true), view.getUint32(4, true)];
  const labels = new Uint8Array(width * height);
  let at = 8 + runs; // the run lengths follow the labels
  let pixel = 0;
  for (let run = 0; run < runs; run++) {
    let length = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      length |= (byte & 127) << shift;
      if (byte < 128) break;
    }
    const label = bytes[8 + run];
    if (label) labels.fill(label, pixel, pixel + length);
    pixel += length;
  }
  if (pixel !== labels.length) throw new Error("the runs of a label map do not fill it");
  return { width, height, labels };
}
