// A query as a command line.

import { account, address } from "./api.js";

// The command that asks the same. Pictures are files of their names in the folder where it is run.
export function curlOf(probe, fields) {
  const parts = ["curl"];
  if (account()?.expires_in) parts.push('-H "Authorization: Bearer $RESIGHT_API_KEY"');
  parts.push(...(probe[0].file ? formParts(probe, fields) : [jsonPart(probe, fields)]));
  parts.push(quoted(address("query").href));
  return parts.join(" \\\n  ");
}

function formParts(probe, fields) {
  const images = probe.map((one) => `-F ${quoted(`images=@${inForm(one.name)}`)}`);
  const options = Object.entries(fields).flatMap(([name, value]) => [value].flat().map((one) => `-F ${quoted(`${name}=${one}`)}`));
  return [...images, ...options];
}

function jsonPart(probe, fields) {
  return `--json ${quoted(JSON.stringify({ crop_ids: probe.map((one) => one.cropId), ...fields }))}`;
}

// curl takes , and ; in a file's name for its own unless the name stands in double quotes.
function inForm(name) {
  return /[,;"\\]/.test(name) ? `"${name.replace(/["\\]/g, "\\$&")}"` : name;
}

function quoted(text) {
  return /^[A-Za-z0-9_.:/=@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
