// A reader for the animated heads of this program: one mesh with shapes, tracks and a texture out of one GLB file.

const TYPES = { 5120: Int8Array, 5121: Uint8Array, 5122: Int16Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array };
const COLUMNS = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 };

function chunks(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < 28 || view.getUint32(0, true) !== 0x46546c67) throw new Error("This file is no GLB.");
  const size = view.getUint32(12, true);
  return { document: JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, size))), start: 28 + size };
}

// {positions, normals, uv, colours, triangles, measures, shapes, times, rotation, translation, weights, scale, picture}. A shape is
// {rows, position, normal}: `rows` null where every row is given, else the rows that are.
export function readGlb(buffer) {
  const { document, start } = chunks(buffer);
  const piece = (index, Type) => {
    const { byteOffset = 0, byteLength } = document.bufferViews[index];
    return new Type(buffer, start + byteOffset, byteLength / Type.BYTES_PER_ELEMENT);
  };
  const whole = (index) => {
    const { bufferView, componentType, count, type } = document.accessors[index];
    if (bufferView === undefined) return new TYPES[componentType](count * COLUMNS[type]);
    return piece(bufferView, TYPES[componentType]).subarray(0, count * COLUMNS[type]);
  };
  const part = (index) => {
    const accessor = document.accessors[index];
    if (accessor.bufferView !== undefined) return { rows: null, values: whole(index) };
    if (!accessor.sparse) return { rows: new Uint16Array(0), values: new Float32Array(0) };
    const { indices, values } = accessor.sparse;
    return { rows: piece(indices.bufferView, TYPES[indices.componentType]), values: piece(values.bufferView, Float32Array) };
  };
  const given = (index) => index === undefined ? null : whole(index);
  const colourType = (index) => index === undefined ? 0 : COLUMNS[document.accessors[index].type];
  const [primitive] = document.meshes[0].primitives;
  const [node] = document.nodes;
  const found = {
    positions: whole(primitive.attributes.POSITION), normals: whole(primitive.attributes.NORMAL),
    uv: given(primitive.attributes.TEXCOORD_0), colours: given(primitive.attributes.COLOR_0), triangles: whole(primitive.indices),
    measures: Object.fromEntries(Object.entries(primitive.attributes).filter(([name]) => name.startsWith("_")).map(([name, index]) => [name, whole(index)])),
    shapes: (primitive.targets || []).map((target) => ({ position: part(target.POSITION), normal: part(target.NORMAL) })),
    times: [0], rotation: new Float32Array(node.rotation || [0, 0, 0, 1]), translation: new Float32Array(node.translation || [0, 0, 0]),
    weights: new Float32Array(0), scale: (node.scale || [1])[0],
    colourSize: colourType(primitive.attributes.COLOR_0),
    picture: document.images ? new Blob([piece(document.images[0].bufferView, Uint8Array)], { type: document.images[0].mimeType }) : null,
  };
  const [clip] = document.animations || [];
  for (const { sampler, target } of clip ? clip.channels : []) {
    if (target.node !== 0) continue;
    found.times = Array.from(whole(clip.samplers[sampler].input));
    found[target.path] = whole(clip.samplers[sampler].output);
  }
  return found;
}

// Adds `weight` times a part of a shape to rows of three.
export function addPart(out, { rows, values }, weight) {
  if (rows === null) {
    for (let i = 0; i < values.length; i += 1) out[i] += weight * values[i];
    return;
  }
  for (let k = 0, v = 0; k < rows.length; k += 1) {
    const at = 3 * rows[k];
    out[at] += weight * values[v++];
    out[at + 1] += weight * values[v++];
    out[at + 2] += weight * values[v++];
  }
}
