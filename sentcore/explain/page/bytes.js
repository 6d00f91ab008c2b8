// {type, shape, data, scale?} of the page's data -> {shape, values}: deflated bytes in base64.

const half = (bits) => {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
};

async function unpack(blob) {
  const packed = Uint8Array.from(atob(blob.data), (char) => char.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  const buffer = await new Response(stream).arrayBuffer();
  let values;
  if (blob.type === 'u8') values = new Uint8Array(buffer);
  else if (blob.type === 'i8') values = new Int8Array(buffer);
  else {
    const view = new DataView(buffer);
    values = Float32Array.from({ length: buffer.byteLength / 2 }, (_, i) => half(view.getUint16(2 * i, true)));
  }
  return { shape: blob.shape, values, scale: blob.scale };
}

// Every blob within an object, in place.
async function unpackAll(holder) {
  if (holder === null || typeof holder !== 'object') return;
  await Promise.all(Object.keys(holder).map(async (key) => {
    const value = holder[key];
    if (value && typeof value === 'object' && typeof value.data === 'string' && value.shape) holder[key] = await unpack(value);
    else await unpackAll(value);
  }));
}
