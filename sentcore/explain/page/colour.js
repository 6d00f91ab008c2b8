// Values to colours: from the panel's own colour to one hue for what is positive, to another for what is negative.

const darkMode = matchMedia('(prefers-color-scheme: dark)');
const PALETTES = {
  light: { zero: [255, 255, 255], one: [16, 62, 150], plus: [190, 60, 10], minus: [20, 90, 190], ink: [27, 31, 38] },
  dark: { zero: [25, 28, 34], one: [160, 205, 255], plus: [255, 150, 90], minus: [90, 165, 255], ink: [230, 233, 239] },
};
const palette = () => (darkMode.matches ? PALETTES.dark : PALETTES.light);
const mix = (a, b, share) => a.map((from, i) => Math.round(from + (b[i] - from) * share));

// Colours are made once for each palette, as the four bytes that a canvas holds.
const packed = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
for (const colours of Object.values(PALETTES)) {
  const steps = Array.from({ length: 256 }, (_, i) => i / 255);
  colours.up = Uint32Array.from(steps, (share) => packed(mix(colours.zero, colours.one, share)));
  colours.more = Uint32Array.from(steps, (share) => packed(mix(colours.zero, colours.plus, share)));
  colours.less = Uint32Array.from(steps, (share) => packed(mix(colours.zero, colours.minus, share)));
}
const step = (share) => (share >= 1 ? 255 : share > 0 ? (share * 255 + 0.5) | 0 : 0);
const sequential = (share) => palette().up[step(share)]; // share in [0, 1]
const diverging = (share) => (share < 0 ? palette().less[step(-share)] : palette().more[step(share)]); // in [-1, 1]
const blank = () => palette().up[0];

function paint(canvas, rows, columns, colour) {
  canvas.width = Math.max(1, columns);
  canvas.height = Math.max(1, rows);
  const context = canvas.getContext('2d');
  const image = context.createImageData(canvas.width, canvas.height);
  const cells = new Uint32Array(image.data.buffer);
  for (let r = 0, at = 0; r < rows; r++) for (let c = 0; c < columns; c++) cells[at++] = colour(r, c);
  context.putImageData(image, 0, 0);
}

// The 99th percentile of bytes' sizes, at least 1: what is beyond has the full colour, so that a few large values do not
// bleach all others.
function most(bytes, start, count) {
  const seen = new Uint32Array(129);
  for (let i = start; i < start + count; i++) seen[Math.abs(bytes[i])]++;
  let left = Math.floor(count / 100), size = 128;
  while (size > 1 && seen[size] <= left) left -= seen[size--];
  return size;
}

// A chip's background and a text colour that can be read on it.
function tint(element, share) {
  const { zero, plus, minus } = palette();
  const rgb = mix(zero, share < 0 ? minus : plus, Math.min(0.85, Math.abs(share) * 0.85));
  const bright = (0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]) > 125;
  element.style.background = `rgb(${rgb})`;
  element.style.color = bright ? '#14171c' : '#ffffff';
}
