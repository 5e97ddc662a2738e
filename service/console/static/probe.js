// The person that is looked for: pictures of the visitor's, or crops of the gallery.

import { el, picture } from "./api.js";
import { readMarketName } from "./marketnames.js";

export const MAX_PICTURES = 16;
const MAX_BYTES = 8 * 2 ** 20;
const TYPES = ["image/jpeg", "image/png", "image/webp"];

// Why a file cannot be a picture of a query, null when it can.
export function refusal(file) {
  if (!TYPES.includes(file.type)) return `“${file.name}” is not a JPEG, PNG or WebP picture; choose another.`;
  if (file.size === 0) return `“${file.name}” is empty; choose another.`;
  if (file.size > MAX_BYTES) return `“${file.name}” has more than 8 MiB; crop the person out of it first.`;
  return null;
}

// A picture of the visitor's. Names in the form of Market-1501 say the camera, as they do when it is enrolled.
export function fileProbe(file) {
  const url = URL.createObjectURL(file);
  const image = el("img", { src: url, alt: "" });
  const camera = readMarketName(file.name)?.camera ?? null;
  const one = frame(image, file.name);
  return { ...one, file, name: file.name, camera, forget: () => URL.revokeObjectURL(url) };
}

// A crop of the gallery, as the API describes it.
export function cropProbe(crop) {
  const image = coverable(picture(crop.crop_id), crop.crop_id);
  const name = [crop.identity ?? "no identity", crop.camera].filter(Boolean).join(", ");
  return { ...frame(image, name), cropId: crop.crop_id, name, camera: crop.camera, forget: () => image.uncover() };
}

function frame(image, name) {
  const figure = el("div", { class: "frame" }, image);
  return {
    element: figure,
    name,
    mark: (wrong) => figure.classList.toggle("wrong", wrong),
    cover: (canvas) => figure.replaceChildren(image, ...(canvas === null ? [] : [canvas])),
  };
}

// An entry of the list of the probe's pictures.
export function probeItem(one, remove) {
  const label = `Remove ${one.name}`;
  const button = el("button", { type: "button", class: "remove", "aria-label": label, title: label, onclick: remove }, "×");
  return el("li", {}, one.element, button, el("span", { class: "name", title: one.name }, one.name));
}

// Lets a crop's picture be covered with another one of it, and uncovered.
export function coverable(image, cropId) {
  const own = image.src;
  let url = null;
  image.dataset.attention = cropId;
  image.uncover = () => {
    if (url !== null) URL.revokeObjectURL(url);
    if (url !== null) image.src = own;
    url = null;
  };
  image.cover = (blob) => {
    image.uncover();
    url = URL.createObjectURL(blob);
    image.src = url;
  };
  return image;
}
