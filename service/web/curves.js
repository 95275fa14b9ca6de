// blendshapes.csv as curves over the clip: the strongest few, named, with a mark where the player stands.

const SVG = "http://www.w3.org/2000/svg";
const SHOWN = 6;
const WIDTH = 600, HEIGHT = 140;

export function readCurves(text) {
  const [head, ...rows] = text.trim().split("\n").map((line) => line.split(","));
  const table = rows.map((row) => row.map(Number));
  return head.slice(2).map((name, column) => ({ name, values: table.map((row) => row[column + 2]) }));
}

function part(kind, facts) {
  const node = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(facts)) node.setAttribute(name, value);
  return node;
}

// Returns a function that moves the mark to a frame.
export function drawCurves(figure, legend, curves) {
  const range = ({ values }) => Math.max(...values) - Math.min(...values);
  const strongest = [...curves].sort((a, b) => range(b) - range(a)).slice(0, SHOWN).filter((curve) => range(curve) > 0.01);
  const count = curves[0] ? curves[0].values.length : 0;
  if (count < 2 || !strongest.length) return () => {};
  const x = (place) => place / (count - 1) * WIDTH, y = (value) => HEIGHT - 4 - value * (HEIGHT - 8);
  const picture = part("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `Strongest expression curves: ${strongest.map((curve) => `${curve.name} up to ${Math.max(...curve.values).toFixed(2)}`).join(", ")}` });
  strongest.forEach((curve, k) => picture.append(part("polyline", { class: `curve-${k}`, points: curve.values.map((value, place) => `${x(place).toFixed(1)},${y(value).toFixed(1)}`).join(" ") })));
  const mark = part("line", { class: "curve-mark", x1: 0, x2: 0, y1: 0, y2: HEIGHT });
  picture.append(mark);
  const items = strongest.map((curve, k) => {
    const item = document.createElement("li"), value = document.createElement("span");
    item.className = `curve-${k}`;
    item.append(curve.name, " ", value);
    legend.append(item);
    return [value, curve];
  });
  figure.prepend(picture);
  figure.hidden = false;
  return (place) => {
    mark.setAttribute("x1", x(place));
    mark.setAttribute("x2", x(place));
    for (const [value, curve] of items) value.textContent = curve.values[place].toFixed(2);
  };
}
