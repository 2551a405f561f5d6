// The 3D view of the chosen face, and its expressions.

const byId = (id) => document.getElementById(id);
const STEPS = 200; // of a slider

export class FaceView {
  #expressions = [];
  #rotation = null;
  #viewer = null;

  constructor() {
    byId("styles").addEventListener("change", (event) => this.#viewer.setStyle(event.target.value));
    byId("front").addEventListener("click", () => this.#viewer.look(null));
    byId("as-in-picture").addEventListener("click", () => this.#viewer.look(this.#rotation));
    byId("neutral").addEventListener("click", () => this.#setAll(() => 0));
    byId("fitted").addEventListener("click", () => this.#setAll(({ weight }) => weight));
  }

  /**
   * Load what draws the view.
   *
   * @throws {Error} saying why there is none
   */
  async open() {
    if (this.#viewer) return;
    const { FaceViewer } = await import("./face_viewer.js").catch(() => {
      throw new Error(
        "This installation was built without it, since npm or the network was missing.",
      );
    });
    try {
      this.#viewer = new FaceViewer(byId("canvas"));
    } catch {
      throw new Error("This browser offers no WebGL 2.");
    }
  }

  /**
   * @param {Blob} mesh a GLB file with one face
   * @param {number[][]} rotation of the head in the picture
   * @param {string} name for those who do not see it
   */
  async show(mesh, rotation, name) {
    this.#expressions = await this.#viewer.show(await mesh.arrayBuffer());
    this.#rotation = rotation;
    this.#viewer.look(rotation);
    byId("canvas").setAttribute("aria-label", `${name} in 3D`);
    byId("expressions").hidden = !this.#expressions.length;
    byId("sliders").replaceChildren(...this.#expressions.map((_, i) => this.#row(i)));
  }

  #row(i) {
    const { name, weight, min, max } = this.#expressions[i];
    const row = document.createElement("label");
    const slider = document.createElement("input");
    const value = document.createElement("output");
    Object.assign(slider, { type: "range", name, min, max, step: (max - min) / STEPS });
    slider.value = weight;
    value.value = rounded(weight);
    slider.addEventListener("input", () => {
      value.value = rounded(slider.valueAsNumber);
      this.#viewer.setWeights(sliders().map((each) => each.valueAsNumber));
    });
    row.append(inWords(name), slider, value);
    return row;
  }

  #setAll(weightOf) {
    const weights = this.#expressions.map(weightOf);
    sliders().forEach((slider, i) => {
      slider.value = weights[i];
      slider.nextElementSibling.value = rounded(weights[i]);
    });
    this.#viewer.setWeights(weights);
  }
}

const sliders = () => [...byId("sliders").querySelectorAll("input")];

/** Two significant digits, without an exponent. */
const rounded = (weight) => Number(weight.toPrecision(2)).toLocaleString("en");

/** "eyeBlinkLeft" as "Eye blink left". */
function inWords(name) {
  const words = name.replace(/([a-z])([A-Z0-9])/g, "$1 $2").toLowerCase();
  return words[0].toUpperCase() + words.slice(1);
}
