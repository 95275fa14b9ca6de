// What service/web/head.js uses of three.js, and nothing else.
export {
  BufferAttribute, BufferGeometry, CanvasTexture, DirectionalLight, DoubleSide, HemisphereLight, Mesh, MeshLambertMaterial, PerspectiveCamera,
  Quaternion, Scene, Spherical, SRGBColorSpace, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
