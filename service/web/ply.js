// A reader for binary little-endian PLY: positions, colours and triangles, whatever else the vertices carry.

const READERS = {
  char: ["getInt8", 1], int8: ["getInt8", 1], uchar: ["getUint8", 1], uint8: ["getUint8", 1],
  short: ["getInt16", 2], int16: ["getInt16", 2], ushort: ["getUint16", 2], uint16: ["getUint16", 2],
  int: ["getInt32", 4], int32: ["getInt32", 4], uint: ["getUint32", 4], uint32: ["getUint32", 4],
  float: ["getFloat32", 4], float32: ["getFloat32", 4], double: ["getFloat64", 8], float64: ["getFloat64", 8],
};

function header(buffer) {
  const text = new TextDecoder("latin1").decode(new Uint8Array(buffer, 0, Math.min(buffer.byteLength, 65536)));
  const mark = "end_header\n";
  const end = text.indexOf(mark);
  if (!text.startsWith("ply\n") || end < 0) throw new Error("This file is no PLY mesh.");
  const elements = [];
  for (const line of text.slice(0, end).split("\n")) {
    const words = line.trim().split(/\s+/);
    if (words[0] === "format" && words[1] !== "binary_little_endian") throw new Error("Only binary PLY can be shown.");
    if (words[0] === "element") elements.push({ name: words[1], count: Number(words[2]), properties: [] });
    if (words[0] === "property") {
      const list = words[1] === "list";
      elements.at(-1).properties.push({ name: words.at(-1), list, type: words.at(-2), countType: list ? words[2] : null });
    }
  }
  return { elements, start: end + mark.length };
}

// The mesh in a right-handed frame with y up (the file has OpenCV axes: x right, y down, z forward).
export function readPly(buffer) {
  const { elements, start } = header(buffer);
  const data = new DataView(buffer);
  let at = start;
  let positions = null, colours = null, triangles = null;
  for (const element of elements) {
    if (element.name === "vertex") {
      const offsets = {};
      let stride = 0;
      for (const property of element.properties) {
        offsets[property.name] = [stride, READERS[property.type][0]];
        stride += READERS[property.type][1];
      }
      positions = new Float32Array(3 * element.count);
      colours = offsets.red ? new Uint8Array(4 * element.count) : null;
      for (let index = 0; index < element.count; index += 1) {
        const here = at + index * stride;
        positions[3 * index] = data[offsets.x[1]](here + offsets.x[0], true);
        positions[3 * index + 1] = -data[offsets.y[1]](here + offsets.y[0], true);
        positions[3 * index + 2] = -data[offsets.z[1]](here + offsets.z[0], true);
        if (colours) {
          colours[4 * index] = data.getUint8(here + offsets.red[0]);
          colours[4 * index + 1] = data.getUint8(here + offsets.green[0]);
          colours[4 * index + 2] = data.getUint8(here + offsets.blue[0]);
          colours[4 * index + 3] = 255;
        }
      }
      at += element.count * stride;
    } else if (element.name === "face") {
      const [list] = element.properties;
      const [readCount, countSize] = READERS[list.countType];
      const [readCorner, cornerSize] = READERS[list.type];
      triangles = new Uint32Array(3 * element.count);
      for (let face = 0; face < element.count; face += 1) {
        if (data[readCount](at, true) !== 3) throw new Error("Only triangles can be shown.");
        for (let corner = 0; corner < 3; corner += 1) {
          triangles[3 * face + corner] = data[readCorner](at + countSize + corner * cornerSize, true);
        }
        at += countSize + 3 * cornerSize;
      }
    } else {
      throw new Error(`This PLY has an element that is not known here: ${element.name}.`);
    }
  }
  if (!positions || !triangles || positions.length === 0) throw new Error("This mesh is empty.");
  return { positions, colours, triangles, normals: normalsOf(positions, triangles) };
}

// Area-weighted vertex normals.
function normalsOf(p, t) {
  const n = new Float32Array(p.length);
  for (let i = 0; i < t.length; i += 3) {
    const a = 3 * t[i], b = 3 * t[i + 1], c = 3 * t[i + 2];
    const ux = p[b] - p[a], uy = p[b + 1] - p[a + 1], uz = p[b + 2] - p[a + 2];
    const vx = p[c] - p[a], vy = p[c + 1] - p[a + 1], vz = p[c + 2] - p[a + 2];
    const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
    for (const k of [a, b, c]) { n[k] += x; n[k + 1] += y; n[k + 2] += z; }
  }
  return n;
}

export function boundsOf(positions) {
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  for (let i = 0; i < positions.length; i += 1) {
    const axis = i % 3;
    if (positions[i] < low[axis]) low[axis] = positions[i];
    if (positions[i] > high[axis]) high[axis] = positions[i];
  }
  return { centre: low.map((value, axis) => (value + high[axis]) / 2), radius: Math.hypot(...high.map((v, k) => v - low[k])) / 2 };
}
