// The page: takes a picture to the server and shows what comes back.
import { FaceView } from "./face_view.js";
import { PictureView } from "./picture_view.js";
import { watchSources } from "./picture_source.js";
import * as server from "./server.js";

const byId = (id) => document.getElementById(id);
const THUMBNAIL = 96; // pixels

const pictureView = new PictureView(select);
const faceView = new FaceView();

// What is on the page: { picture, abort, result, face, surface, meshes, summary }. A new picture ends the
// requests of the one before.
let session = null;
const running = []; // what the page waits for, in words

watchSources(open, showProblem);
byId("surfaces").addEventListener("change", showSurface);
byId("downloads").addEventListener("click", ({ target }) => {
  if (target.dataset.file) download(target.dataset.file);
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  server.useKey(byId("key").value);
  open(session.picture);
});

async function open(picture) {
  session?.abort.abort();
  const abort = new AbortController();
  session = { picture, abort, result: null, face: 0, surface: "", meshes: new Map(), summary: "" };
  for (const id of ["work", "overlays", "faces", "face", "error", "key-form"]) {
    byId(id).hidden = true;
  }
  byId("surfaces").querySelector("input").checked = true;
  await task("Looking for faces…", async (signal) => {
    await pictureView.showPicture(picture);
    byId("work").hidden = false;
    const result = await server.align(picture, signal);
    session.result = result;
    pictureView.showFaces(result);
    const count = result.faces.length;
    if (!count) {
      throw new Error("No face was found. Faces that are larger or seen more from the front help.");
    }
    session.summary = count === 1 ? "One face found." : `${count} faces found.`;
    for (const id of ["overlays", "face"]) byId(id).hidden = false;
    showChoice();
    select(0);
  });
}

/** One radio button, with a picture, for each face; none if there is no choice. */
function showChoice() {
  const { faces } = session.result;
  const choices = faces.map((face, i) => {
    const label = document.createElement("label");
    const button = document.createElement("input");
    Object.assign(button, { type: "radio", name: "face", value: i, checked: i === 0 });
    button.addEventListener("change", () => select(i));
    label.append(button, pictureView.thumbnail(face, THUMBNAIL), `Face ${i + 1}`);
    return label;
  });
  byId("faces").querySelectorAll("label").forEach((label) => label.remove());
  byId("faces").append(...choices);
  byId("faces").hidden = faces.length < 2;
}

function select(i) {
  const { faces } = session.result;
  session.face = i;
  byId("faces").querySelectorAll("input")[i].checked = true;
  pictureView.select(i);
  byId("face-title").textContent = faces.length === 1 ? "Face" : `Face ${i + 1}`;
  showPose(faces[i].pose);
  showFace();
}

function showPose({ yaw, pitch, roll }) {
  const rows = [
    ["Yaw", yaw, "the nose points to the picture’s", "right", "left"],
    ["Pitch", pitch, "the nose points", "up", "down"],
    ["Roll", roll, "turned in the picture", "clockwise", "anticlockwise"],
  ].map(([name, angle, does, positive, negative]) => {
    const row = document.createElement("div");
    const [term, value, meaning] = ["dt", "dd", "dd"].map((tag) => document.createElement(tag));
    term.textContent = name;
    value.textContent = `${angle < 0 ? "−" : ""}${Math.abs(angle).toFixed(1)}°`;
    meaning.textContent = `${does} ${angle < 0 ? negative : positive}`;
    row.append(term, value, meaning);
    return row;
  });
  byId("pose").replaceChildren(...rows);
}

function showFace() {
  const mine = session;
  const { face } = mine;
  byId("view").classList.add("stale");
  return task("Fetching the mesh…", async (signal) => {
    const off = byId("view-off");
    try {
      await faceView.open();
      const mesh = await meshOf(mine, face);
      if (signal.aborted || mine.face !== face) return; // another was chosen meanwhile
      await faceView.show(mesh, mine.result.faces[face].pose.rotation, `Face ${face + 1}`);
      off.textContent = "";
      byId("view").classList.remove("stale");
    } catch (error) {
      if (signal.aborted) return;
      off.textContent = `The 3D view is off. ${error.message}`;
    }
    off.hidden = !off.textContent;
    byId("view").hidden = !off.hidden;
  });
}

/** The GLB file of a face, asked for once. */
function meshOf({ abort, meshes, picture }, face) {
  if (!meshes.has(face)) {
    const mesh = server.mesh(picture, face, "glb", abort.signal);
    mesh.catch(() => meshes.delete(face));
    meshes.set(face, mesh);
  }
  return meshes.get(face);
}

async function showSurface() {
  const mode = byId("surfaces").querySelector("input:checked").value;
  session.surface = mode;
  if (!mode) return pictureView.showSurface(null);
  await task("Drawing…", async (signal) => {
    const picture = await server.render(session.picture, mode, signal);
    if (mode === session.surface) pictureView.showSurface(picture);
  });
}

async function download(kind) {
  const { abort, face, picture, result } = session;
  const stem = picture.name.replace(/\.[^.]*$/, "");
  const files = {
    glb: ["glb", () => meshOf(session, face)],
    ply: ["ply", () => server.mesh(picture, face, "ply", abort.signal)],
    obj: ["zip", () => server.mesh(picture, face, "obj", abort.signal)],
    texture: ["png", () => server.texture(picture, face, abort.signal)],
    json: ["json", () => new Blob([JSON.stringify([result])], { type: "application/json" })],
  };
  const [suffix, content] = files[kind];
  const name = kind === "json" ? stem : `${stem}_face${face + 1}`;
  await task(`Making ${name}.${suffix}…`, async () => save(await content(), `${name}.${suffix}`));
}

function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser has begun by then
}

/** Run something that takes time, and say so; what goes wrong is said too. */
async function task(words, run) {
  const { signal } = session.abort;
  byId("error").hidden = true;
  running.push(words);
  showState();
  try {
    await run(signal);
  } catch (error) {
    if (!signal.aborted) showProblem(error.message, error.status);
  } finally {
    running.splice(running.indexOf(words), 1);
    showState();
  }
}

function showState() {
  byId("status").textContent = running.at(-1) ?? session.summary;
  document.body.classList.toggle("waiting", running.length > 0);
}

function showProblem(message, status) {
  byId("error").textContent = message;
  byId("error").hidden = false;
  byId("key-form").hidden = status !== 401;
}
