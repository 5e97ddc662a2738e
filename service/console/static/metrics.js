// Prometheus's text format, as far as this service writes it.

// {name: [{labels: {…}, value}]}.
export function parse(text) {
  const found = {};
  for (const line of text.split("\n")) {
    const parts = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (parts !== null) (found[parts[1]] ??= []).push({ labels: labelsOf(parts[2] ?? ""), value: Number(parts[3]) });
  }
  return found;
}

function labelsOf(text) {
  return Object.fromEntries([...text.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map((one) => [one[1], one[2]]));
}

// The sum of a metric's values, of those whose labels are these; 0 where there is none.
export function total(metrics, name, labels = {}) {
  const wanted = Object.entries(labels);
  const rows = (metrics[name] ?? []).filter((row) => wanted.every(([key, value]) => row.labels[key] === value));
  return rows.reduce((sum, row) => sum + row.value, 0);
}
