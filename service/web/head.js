// The animated head of a GLB file: shapes added up here, not by the graphics side; drawn only when something changes.

import {
  BufferAttribute, BufferGeometry, CanvasTexture, DirectionalLight, DoubleSide, HemisphereLight, Mesh, MeshLambertMaterial, OrbitControls,
  PerspectiveCamera, Quaternion, Scene, Spherical, SRGBColorSpace, Vector3, WebGLRenderer,
} from "/web/three.js";
import { problemOf } from "/web/api.js";
import { addPart, readGlb } from "/web/glb.js";
import { colourAt, top } from "/web/ramp.js";

const FOV_DEG = 26;
const COARSE = 0.6, REST_MS = 200;
const CLAY = 0xc9c5bf;
const LOOKS = { textured: "Texture", shaded: "Shape", wireframe: "Triangles" };
const MEASURES = {
  _UNCERTAINTY_MM: { name: "Uncertainty", says: "one standard deviation of the surface, mm", digits: 1 },
  _DIFFERENCE: { name: "Error", says: "colour of the model against the pictures, of full scale", digits: 2 },
};

export class Head {
  constructor(canvas) {
    this.canvas = canvas;
    try {
      this.renderer = new WebGLRenderer({ canvas, antialias: !drawnByProcessor(), alpha: true });
    } catch {
      throw new Error("This browser shows no WebGL 2, so the head cannot be turned here. The files below can be opened in any 3D program.");
    }
    this.scene = new Scene();
    this.camera = new PerspectiveCamera(FOV_DEG, 1, 0.01, 10);
    this.scene.add(this.camera, new HemisphereLight(0xffffff, 0x8a8580, 1.9));
    for (const [x, y, z, strength] of [[-0.5, 0.7, 1, 1.7], [0.9, 0.1, 0.3, 0.7]]) {
      const lamp = new DirectionalLight(0xffffff, strength); // moves with the eye: every side is lit
      lamp.position.set(x, y, z);
      this.camera.add(lamp, lamp.target);
    }
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.enablePan = false;
    this.controls.addEventListener("change", () => { this.move(); this.draw(); });
    this.still = false;
    this.look = "textured";
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("webglcontextrestored", () => this.draw());
    new ResizeObserver(() => this.fit()).observe(canvas);
  }

  // Fetch and show a file; resolves to the seconds of its key frames.
  async load(href) {
    const answer = await fetch(href);
    if (!answer.ok) throw problemOf(answer.status, await answer.text());
    this.clip = readGlb(await answer.arrayBuffer());
    const { positions, normals, uv, triangles, picture, times, scale } = this.clip;
    this.geometry = new BufferGeometry();
    this.geometry.setAttribute("position", new BufferAttribute(positions.slice(), 3));
    this.geometry.setAttribute("normal", new BufferAttribute(normals.slice(), 3));
    if (uv) this.geometry.setAttribute("uv", new BufferAttribute(uv, 2));
    this.geometry.setIndex(new BufferAttribute(triangles, 1));
    if (picture) this.texture = Object.assign(new CanvasTexture(await createImageBitmap(picture)), { flipY: false, colorSpace: SRGBColorSpace });
    this.mesh = new Mesh(this.geometry, new MeshLambertMaterial({ side: DoubleSide }));
    this.setLook(this.look);
    this.mesh.frustumCulled = false; // shapes move it out of its box
    this.mesh.scale.setScalar(scale);
    this.scene.add(this.mesh);
    this.seek(times[0]);
    this.mesh.updateMatrixWorld();
    this.geometry.computeBoundingSphere();
    this.ball = this.geometry.boundingSphere.clone().applyMatrix4(this.mesh.matrixWorld);
    this.rest = { position: this.mesh.position.clone(), quaternion: this.mesh.quaternion.clone() };
    this.reset();
    return times;
  }

  // Shapes and motion at a time of the clip, straight between key frames.
  seek(seconds) {
    if (this.rest) this.move();
    const { times, shapes, positions, normals, rotation, translation, weights } = this.clip;
    const after = times.findIndex((time) => time > seconds);
    const high = after < 0 ? times.length - 1 : after, low = Math.max(high - 1, 0);
    const share = high === low ? 0 : Math.max(0, Math.min(1, (seconds - times[low]) / (times[high] - times[low])));
    const { position, normal } = this.geometry.attributes;
    position.array.set(positions);
    normal.array.set(normals);
    shapes.forEach((shape, k) => {
      const a = weights[low * shapes.length + k], b = weights[high * shapes.length + k], weight = a + share * (b - a);
      if (Math.abs(weight) < 1e-4) return;
      addPart(position.array, shape.position, weight);
      addPart(normal.array, shape.normal, weight);
    });
    position.needsUpdate = normal.needsUpdate = true;
    const turn = new Quaternion().fromArray(rotation, 4 * low).slerp(new Quaternion().fromArray(rotation, 4 * high), share);
    const place = new Vector3().fromArray(translation, 3 * low).lerp(new Vector3().fromArray(translation, 3 * high), share);
    this.mesh.quaternion.copy(this.still && this.rest ? this.rest.quaternion : turn);
    this.mesh.position.copy(this.still && this.rest ? this.rest.position : place);
    this.draw();
  }

