// A small WebGL2 viewer: one mesh at a time, turned by pointer, wheel, touch and keys.

const VERTEX = `#version 300 es
in vec3 position; in vec3 normal; in vec4 colour;
uniform mat4 projection; uniform mat4 view;
out vec3 n; out vec3 seen; out vec3 albedo;
void main() {
  vec4 place = view * vec4(position, 1.0);
  seen = place.xyz; n = mat3(view) * normal; albedo = colour.rgb;
  gl_Position = projection * place;
}`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 n; in vec3 seen; in vec3 albedo;
uniform float colours;
out vec4 pixel;
void main() {
  vec3 normal = normalize(n), eye = normalize(-seen);
  if (!gl_FrontFacing) normal = -normal;
  float key = max(dot(normal, normalize(vec3(-0.4, 0.6, 0.75))), 0.0);
  float fill = max(dot(normal, normalize(vec3(0.7, 0.1, 0.5))), 0.0);
  float rim = pow(1.0 - max(dot(normal, eye), 0.0), 3.0);
  float shine = pow(max(dot(normal, normalize(eye + normalize(vec3(-0.4, 0.6, 0.75)))), 0.0), 40.0);
  vec3 grey = vec3(0.72) * (0.22 + 0.68 * key + 0.22 * fill) + 0.10 * rim + 0.10 * shine;
  vec3 lit = pow(pow(albedo, vec3(2.2)) * (0.55 + 0.45 * key + 0.18 * fill), vec3(1.0 / 2.2));
  pixel = vec4(mix(grey, lit, colours), 1.0);
}`;
const START = { yaw: 0, pitch: 0, zoom: 1 };
const FOV = 28 * Math.PI / 180;

export class Viewer {
  constructor(canvas) {
    this.canvas = canvas;
    this.angle = { ...START };
    this.centre = null;
    this.radius = 1;
    this.useColours = true;
    this.mesh = null;
    this.waiting = false;
    this.gl = canvas.getContext("webgl2", { antialias: true, alpha: true, premultipliedAlpha: true });
    if (!this.gl) throw new Error("This browser shows no WebGL 2, so the head cannot be turned here. The files below can be opened in any 3D program.");
    this.program = this.link();
    this.listen();
    canvas.addEventListener("webglcontextlost", (event) => { event.preventDefault(); this.mesh = null; });
    canvas.addEventListener("webglcontextrestored", () => { this.program = this.link(); if (this.onrestored) this.onrestored(); });
    new ResizeObserver(() => this.paint()).observe(canvas); // before the browser paints: never stretched
  }

  link() {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    ["position", "normal", "colour"].forEach((name, place) => gl.bindAttribLocation(program, place, name));
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(`The 3D view could not start: ${gl.getProgramInfoLog(program)}`);
    return program;
  }

  // Buffers on the graphics side for one mesh of ply.js.
  upload(mesh) {
    const gl = this.gl, array = gl.createVertexArray(), buffers = [];
    gl.bindVertexArray(array);
    const attribute = (place, data, size, type, normalised) => {
      const buffer = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, size, type, normalised, 0, 0);
      buffers.push(buffer);
    };
    attribute(0, mesh.positions, 3, gl.FLOAT, false);
    attribute(1, mesh.normals, 3, gl.FLOAT, false);
    if (mesh.colours) attribute(2, mesh.colours, 4, gl.UNSIGNED_BYTE, true);
    else gl.vertexAttrib4f(2, 0.75, 0.75, 0.75, 1);
    const index = gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, index);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.triangles, gl.STATIC_DRAW);
    buffers.push(index);
    gl.bindVertexArray(null);
    return { array, buffers, count: mesh.triangles.length };
  }

  forget(loaded) {
    if (loaded === this.mesh) return false;
    for (const buffer of loaded.buffers) this.gl.deleteBuffer(buffer);
    this.gl.deleteVertexArray(loaded.array);
    return true;
  }

  frame({ centre, radius }) { this.centre = centre; this.radius = radius; this.reset(); }
  show(loaded) { this.mesh = loaded; this.draw(); }
  reset() { this.angle = { ...START }; this.draw(); }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.paint(); });
  }

  paint() {
    const { gl, canvas } = this;
    const density = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(canvas.clientWidth * density)), height = Math.max(1, Math.round(canvas.clientHeight * density));
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    if (!this.mesh || !this.centre) return;
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(this.program);
    const aspect = width / height;
    const distance = this.radius / Math.sin(FOV / 2) / Math.min(1, aspect * 1.15) * 0.92 / this.angle.zoom;
    const place = (name) => gl.getUniformLocation(this.program, name);
    gl.uniformMatrix4fv(place("projection"), false, perspective(FOV, aspect, Math.max(distance - 4 * this.radius, this.radius * 0.02), distance + 4 * this.radius));
    gl.uniformMatrix4fv(place("view"), false, orbit(this.angle.yaw, this.angle.pitch, distance, this.centre));
    gl.uniform1f(place("colours"), this.useColours ? 1 : 0);
    gl.bindVertexArray(this.mesh.array);
    gl.drawElements(gl.TRIANGLES, this.mesh.count, gl.UNSIGNED_INT, 0);
    gl.bindVertexArray(null);
  }

  turn(dx, dy) {
    this.angle.yaw += dx;
    this.angle.pitch = Math.max(-1.5, Math.min(1.5, this.angle.pitch + dy));
    this.draw();
  }

  zoom(factor) {
    this.angle.zoom = Math.max(0.4, Math.min(6, this.angle.zoom * factor));
    this.draw();
  }

  listen() {
    const canvas = this.canvas, touching = new Map();
    let apart = 0;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      touching.set(event.pointerId, [event.clientX, event.clientY]);
      apart = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = touching.get(event.pointerId);
      if (!before) return;
      touching.set(event.pointerId, [event.clientX, event.clientY]);
      if (touching.size === 1) {
        this.turn((event.clientX - before[0]) * 0.008, (event.clientY - before[1]) * 0.008);
      } else if (touching.size === 2) {
        const [a, b] = [...touching.values()];
        const now = Math.hypot(a[0] - b[0], a[1] - b[1]);
        if (apart) this.zoom(now / apart);
        apart = now;
      }
    });
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => { touching.delete(event.pointerId); apart = 0; });
    }
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.zoom(Math.exp(-event.deltaY * 0.0012)); }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const keys = {
        ArrowLeft: () => this.turn(-0.1, 0), ArrowRight: () => this.turn(0.1, 0), ArrowUp: () => this.turn(0, -0.1),
        ArrowDown: () => this.turn(0, 0.1), "+": () => this.zoom(1.1), "=": () => this.zoom(1.1), "-": () => this.zoom(1 / 1.1), 0: () => this.reset(),
      };
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
  }
}

function perspective(fov, aspect, near, far) {
  const f = 1 / Math.tan(fov / 2);
  return new Float32Array([f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / (near - far), -1, 0, 0, 2 * far * near / (near - far), 0]);
}

// World to eye: turn about `centre`, then step back.
function orbit(yaw, pitch, distance, centre) {
  const cy = Math.cos(yaw), sy = Math.sin(yaw), cp = Math.cos(pitch), sp = Math.sin(pitch);
  const r = [[cy, 0, sy], [sp * sy, cp, -sp * cy], [-cp * sy, sp, cp * cy]];
  const t = r.map((row) => -(row[0] * centre[0] + row[1] * centre[1] + row[2] * centre[2]));
  return new Float32Array([r[0][0], r[1][0], r[2][0], 0, r[0][1], r[1][1], r[2][1], 0, r[0][2], r[1][2], r[2][2], 0, t[0], t[1], t[2] - distance, 1]);
}
