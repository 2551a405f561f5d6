// Requests to the server that this page comes from. It stores no pictures, so each request carries
// its own, a File.

/** What the server or the network answered instead of a result; the message is for people. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status; // of HTTP; 0: no answer
  }
}

let apiKey = "";

/** Send this key with all requests from now on. */
export function useKey(key) {
  apiKey = key;
}

/** The faces of a picture, as in the project's JSON results. */
export async function align(picture, signal) {
  const response = await post("align", picture, signal);
  return (await response.json())[0];
}

/** The picture with an overlay, as a Blob; modes as in threedfa.render. */
export async function render(picture, mode, signal) {
  return (await post(`render/${mode}`, picture, signal)).blob();
}

/** The mesh of one face as a Blob; format: glb, ply, or obj (a zip file). */
export async function mesh(picture, face, format, signal) {
  return (await post(`mesh?format=${format}&face=${face}`, picture, signal)).blob();
}

/** The texture of one face, a PNG file as a Blob. */
export async function texture(picture, face, signal) {
  return (await post(`texture?face=${face}`, picture, signal)).blob();
}

async function post(route, picture, signal) {
  const body = new FormData();
  body.append("image", picture);
  const headers = apiKey ? { Authorization: `Bearer ${apiKey}` } : {};
  let response;
  try {
    response = await fetch(`v1/${route}`, { method: "POST", body, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. Is it still running?", 0);
  }
  if (response.ok) return response;
  throw new ServerError(await problem(response), response.status);
}

/** What a problem+json answer says. Pictures have numbers there; here there is only one. */
async function problem(response) {
  const { detail } = await response.json().catch(() => ({}));
  const said =
    detail?.replace(/^picture 0: /, "") || `the server answered with status ${response.status}`;
  return `${said[0].toUpperCase()}${said.slice(1)}.`;
}
