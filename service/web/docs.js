// The OpenAPI document of this server, readable: no library, no other host. Text from the document becomes textContent only.

const METHODS = ["get", "head", "post", "patch", "put", "delete", "options"];
const DEEPEST = 6;

function made(tag, content = "", name = "") {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...[content].flat());
  return node;
}

const resolved = (whole, part) =>
  part && part.$ref ? resolved(whole, whole.components.schemas[part.$ref.split("/").pop()]) : part || {};

function kindOf(whole, schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const several = schema.anyOf || schema.oneOf;
  if (several) return several.map((one) => kindOf(whole, one)).join(" | ");
  if (schema.type === "array") return `list of ${kindOf(whole, schema.items || {})}`;
  const bounds = [["minimum", "≥"], ["exclusiveMinimum", ">"], ["maximum", "≤"], ["exclusiveMaximum", "<"], ["maxLength", "length ≤"]]
    .filter(([name]) => schema[name] !== undefined).map(([name, sign]) => `${sign} ${schema[name]}`);
  return [[schema.type, schema.format].filter(Boolean).join(" ") || "any", ...bounds].join(", ");
}

export function exampleOf(whole, part, depth = 0) {
  const schema = resolved(whole, part);
  if (schema.examples) return schema.examples[0];
  if (schema.example !== undefined) return schema.example;
  if (schema.default !== undefined) return schema.default;
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  const several = schema.anyOf || schema.oneOf;
  if (several) return exampleOf(whole, several[0], depth);
  if (depth > DEEPEST) return null;
  if (schema.type === "array") return [exampleOf(whole, schema.items, depth + 1)];
  if (schema.properties) {
    return Object.fromEntries(
      Object.entries(schema.properties).map(([name, value]) => [name, exampleOf(whole, value, depth + 1)]),
    );
  }
  const plain = { string: schema.format === "date-time" ? "2026-11-24T12:00:00.000Z" : "…", integer: 0, number: 0, boolean: false, object: {} };
  return plain[schema.type] ?? null;
}

function table(rows) {
  const body = made("tbody", rows.map(([name, ...cells]) => made("tr", [made("th", name), ...cells.map((cell) => made("td", cell))])));
  return made("table", body, "facts");
}

function fields(whole, part) {
  const schema = resolved(whole, part);
  const needed = new Set(schema.required || []);
  return table(Object.entries(schema.properties || {}).map(([name, value]) =>
    [name, kindOf(whole, value) + (needed.has(name) ? ", required" : ""), value.description || resolved(whole, value).description || ""]));
}

function bodies(whole, content) {
  return Object.entries(content || {}).flatMap(([media, { schema = {}, example }]) => {
    const shown = [made("p", made("code", media))];
    if (resolved(whole, schema).properties) shown.push(fields(whole, schema));
    if (media.endsWith("json")) shown.push(made("pre", JSON.stringify(example ?? exampleOf(whole, schema), null, 2), "example"));
    return shown;
  });
}

function answers(whole, responses) {
  return Object.entries(responses).map(([status, { description, content, headers }]) => {
    const named = Object.keys(headers || {}).join(", ");
    const line = made("summary", [made("strong", status), ` ${description}`, named ? made("span", ` (${named})`, "said") : ""]);
    return made("details", [line, ...bodies(whole, content)]);
  });
}

function operation(whole, path, method, facts) {
  const line = made("summary", [
    made("span", method.toUpperCase(), "method"), made("span", path, "path"), made("span", facts.summary || "", "said"),
  ]);
  const shown = [line, ...(facts.description || "").split("\n\n").map((text) => made("p", text))];
  if (facts.parameters) {
    shown.push(made("h3", "Parameters"), table(facts.parameters.map((one) =>
      [one.name, `${one.in}, ${kindOf(whole, one.schema || {})}${one.required ? ", required" : ""}`, one.description || ""])));
  }
  if (facts.requestBody) shown.push(made("h3", "Body"), ...bodies(whole, facts.requestBody.content));
  shown.push(made("h3", "Answers"), ...answers(whole, facts.responses));
  const box = made("details", shown, "operation");
  box.id = facts.operationId;
  return box;
}

async function show() {
  const main = document.getElementById("document");
  const whole = await (await fetch("/openapi.json")).json();
  main.append(made("h1", whole.info.title), made("p", `Version ${whole.info.version}, OpenAPI ${whole.openapi}`, "said"));
  main.append(...whole.info.description.split("\n\n").map((text) => made("p", text)));
  for (const tag of whole.tags) {
    main.append(made("h2", tag.name), made("p", tag.description));
    for (const [path, operations] of Object.entries(whole.paths)) {
      for (const method of METHODS.filter((name) => operations[name]?.tags?.includes(tag.name))) {
        main.append(operation(whole, path, method, operations[method]));
      }
    }
  }
  main.setAttribute("aria-busy", "false");
  const wanted = document.getElementById(location.hash.slice(1));
  if (wanted) { wanted.open = true; wanted.scrollIntoView(); }
}

show().catch((error) => document.getElementById("document").append(made("p", `The document cannot be shown: ${error.message}`, "problem")));
