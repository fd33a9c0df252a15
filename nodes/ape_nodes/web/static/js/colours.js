// Colours of words and things. Pure: no page is needed.

/** Used until the server has sent its palette: Okabe and Ito, which colour-blind people can distinguish. */
const FIRST = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];

/**
 * @param {string} hex #rrggbb
 * @returns {[number, number, number]} 0..255
 */
export function rgb(hex) {
  const number = parseInt(hex.slice(1), 16);
  return [number >> 16, (number >> 8) & 255, number & 255];
}

/**
 * @param {number} key number of a word, a track or a region
 * @param {string[]} [palette]
 * @returns {string} #rrggbb
 */
export function paletteColour(key, palette) {
  const colours = palette?.length ? palette : FIRST;
  return colours[((key % colours.length) + colours.length) % colours.length];
}

/** Relative luminance of WCAG 2.2, 0..1. */
function luminance(/** @type {string} */ hex) {
  const [r, g, b] = rgb(hex).map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/**
 * Black or white, whichever can be read on a colour: the contrast is at least 4.58 to 1.
 * @param {string} hex
 */
export function inkOn(hex) {
  // Both contrasts are equal at a luminance of sqrt(1.05 * 0.05) - 0.05.
  return luminance(hex) > 0.179 ? "#000000" : "#ffffff";
}

/** Part of white (more than 0) or black (less) in the shades of one colour. */
const SHADES = [0, 0.4, -0.35, 0.65, -0.6, 0.2, -0.18];

/**
 * A lighter or darker form of a colour, for the n-th of several that have it.
 * @param {string} hex
 * @param {number} nth 0: the colour itself
 */
export function shade(hex, nth) {
  const part = SHADES[nth % SHADES.length];
  const mixed = rgb(hex).map((value) => Math.round(part > 0 ? value + part * (255 - value) : value * (1 + part)));
  return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

/**
 * The colour of a detection.
 * @param {{id: number, color: string | null}} word
 * @param {number} number of its track or region, where these have colours of their own; 0: the word's
 * @param {string[]} palette
 */
export function detectionColour(word, number, palette) {
  if (number > 0) return paletteColour(number, palette);
  return word.color ?? paletteColour(word.id - 1, palette);
}
