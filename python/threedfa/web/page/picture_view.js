// The picture with what is laid over it: boxes and landmarks drawn here, surfaces by the server.

const byId = (id) => document.getElementById(id);

export class PictureView {
  #faces = [];
  #onSelect;
  #selected = 0;
  #size = { width: 1, height: 1 };

  /** @param {(face: number) => void} onSelect is called for a click on a face's box */
  constructor(onSelect) {
    this.#onSelect = onSelect;
    for (const id of ["boxes", "landmarks"]) {
      byId(id).addEventListener("change", () => this.#drawMarks());
    }
  }

  /**
   * Show a picture without anything on it.
   *
   * @param {Blob} picture
   * @throws {Error} if the browser cannot read it
   */
  async showPicture(picture) {
    const photo = byId("photo");
    this.showSurface(null);
    this.showFaces({ image: this.#size, faces: [] });
    photo.alt = "";
    replaceSource(photo, picture);
    try {
      await photo.decode();
    } catch {
      throw new Error("This file is no picture that the browser can show. Try a JPEG or PNG file.");
    }
    photo.alt = `The picture, ${photo.naturalWidth} by ${photo.naturalHeight} pixels`;
  }

  /** @param {{image: {width: number, height: number}, faces: object[]}} result of align */
  showFaces({ image, faces }) {
    this.#faces = faces;
    this.#size = image;
    this.select(0);
  }

  /** @param {Blob | null} picture that the server rendered; null: none */
  showSurface(picture) {
    const surface = byId("surface");
    surface.hidden = !picture;
    replaceSource(surface, picture);
  }

  select(face) {
    this.#selected = face;
    this.#drawMarks();
  }

  /** A square of the photo around a face, as a canvas of ``size`` pixels. */
  thumbnail(face, size) {
    const [left, top, right, bottom] = face.bbox;
    const side = 1.2 * Math.max(right - left, bottom - top);
    const [x, y] = [(left + right - side) / 2 + 0.5, (top + bottom - side) / 2 + 0.5];
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = size;
    canvas.getContext("2d").drawImage(byId("photo"), x, y, side, side, 0, 0, size, size);
    return canvas;
  }

  #drawMarks() {
    const marks = byId("marks");
    const { width, height } = this.#size;
    // The centre of the top-left pixel is (0, 0).
    marks.setAttribute("viewBox", `-0.5 -0.5 ${width} ${height}`);
    marks.setAttribute("aria-label", `${this.#faces.length} marked faces`);
    marks.replaceChildren();
    this.#faces.forEach((face, i) => {
      const state = i === this.#selected ? "selected" : "";
      if (byId("landmarks").checked) {
        const points = face.landmarks.map(([x, y]) => `M${x} ${y}h0`).join("");
        marks.append(element("path", { d: points, class: `points ${state}` }));
      }
      if (byId("boxes").checked) {
        const [x, y, right, bottom] = face.bbox;
        const frame = { x, y, width: right - x, height: bottom - y, class: `box ${state}` };
        const box = element("rect", frame);
        box.addEventListener("click", () => this.#onSelect(i));
        marks.append(box);
      }
    });
  }
}

function element(name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function replaceSource(image, picture) {
  if (image.src) URL.revokeObjectURL(image.src);
  if (picture) image.src = URL.createObjectURL(picture);
  else image.removeAttribute("src");
}
