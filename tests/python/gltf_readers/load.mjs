// Prints the meshes that three.js makes of a GLB file, as JSON. Positions are those of the posed,
// morphed vertices in the scene.
import fs from "node:fs";

// What the loader expects of a browser. Pictures are not decoded, only counted.
globalThis.self = globalThis;
globalThis.createImageBitmap = async (blob) => ({ size: blob.size, type: blob.type, close() {} });

const { Vector3 } = await import("three");
const { GLTFLoader } = await import("three/addons/loaders/GLTFLoader.js");

const bytes = fs.readFileSync(process.argv[2]);
const content = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
const { scene } = await new GLTFLoader().parseAsync(content, "");
scene.updateMatrixWorld(true);
const meshes = [];
scene.traverse((object) => {
  if (!object.isMesh) return;
  const { attributes, index } = object.geometry;
  const point = new Vector3();
  const positions = Array.from({ length: attributes.position.count }, (_, i) =>
    object.localToWorld(object.getVertexPosition(i, point)).toArray(),
  );
  const { map } = object.material;
  meshes.push({
    name: object.name,
    positions,
    triangles: Array.from(index.array),
    uv: Array.from(attributes.uv.array),
    targets: object.morphTargetDictionary,
    weights: object.morphTargetInfluences,
    texture: { flipped: map.flipY, space: map.colorSpace, ...map.image },
  });
});
console.log(JSON.stringify(meshes));
