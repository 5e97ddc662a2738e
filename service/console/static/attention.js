// The model's attention over a picture that is not in the gallery, in the colours of attention.png.

import { el } from "./api.js";

const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

// h rows of w weights as a canvas of so many pixels; the style sheet lays it over the picture.
export function heatmap(h, w, weights) {
  const canvas = el("canvas", { class: "heat", width: w, height: h, "aria-hidden": "true" });
  const drawing = canvas.getContext("2d");
  const pixels = drawing.createImageData(w, h);
  const [least, most] = [Math.min(...weights), Math.max(...weights)];
  weights.forEach((weight, at) => pixels.data.set([...colour((weight - least) / (most - least || 1)), 255], 4 * at));
  drawing.putImageData(pixels, 0, 0);
  return canvas;
}

function colour(part) {
  const place = part * (HEAT.length - 1);
  const low = Math.min(Math.floor(place), HEAT.length - 2);
  return HEAT[low].map((value, channel) => value + (place - low) * (HEAT[low + 1][channel] - value));
}
