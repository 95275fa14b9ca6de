// Numbers as colours: dark blue over green to yellow, told apart in grey and by colour-blind eyes (viridis, Smith and van der Walt 2015).

const STOPS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37]];

export function colourAt(share) {
  const place = Math.max(0, Math.min(1, share)) * (STOPS.length - 1);
  const low = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[low].map((value, k) => Math.round(value + (place - low) * (STOPS[low + 1][k] - value)));
}

// The value that all but the largest hundredth stay below: one wild corner must not darken the rest.
export function top(values) {
  const sorted = Float32Array.from(values.filter((value) => Number.isFinite(value))).sort();
  return sorted.length ? Math.max(sorted[Math.floor(0.99 * (sorted.length - 1))], 1e-6) : 1;
}
