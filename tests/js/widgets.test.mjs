// What the widgets' scripts work out without a page. The page itself: tests/browser.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const folder = new URL("../../tundra_nb/kernel/widgets/", import.meta.url);

// A widget's script as it is sent: what all share, then its own. Gives the names asked for.
const load = (name, ...names) => {
  const text = ["shared.js", `${name}.js`].map((file) => readFileSync(new URL(file, folder), "utf8")).join("\n");
  return new Function(`"use strict";\n${text.replace("export default", "const exported =")}\nreturn { exported, ${names.join(", ")} };`)();
};

const key = (name, more = {}) => ({ key: name, ctrlKey: false, altKey: false, metaKey: false, shiftKey: false, ...more });

test("every widget exports a render function and nothing else", () => {
  for (const name of ["gateway", "providers", "tab", "terminal", "versions"]) {
    const { exported } = load(name);
    assert.deepEqual(Object.keys(exported), ["render"]);
    assert.equal(typeof exported.render, "function");
  }
});

test("a view waits as long as its kernel is busy, and for no other kernel", async ({ mock }) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const text = 'export const render = ({ el }) => "shown in " + el.name;';
  mock.method(URL, "createObjectURL", () => `data:text/javascript,${encodeURIComponent(text)}`); // Node imports no blobs
  const model = () => {
    const heard = [], asked = [];
    return { heard, asked, get: () => "of-a-test", send: (message) => asked.push(message), on: (_, act) => heard.push(act), off: (_, act) => heard.splice(heard.indexOf(act), 1) };
  };
  const gone = model(), busy = model(), later = model();
  const { default: loader } = await import(new URL("loader.js", folder));
  void loader.render({ model: gone, el: {} });
  const view = loader.render({ model: busy, el: { name: "its element" } });
  mock.timers.tick(3600000);
  assert.deepEqual(busy.asked, [{ type: "module" }]);
  const script = new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"));
  busy.heard[0]({ type: "module" }, [new Uint8Array(await new Response(script).arrayBuffer())]);
  assert.equal(await view, "shown in its element");
  assert.equal(await loader.render({ model: later, el: { name: "another" } }), "shown in another");
  assert.deepEqual([later.asked, busy.heard], [[], []]);
});

test("a time left is told as exactly as it matters", () => {
  const { seconds } = load("providers", "seconds");
  assert.deepEqual([0.25, 9.96, 29.6, 119, 600].map(seconds), ["0.3 s", "10.0 s", "30 s", "119 s", "10 min"]);
});

test("a commit's hash is shortened, a name is not", () => {
  const { short } = load("versions", "short");
  assert.equal(short("0123456789abcdefghijklmnopqrstuv"), "0123456789");
  assert.equal(short("before-the-change"), "before-the-change");
});

test("one row is a row, more are rows", () => {
  const { counted } = load("versions", "counted");
  assert.deepEqual([0, 1, 1234].map((count) => counted(count, "row")), ["0 rows", "1 row", "1,234 rows"]);
});

test("a key becomes what a terminal sends", () => {
  const { sequence } = load("terminal", "sequence");
  const sent = (name, more, application = false) => sequence(key(name, more), application);
  assert.equal(sent("a"), "a");
  assert.equal(sent("Enter"), "\r");
  assert.equal(sent("Backspace"), "\x7f");
  assert.equal(sent("c", { ctrlKey: true }), "\x03");
  assert.equal(sent("ArrowUp"), "\x1b[A");
  assert.equal(sent("ArrowUp", {}, true), "\x1bOA");
  assert.equal(sent("Delete"), "\x1b[3~");
  assert.equal(sent("F5"), "\x1b[15~");
});

test("keys go one message at a time and never overtake each other", async () => {
  const { inTurn } = load("terminal", "inTurn");
  const given = [];
  const { type, next } = inTurn((text) => given.push(text), 5);
  for (const text of "python3") type(text);
  assert.deepEqual(given, ["p"]);
  next();
  assert.deepEqual(given, ["p", "ython3"]);
  next();
  next();
  type("\r");
  assert.deepEqual(given, ["p", "ython3", "\r"]);
  type("more"); // an answer that is lost does not stop the keys for good
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(given, ["p", "ython3", "\r", "more"]);
});

test("commands in a sentence are code, and nothing of it is markup", () => {
  globalThis.document = { createElement: (tag) => ({ tag, append(...told) { this.told = told; } }) };
  const { sentence } = load("providers", "sentence");
  const [before, code, after] = sentence("no <b>daemon</b> runs. `tundra daemon start` starts it.");
  assert.equal(before, "no <b>daemon</b> runs. ");
  assert.deepEqual([code.tag, code.told], ["code", ["tundra daemon start"]]);
  assert.equal(after, " starts it.");
  assert.deepEqual(sentence(""), [""]);
});

test("a view hides the still picture, tells that it is open, and takes itself off", () => {
  const made = () => ({ classList: { add() {} }, append() {}, textContent: "", className: "" });
  globalThis.document = { createElement: made };
  const { mount } = load("providers", "mount");
  const told = [];
  const handlers = {};
  const model = {
    get: () => "still-1",
    on: (name, handler) => (handlers[name] = handler),
    off: (name) => delete handlers[name],
    send: (message) => told.push(message.type),
  };
  let drawn = 0;
  const leave = mount({ model, el: made() }, made(), () => (drawn += 1));
  handlers["change:state"]();
  leave();
  assert.deepEqual(told, ["opened", "closed"]);
  assert.equal(drawn, 2);
  assert.deepEqual(handlers, {});
});