  // [look, name] of what this file can be shown as.
  get looks() {
    const measured = Object.keys(this.clip.measures).filter((name) => MEASURES[name]).map((name) => [name, MEASURES[name].name]);
    return [...Object.entries(LOOKS), ...measured];
  }

  // The scale of a coloured look in words and colours; null for the others.
  get scale() {
    if (!MEASURES[this.look]) return null;
    const { says, digits } = MEASURES[this.look];
    return { says, to: top(this.clip.measures[this.look]).toFixed(digits), colours: [0, 0.25, 0.5, 0.75, 1].map(colourAt) };
  }

  setLook(look) {
    this.look = look;
    const { material } = this.mesh, measure = MEASURES[look] ? this.clip.measures[look] : null;
    const own = look === "textured" && !this.texture ? this.clip.colours : null;
    if (measure) this.colour(measure);
    else if (own) this.geometry.setAttribute("color", new BufferAttribute(own, this.clip.colourSize, !(own instanceof Float32Array)));
    material.map = look === "textured" ? this.texture || null : null;
    material.color.setHex(look === "textured" || measure ? 0xffffff : CLAY);
    material.vertexColors = Boolean(measure || own);
    material.wireframe = look === "wireframe";
    material.needsUpdate = true;
    this.draw();
  }

  colour(measure) {
    const most = top(measure), colours = new Uint8Array(3 * measure.length);
    measure.forEach((value, k) => colours.set(linear(Number.isFinite(value) && value >= 0 ? colourAt(value / most) : [150, 150, 150]), 3 * k));
    this.geometry.setAttribute("color", new BufferAttribute(colours, 3, true));
  }

  // As the clip's camera sees it, from near enough to fill the view.
  reset() {
    const towards = this.ball.center.clone().negate();
    if (towards.length() < 1e-6) towards.set(0, 0, 1);
    const reach = 0.9 * this.ball.radius / Math.sin(FOV_DEG * Math.PI / 360) / Math.min(1, this.camera.aspect);
    this.camera.position.copy(this.ball.center).addScaledVector(towards.normalize(), reach);
    this.controls.target.copy(this.ball.center);
    this.controls.minDistance = 0.3 * reach;
    this.controls.maxDistance = 3 * reach;
    this.controls.update();
    this.draw();
  }

  turn(sideways, upwards, nearer = 1) {
    const arm = new Spherical().setFromVector3(new Vector3().subVectors(this.camera.position, this.controls.target));
    arm.theta += sideways;
    arm.phi += upwards;
    arm.radius /= nearer;
    this.camera.position.setFromSpherical(arm.makeSafe()).add(this.controls.target);
    this.controls.update();
    this.draw();
  }

  key(event) {
    const keys = {
      ArrowLeft: () => this.turn(-0.1, 0), ArrowRight: () => this.turn(0.1, 0), ArrowUp: () => this.turn(0, -0.1),
      ArrowDown: () => this.turn(0, 0.1), "+": () => this.turn(0, 0, 1.1), "=": () => this.turn(0, 0, 1.1),
      "-": () => this.turn(0, 0, 1 / 1.1), 0: () => this.reset(),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key] || !this.mesh) return;
    event.preventDefault();
    keys[event.key]();
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    const coarse = this.moving ? COARSE : 1;
    this.renderer.setPixelRatio(drawnByProcessor() ? coarse : Math.min(devicePixelRatio || 1, 2));
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    this.paint();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.paint(); });
  }

  // While things move, a processor that draws draws fewer pixels; all of them as soon as they rest.
  move() {
    if (!drawnByProcessor()) return;
    clearTimeout(this.resting);
    this.resting = setTimeout(() => { this.moving = false; this.fit(); }, REST_MS);
    if (!this.moving) { this.moving = true; this.fit(); }
  }

  paint() {
    this.renderer.render(this.scene, this.camera);
    this.painted = (this.painted || 0) + 1;
  }
}

// Colours of corners are linear light there; the scale beside the view is sRGB.
const linear = (colour) => colour.map((value) => Math.round(255 * (value / 255) ** 2.2));

// Whether there is no graphics processor: then every pixel counts, and edges are not smoothed.
let processorDraws = null;
function drawnByProcessor() {
  if (processorDraws === null) {
    const gl = document.createElement("canvas").getContext("webgl2");
    const facts = gl && gl.getExtension("WEBGL_debug_renderer_info");
    processorDraws = Boolean(facts && /swiftshader|llvmpipe|software|basic render/i.test(gl.getParameter(facts.UNMASKED_RENDERER_WEBGL)));
    if (gl) gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
  return processorDraws;
}
