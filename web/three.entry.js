// What service/web/head.js uses of three.js, and nothing else.
export {
  AnimationMixer, Box3, Color, DirectionalLight, HemisphereLight, LoopOnce, PerspectiveCamera, Scene, Sphere, Spherical, Vector3,
  WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
export { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";
