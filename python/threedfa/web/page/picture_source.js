// Where pictures come from: a file dropped on the page, a file chosen, or the camera.

const byId = (id) => document.getElementById(id);

/**
 * @param {(picture: File) => void} onPicture
 * @param {(message: string) => void} onProblem
 */
export function watchSources(onPicture, onProblem) {
  watchFiles(onPicture, onProblem);
  watchCamera(onPicture, onProblem);
}

function watchFiles(onPicture, onProblem) {
  const input = byId("file");
  input.addEventListener("change", () => {
    if (input.files.length) onPicture(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  const marked = document.body.classList;
  addEventListener("dragover", (event) => {
    event.preventDefault();
    marked.add("dropping");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) marked.remove("dropping");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    marked.remove("dropping");
    const { files } = event.dataTransfer;
    if (files.length === 1) onPicture(files[0]);
    else onProblem(`Expected one picture, got ${files.length || "something that is no file"}.`);
  });
}

function watchCamera(onPicture, onProblem) {
  const dialog = byId("camera-dialog");
  const video = byId("video");
  const take = byId("take");
  const stop = () => {
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  };
  byId("camera").addEventListener("click", async () => {
    stop();
    take.disabled = true; // until there is something to take
    try {
      video.srcObject = await openCamera();
      dialog.showModal();
    } catch (error) {
      onProblem(error.message);
    }
  });
  video.addEventListener("loadeddata", () => (take.disabled = false));
  byId("cancel").addEventListener("click", () => dialog.close());
  take.addEventListener("click", async () => {
    const picture = await frameOf(video);
    dialog.close();
    onPicture(picture);
  });
  dialog.addEventListener("close", () => {
    if (!dialog.open) stop(); // the event comes late: it may be open again
  });
}

async function openCamera() {
  if (!navigator.mediaDevices) {
    throw new Error("The browser gives the camera only to pages that come by HTTPS or localhost.");
  }
  try {
    const size = { width: { ideal: 1280 }, height: { ideal: 960 } };
    return await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", ...size } });
  } catch (error) {
    const reasons = {
      NotAllowedError: "The camera was not allowed. Allow it for this page, and try again.",
      NotFoundError: "No camera was found.",
      NotReadableError: "The camera is in use by another program.",
    };
    throw new Error(reasons[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
}

function frameOf(video) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => {
    const type = "image/jpeg";
    canvas.toBlob((content) => resolve(new File([content], "camera.jpg", { type })), type, 0.95);
  });
}
