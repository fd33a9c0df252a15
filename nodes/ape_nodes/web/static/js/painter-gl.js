// Image and masks by WebGL2: one triangle, one look at the label map and its neighbours per pixel.

import { BLOCK } from "./painter.js";

const VERTEX = `#version 300 es
out vec2 at;
uniform vec4 view;
void main() {
  // One triangle over the whole canvas; row 0 of a bitmap is its top.
  vec2 corner = vec2(gl_VertexID == 1 ? 2.0 : 0.0, gl_VertexID == 2 ? 2.0 : 0.0);
  at = view.xy + vec2(corner.x, 1.0 - corner.y) * view.zw;
  gl_Position = vec4(2.0 * corner - 1.0, 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
precision highp usampler2D;
in vec2 at;
out vec4 colour;
uniform sampler2D bitmap;
uniform usampler2D labels;
uniform sampler2D table;  // row 0: colour and whether it is shown, row 1: marked
uniform vec2 pixel;       // one pixel of the canvas, in parts of the bitmap
uniform float block;      // of pixelate, in parts of the width
uniform float opacity;
uniform int fill_kind;    // 0 none, 1 tint, 2 blur, 3 pixelate
uniform bool outline, image, grey;

uint labelAt(vec2 where) {
  ivec2 size = textureSize(labels, 0);
  return texelFetch(labels, clamp(ivec2(where * vec2(size)), ivec2(0), size - 1), 0).r;
}

// How much of the four nearest texels has a label: masks get soft edges without their own alpha.
float coverage(uint label, vec2 where) {
  ivec2 size = textureSize(labels, 0);
  vec2 texel = where * vec2(size) - 0.5;
  ivec2 first = ivec2(floor(texel));
  vec2 part = fract(texel);
  float sum = 0.0;
  for (int k = 0; k < 4; k++) {
    ivec2 step = ivec2(k & 1, k >> 1);
    vec2 weight = mix(1.0 - part, part, vec2(step));
    uint other = texelFetch(labels, clamp(first + step, ivec2(0), size - 1), 0).r;
    sum += other == label ? weight.x * weight.y : 0.0;
  }
  return smoothstep(0.3, 0.7, sum);
}

bool onEdge(uint label, float width) {
  for (int k = 0; k < 8; k++) {
    float angle = float(k) * 0.785398;
    if (labelAt(at + vec2(cos(angle), sin(angle)) * width * pixel) != label) return true;
  }
  return false;
}

vec3 blurred() {
  float lod = log2(block * 0.5 * float(textureSize(bitmap, 0).x));
  float ratio = float(textureSize(bitmap, 0).x) / float(textureSize(bitmap, 0).y);
  vec3 sum = vec3(0.0);
  for (int k = 0; k < 9; k++) {
    vec2 step = vec2(float(k % 3 - 1), float(k / 3 - 1) * ratio) * block * 0.6;
    sum += textureLod(bitmap, at + step, lod).rgb;
  }
  return sum / 9.0;
}

vec3 blocks() {
  vec2 size = vec2(textureSize(bitmap, 0));
  vec2 cell = vec2(block, block * size.x / size.y);
  return textureLod(bitmap, (floor(at / cell) + 0.5) * cell, log2(block * size.x)).rgb;
}

void main() {
  vec3 base = image ? textureLod(bitmap, at, 0.0).rgb : vec3(0.0);
  if (grey) base = vec3(0.7 * dot(base, vec3(0.2126, 0.7152, 0.0722)));
  uint label = labelAt(at);
  vec4 paint = texelFetch(table, ivec2(label, 0), 0);
  if (label != 0u && paint.a > 0.5) {
    if (fill_kind == 1) base = mix(base, paint.rgb, opacity * coverage(label, at));
    // What is hidden stays hidden up to the last pixel: no soft edge.
    else if (fill_kind == 2 && image) base = blurred();
    else if (fill_kind == 3 && image) base = blocks();
    bool marked = texelFetch(table, ivec2(label, 1), 0).r > 0.0;
    if ((outline || marked) && onEdge(label, marked ? 3.0 : 1.8)) base = marked ? mix(paint.rgb, vec3(1.0), 0.35) : paint.rgb;
  }
  colour = vec4(base, 1.0);
}`;

