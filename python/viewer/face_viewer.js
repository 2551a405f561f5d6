// The 3D view of one face: a GLB file of the server, drawn with three.js. Drawn only when something
// has changed.
import {
  Color,
  DirectionalLight,
  DoubleSide,
  Group,
  HemisphereLight,
  Matrix4,
  Mesh,
  MeshBasicMaterial,
  MeshStandardMaterial,
  PerspectiveCamera,
  Scene,
  Spherical,
  WebGLRenderer,
} from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";

const FIELD_OF_VIEW = 25; // degrees
const KEY_TURN = Math.PI / 24;
const KEY_ZOOM = 1.1;
const CLAY = new Color(0xcfc6bd);
const WIRE = new Color(0x2f8f8a);
// The range of an expression that is no blend shape: it moves a vertex by at most this share of
// the face's size.
const FREE_RANGE = 0.08;

export class FaceViewer {
  #camera = new PerspectiveCamera(FIELD_OF_VIEW);
  #canvas;
  #controls;
  #face = null; // { mesh, hider, targets, neutral }
  #frame = 0;
  #renderer;
  #scene = new Scene();
  #stand = new Group(); // turns the face about its middle
  #style = "textured";

  /**
   * @param {HTMLCanvasElement} canvas is drawn into, and takes the pointer and the arrow keys
   * @throws {Error} if the browser has no WebGL 2
   */
  constructor(canvas) {
    this.#canvas = canvas;
    this.#renderer = new WebGLRenderer({ canvas, antialias: true, alpha: true });
    const sun = new DirectionalLight(0xffffff, 2.2);
    sun.position.set(-0.6, 0.8, 1);
    this.#camera.add(sun); // shines over the viewer's shoulder
    this.#scene.add(this.#camera, this.#stand, new HemisphereLight(0xffffff, 0x8090a0, 1.1));
    this.#controls = new OrbitControls(this.#camera, canvas);
    this.#controls.enablePan = false;
    this.#controls.addEventListener("change", () => this.#draw());
    canvas.addEventListener("keydown", (event) => this.#onKey(event));
    new ResizeObserver(() => this.#draw()).observe(canvas);
  }

  /**
   * Show the first mesh of a GLB file.
   *
   * @param {ArrayBuffer} content
   * @returns {Promise<{name: string, weight: number, min: number, max: number}[]>} its expressions
   */
  async show(content) {
    const { scene } = await new GLTFLoader().parseAsync(content, "");
    const mesh = scene.getObjectByProperty("isMesh", true);
    const geometry = mesh.geometry;
    const targets = (geometry.morphAttributes.position ?? []).map((target) => target.array);
    const weights = mesh.morphTargetInfluences ?? [];
    // Vertices are moved here instead of by three.js, so that their normals follow.
    geometry.morphAttributes = {};
    geometry.computeBoundingSphere(); // with targets it would hold the sum of them all
    const { center, radius } = geometry.boundingSphere;
    const neutral = geometry.attributes.position.array.slice();

    this.#remove();
    const shown = new Mesh(geometry);
    const hider = new Mesh(geometry, new MeshBasicMaterial({ colorWrite: false }));
    hider.material.side = DoubleSide;
    hider.material.polygonOffset = true;
    hider.material.polygonOffsetFactor = hider.material.polygonOffsetUnits = 1;
    hider.renderOrder = -1; // before the lines that it hides
    for (const part of [shown, hider]) {
      part.position.copy(center).negate();
      part.frustumCulled = false; // it moves
      this.#stand.add(part);
    }
    this.#face = { mesh: shown, hider, targets, neutral, radius, materials: materials(mesh) };
    this.setStyle(this.#style);
    this.setWeights(weights);
    return expressions(mesh, targets, weights, radius);
  }

  /** @param {"textured" | "shaded" | "wireframe"} style */
  setStyle(style) {
    this.#style = style;
    if (!this.#face) return;
    this.#face.mesh.material = this.#face.materials[style];
    this.#face.hider.visible = style === "wireframe";
    this.#draw();
  }

  /** @param {number[]} weights of all expressions, in their order */
  setWeights(weights) {
    const { mesh, targets, neutral } = this.#face;
    const { position } = mesh.geometry.attributes;
    const vertices = position.array;
    vertices.set(neutral);
    targets.forEach((target, i) => {
      const weight = weights[i];
      if (weight === 0) return;
      for (let j = 0; j < vertices.length; j++) vertices[j] += weight * target[j];
    });
    position.needsUpdate = true;
    mesh.geometry.computeVertexNormals();
    this.#draw();
  }

  /**
   * Look at the face from the front.
   *
   * @param {number[][] | null} rotation of the head, three rows, y up; null: upright
   */
  look(rotation) {
    const matrix = new Matrix4();
    if (rotation) matrix.set(...rotation.flatMap((row) => [...row, 0]), 0, 0, 0, 1);
    this.#stand.setRotationFromMatrix(matrix);
    const radius = this.#face.radius;
    const distance = (1.05 * radius) / Math.sin((FIELD_OF_VIEW * Math.PI) / 360);
    this.#camera.near = distance / 100;
    this.#camera.far = distance * 10;
    this.#camera.position.set(0, 0, distance);
    this.#controls.target.set(0, 0, 0);
    this.#controls.minDistance = radius;
    this.#controls.maxDistance = 4 * distance;
    this.#controls.update();
    this.#draw();
  }

  #remove() {
    if (!this.#face) return;
    const { mesh, hider, materials } = this.#face;
    this.#stand.remove(mesh, hider);
    mesh.geometry.dispose();
    hider.material.dispose();
    materials.textured.map?.dispose();
    for (const material of Object.values(materials)) material.dispose();
    this.#face = null;
  }

  #onKey(event) {
    const offset = new Spherical().setFromVector3(this.#camera.position);
    const { key } = event;
    if (key === "ArrowLeft") offset.theta -= KEY_TURN;
    else if (key === "ArrowRight") offset.theta += KEY_TURN;
    else if (key === "ArrowUp") offset.phi -= KEY_TURN;
    else if (key === "ArrowDown") offset.phi += KEY_TURN;
    else if (key === "+" || key === "=") offset.radius /= KEY_ZOOM;
    else if (key === "-") offset.radius *= KEY_ZOOM;
    else return;
    event.preventDefault();
    this.#camera.position.setFromSpherical(offset.makeSafe());
    this.#controls.update(); // keeps the distance within its limits
  }

  #draw() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      const { clientWidth: width, clientHeight: height } = this.#canvas;
      if (!width || !height) return;
      this.#renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
      this.#renderer.setSize(width, height, false);
      // The whole face is seen in a narrow view too.
      this.#camera.zoom = Math.min(1, width / height);
      this.#camera.aspect = width / height;
      this.#camera.updateProjectionMatrix();
      this.#renderer.render(this.#scene, this.#camera);
    });
  }
}

function materials(mesh) {
  const { map, vertexColors } = mesh.material;
  const side = DoubleSide; // faces are open at the back
  return {
    // The picture has its light already.
    textured: new MeshBasicMaterial({ map, vertexColors, side }),
    shaded: new MeshStandardMaterial({ color: CLAY, roughness: 0.65, side }),
    wireframe: new MeshBasicMaterial({
      color: WIRE,
      wireframe: true,
      transparent: true,
      opacity: 0.35, // dense meshes have more lines than pixels
    }),
  };
}

function expressions(mesh, targets, weights, radius) {
  const names = Object.keys(mesh.morphTargetDictionary ?? {});
  const blendShapes = names.some((name) => name === "jawOpen");
  return names.map((name, i) => {
    const weight = weights[i];
    if (blendShapes) return { name, weight, min: Math.min(0, weight), max: Math.max(1, weight) };
    const free = (FREE_RANGE * 2 * radius) / longest(targets[i]);
    const limit = Math.max(free, Math.abs(weight));
    return { name, weight, min: -limit, max: limit };
  });
}

/** Length of the longest displacement; at least so much that one can divide by it. */
function longest(target) {
  let squared = Number.MIN_VALUE;
  for (let i = 0; i < target.length; i += 3) {
    squared = Math.max(squared, target[i] ** 2 + target[i + 1] ** 2 + target[i + 2] ** 2);
  }
  return Math.sqrt(squared);
}
