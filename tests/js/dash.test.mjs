// What the dashboard's script works out without a page. The page itself: tests/browser/test_dash.py.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const folder = new URL("../../tundra_nb/kernel/widgets/", import.meta.url);
const text = ["shared.js", "dash.js"].map((file) => readFileSync(new URL(file, folder), "utf8")).join("\n");
const names = ["Rows", "stepFor", "bucketsOf", "binOf", "msOf", "quantile", "summarise", "percent", "took", "span", "clock", "BINS"];
const made = new Function(
  `"use strict"; const STYLE = "";\n${text.replace("export default", "const exported =").replace("export { render };", "")}\nreturn { exported, ${names.join(", ")} };`,
)();

const buffers = (rows) => {
  const of = (Kind, key) => {
    const array = Kind.from(rows.map((row) => row[key]));
    return new DataView(array.buffer, array.byteOffset, array.byteLength);
  };
  return [of(Uint32Array, "t"), of(Float32Array, "ms"), of(Uint8Array, "outcome"), of(Uint8Array, "profile"), of(Uint8Array, "label"), of(Uint8Array, "caller"), new DataView(new ArrayBuffer(0))];
};
const row = (t, more = {}) => ({ t, ms: 100, outcome: 0, profile: 0, label: 0, caller: 0, ...more });
const everything = { profile: () => true, code: () => true, caller: () => true };
const dataOf = (rows) => {
  const data = { calls: new made.Rows(), attempts: new made.Rows(), names: { profiles: ["a", "b"], reasons: ["answered", "status_529"] } };
  data.calls.add(buffers(rows), 0, 1);
  data.attempts.add(buffers(rows), 0, 1);
  return data;
};

test("the script exports render, by name too: the loader imports it as a module", () => {
  assert.equal(typeof made.exported.render, "function");
  assert.match(text, /export \{ render \};/);
});

test("columns grow and keep what was there", () => {
  const rows = new made.Rows();
  for (let part = 0; part < 5; part++) rows.add(buffers([row(part * 1000), row(part * 1000 + 500)]), 0, 1);
  assert.equal(rows.length, 10);
  assert.deepEqual([...rows.columns[0].subarray(0, 4)], [0, 0.5, 1, 1.5]);
  assert.deepEqual([...rows.columns[6].subarray(0, 10)], Array(10).fill(1));
});

test("buckets have lengths that people know, and stay where they are while the picture moves", () => {
  assert.equal(made.stepFor(3600, 800), 30);
  assert.equal(made.stepFor(10, 800), 0.05);
  assert.equal(made.stepFor(3600, 800, 60), 60);
  assert.deepEqual(made.bucketsOf(95, 205, 10), { step: 10, first: 9, count: 12 });
  assert.equal(made.bucketsOf(99, 209, 10).first, 9);
});

test("every call in view is counted once, by outcome, profile and reason", () => {
  const rows = [row(1000), row(2000, { outcome: 1, profile: 1, label: 1 }), row(2500, { outcome: 2, label: 1 }), row(9000, { outcome: 3 }), row(20000)];
  const s = made.summarise(dataOf(rows), 0, 10, 1, everything);
  assert.deepEqual(s.totals, [1, 1, 1, 1]);
  assert.deepEqual([s.calls[1][2], s.calls[2][2], s.calls[0][1]], [1, 1, 1]);
  assert.deepEqual(s.profiles.map((one) => [one.all, one.bad]), [[3, 0], [1, 1]]);
  assert.deepEqual(s.reasons.map((one) => [one.name, one.isBad, one.all]), [["status_529", true, 1], ["status_529", false, 1]]);
});

test("filters leave out what they say", () => {
  const rows = [row(1000, { caller: 1 }), row(2000, { profile: 1 }), row(3000, { label: 1, outcome: 1 })];
  const count = (keep) => made.summarise(dataOf(rows), 0, 10, 1, { ...everything, ...keep }).totals.reduce((a, b) => a + b);
  assert.equal(count({ profile: (one) => one === 1 }), 1);
  assert.equal(count({ code: (one) => one === 1 }), 1);
  assert.equal(count({ caller: (one) => one === 1 }), 1);
});

test("a quantile of the histogram is within a twelfth of the exact one", () => {
  const bins = new Uint32Array(made.BINS);
  for (let ms = 1; ms <= 1000; ms++) bins[made.binOf(ms)] += 1;
  const near = (share, exact) => assert.ok(Math.abs(made.quantile(bins, 0, 1000, share) / exact - 1) < 0.08, String(share));
  near(0.5, 500);
  near(0.95, 950);
  assert.equal(made.quantile(bins, 0, 0, 0.5), null);
  assert.equal(made.binOf(0), 0);
  assert.equal(made.binOf(1e9), made.BINS - 1);
});

test("a part is never rounded to nothing or to all", () => {
  assert.deepEqual([[0, 10], [1, 1e5], [123, 1e4], [99999, 1e5], [5, 5], [0, 0]].map(([a, b]) => made.percent(a, b)), ["0 %", "< 0.1 %", "1.2 %", "> 99.9 %", "100 %", "0 %"]);
});

test("times are the kernel's, lengths as exact as it matters", () => {
  assert.equal(made.clock(0, 3600), "01:00:00");
  assert.equal(made.clock(86400, 0, { day: true, seconds: false }), "01-02 00:00");
  assert.deepEqual([made.took(null), made.took(12.4), made.took(1500), made.took(45000), made.took(6e5)], ["none", "12 ms", "1.5 s", "45 s", "10 min"]);
  assert.deepEqual([0.05, 30, 120, 7200].map(made.span), ["50 ms", "30 s", "2 min", "2 h"]);
});