const UNIFORMS = ["bitmap", "labels", "table", "view", "pixel", "block", "opacity", "fill_kind", "outline", "image", "grey"];
const FILLS = { none: 0, tint: 1, blur: 2, pixelate: 3 };

/** @typedef {import("./painter.js").Painter} Painter */

/** @implements {Painter} */
export class GlPainter {
  /** @param {WebGL2RenderingContext} gl */
  constructor(gl) {
    this.gl = gl;
    const program = build(gl);
    gl.useProgram(program);
    this.at = Object.fromEntries(UNIFORMS.map((name) => [name, gl.getUniformLocation(program, name)]));
    gl.bindVertexArray(gl.createVertexArray());
    // Rows of label maps follow one another without padding.
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    texture(gl, 0, gl.LINEAR, gl.LINEAR);
    texture(gl, 1, gl.NEAREST, gl.NEAREST);
    texture(gl, 2, gl.NEAREST, gl.NEAREST);
    ["bitmap", "labels", "table"].forEach((name, unit) => gl.uniform1i(this.at[name], unit));
    gl.uniform1f(this.at.block, BLOCK);
    this.serial = -1;
    this.mipmapped = -1;
    /** @type {import("./protocol.js").LabelMap | null | undefined} */
    this.map = undefined;
    this.table = new Uint8Array(2 * 256 * 4);
  }

  /** @param {import("./painter.js").Scene} scene */
  paint(scene) {
    const { gl, at } = this;
    this.#upload(scene);
    const { width, height } = gl.canvas;
    gl.viewport(0, 0, width, height);
    gl.uniform4f(at.view, ...scene.view);
    gl.uniform2f(at.pixel, scene.view[2] / width, scene.view[3] / height);
    gl.uniform1f(at.opacity, scene.opacity);
    gl.uniform1i(at.fill_kind, FILLS[scene.fill]);
    for (const name of ["outline", "image", "grey"]) gl.uniform1i(at[name], Number(scene[name]));
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  #upload(scene) {
    const { gl } = this;
    if (scene.serial !== this.serial) {
      this.serial = scene.serial;
      gl.activeTexture(gl.TEXTURE0);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, scene.bitmap);
    }
    const small = scene.fill === "blur" || scene.fill === "pixelate";
    gl.activeTexture(gl.TEXTURE0);
    // A texture without its smaller levels is black where a filter might look at them.
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, small ? gl.LINEAR_MIPMAP_LINEAR : gl.LINEAR);
    if (small && this.mipmapped !== this.serial) {
      this.mipmapped = this.serial;
      gl.generateMipmap(gl.TEXTURE_2D);
    }
    if (scene.map !== this.map) {
      this.map = scene.map;
      const { width, height, labels } = scene.map ?? { width: 1, height: 1, labels: new Uint8Array(1) };
      gl.activeTexture(gl.TEXTURE1);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8UI, width, height, 0, gl.RED_INTEGER, gl.UNSIGNED_BYTE, labels);
    }
    this.table.set(scene.colours);
    scene.marked.forEach((value, label) => (this.table[1024 + 4 * label] = 255 * value));
    gl.activeTexture(gl.TEXTURE2);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 2, 0, gl.RGBA, gl.UNSIGNED_BYTE, this.table);
  }
}

/** @param {WebGL2RenderingContext} gl */
function build(gl) {
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(/** @type {number} */ (kind));
    gl.shaderSource(shader, /** @type {string} */ (text));
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader) ?? "a shader");
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program) ?? "a program");
  return program;
}

/**
 * @param {WebGL2RenderingContext} gl
 * @param {number} unit
 * @param {number} larger filter
 * @param {number} smaller filter
 */
function texture(gl, unit, larger, smaller) {
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, larger);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, smaller);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
}
