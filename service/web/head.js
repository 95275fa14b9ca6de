// The animated head of a GLB file: one mesh with shapes, turned by pointer, touch and keys, drawn only when something changes.

import {
  AnimationMixer, Box3, DirectionalLight, GLTFLoader, HemisphereLight, LoopOnce, OrbitControls, PerspectiveCamera, Scene, Sphere,
  Spherical, Vector3, WebGLRenderer,
} from "/web/three.js";
import { problemOf } from "/web/api.js";

const FOV_DEG = 26;
const CLAY = 0xc9c5bf;
export const LOOKS = { textured: "Texture", shaded: "Shape", wireframe: "Triangles" };

export class Head {
  constructor(canvas) {
    this.canvas = canvas;
    try {
      this.renderer = new WebGLRenderer({ canvas, antialias: true, alpha: true });
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
    this.controls.addEventListener("change", () => this.draw());
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
    const gltf = await new GLTFLoader().parseAsync(await answer.arrayBuffer(), "");
    this.scene.add(gltf.scene);
    gltf.scene.traverse((node) => { if (node.isMesh) this.mesh = node; });
    this.mesh.frustumCulled = false; // shapes move it out of its box
    this.texture = this.mesh.material.map;
    this.coloured = this.mesh.material.vertexColors; // a model without a texture has its colours there
    this.paper = this.mesh.material.color.clone();
    const [clip] = gltf.animations;
    this.times = clip ? Array.from(clip.tracks[0].times) : [0];
    if (clip) {
      this.mixer = new AnimationMixer(gltf.scene);
      const action = this.mixer.clipAction(clip);
      action.setLoop(LoopOnce);
      action.clampWhenFinished = true;
      action.play();
    }
    this.seek(this.times[0]);
    this.rest = { position: this.mesh.position.clone(), quaternion: this.mesh.quaternion.clone() };
    this.ball = new Box3().setFromObject(this.mesh, true).getBoundingSphere(new Sphere());
    this.reset();
    return this.times;
  }

  seek(seconds) {
    if (this.mixer) {
      for (const action of this.mixer._actions) { action.enabled = true; action.paused = false; }
      this.mixer.setTime(seconds);
    }
    if (this.still && this.rest) {
      this.mesh.position.copy(this.rest.position);
      this.mesh.quaternion.copy(this.rest.quaternion);
    }
    this.draw();
  }

  setLook(look) {
    this.look = look;
    const { material } = this.mesh;
    material.map = look === "textured" ? this.texture : null;
    material.vertexColors = look === "textured" && this.coloured;
    material.color.copy(this.paper);
    if (look !== "textured") material.color.setHex(CLAY);
    material.wireframe = look === "wireframe";
    material.needsUpdate = true;
    this.draw();
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
    this.renderer.setPixelRatio(Math.min(devicePixelRatio || 1, 2));
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

  paint() { this.renderer.render(this.scene, this.camera); }
}
