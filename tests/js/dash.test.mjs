// What the dashboard's script works out without a page. The page itself: tests/browser/test_dash.py.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const folder = new URL("../../tundra_nb/kernel/widgets/", import.meta.url);
const text = ["shared.js", "dash_rows.js", "dash_lanes.js", "dash.js"].map((file) => readFileSync(new URL(file, folder), "utf8")).join("\n");
const names = ["Rows", "stepFor", "binOf", "msOf", "quantile", "summarise", "percent", "took", "span", "clock", "offsetAt", "lanesOf", "Picture", "BINS"];
const made = new Function(
  `"use strict"; const STYLE = "";\n${text.replace("export default", "const exported =").replace("export { render };", "")}\nreturn { exported, ${names.join(", ")} };`,
)();

const column = (Kind, values) => {
  const array = Kind.from(values);
  return new DataView(array.buffer, array.byteOffset, array.byteLength);
};
const buffers = (rows, names = ["outcome", "profile", "label", "caller"]) => {
  const all = [column(Uint32Array, rows.map((row) => row.t)), new DataView(new ArrayBuffer(0))];
  for (const name of names) all.push(column(Uint8Array, rows.map((row) => row[name])));
  if (names.includes("caller")) all.push(column(Float32Array, rows.map((row) => row.ms)));
  return all;
};
const row = (t, more = {}) => ({ t, ms: 100, outcome: 0, profile: 0, label: 0, caller: 0, ...more });
const everything = { profile: () => true, code: () => true, caller: () => true };
const milliseconds = { base: 0, unit: 1 };
const dataOf = (rows) => {
  const data = { calls: new made.Rows("calls"), attempts: new made.Rows("attempts"), names: { profiles: ["a", "b"], reasons: ["answered", "status_529"] } };
  const all = [...buffers(rows), ...buffers(rows, ["outcome", "profile", "label"])];
  data.calls.add(all, milliseconds);
  data.attempts.add(all, milliseconds);
  assert.equal(all.length, 0);
  return data;
};

test("the script exports render, by name too: the loader imports it as a module", () => {
  assert.equal(typeof made.exported.render, "function");
  assert.match(text, /export \{ render \};/);
});

test("columns grow and keep what was there", () => {
  const rows = new made.Rows("calls");
  for (let part = 0; part < 5; part++) rows.add(buffers([row(part * 1000), row(part * 1000 + 500)]), milliseconds);
  assert.equal(rows.length, 10);
  assert.deepEqual([...rows.at.subarray(0, 4)], [0, 0.5, 1, 1.5]);
  assert.deepEqual([...rows.count.subarray(0, 10)], Array(10).fill(1));
});

test("buckets have lengths that people know, and stay where they are while the picture moves", () => {
  assert.equal(made.stepFor(3600, 800), 30);
  assert.equal(made.stepFor(10, 800), 0.05);
  assert.equal(made.stepFor(3600, 800, 60), 60);
  assert.equal(made.stepFor(3600, 800, 0, 76), 600);
  const of = (since, until) => made.summarise(dataOf([]), since, until, 10, everything);
  assert.deepEqual([of(95, 205).first, of(95, 205).count], [9, 12]);
  assert.equal(of(99, 209).first, 9);
});

test("every call in view is counted once, by outcome, profile and reason", () => {
  const rows = [row(1000), row(2000, { outcome: 1, profile: 1, label: 1 }), row(2500, { outcome: 2, label: 1 }), row(9000, { outcome: 3 }), row(20000)];
  const s = made.summarise(dataOf(rows), 0, 10, 1, everything);
  assert.deepEqual(s.totals, [1, 1, 1, 1]);
  assert.deepEqual([s.all, s.unanswered], [4, 2]);
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

test("with a code or a caller chosen profiles and reasons are of the calls that are left", () => {
  const data = dataOf([row(1000, { caller: 1 }), row(2000, { caller: 1, profile: 1, label: 1, outcome: 1 }), row(3000, { label: 1, outcome: 1 })]);
  data.names.codes = ["", "AllProvidersExhausted"];
  const s = made.summarise(data, 0, 10, 1, { ...everything, caller: (one) => one === 1, byCall: true });
  assert.deepEqual(s.profiles.map((one) => [one.all, one.bad]), [[1, 0], [1, 1]]);
  assert.deepEqual(s.reasons.map((one) => [one.name, one.all]), [["AllProvidersExhausted", 1]]);
  assert.deepEqual(made.summarise(data, 0, 10, 1, everything).reasons.map((one) => [one.name, one.all]), [["status_529", 2]]);
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

test("groups count for as many as they are, and have the latency of their band, through every filter", () => {
  const data = { calls: new made.Rows("calls"), attempts: new made.Rows("attempts"), names: { profiles: ["a"], reasons: [] } };
  const of = (Kind, ...values) => column(Kind, values);
  const groups = [of(Uint32Array, 0, 0), of(Uint32Array, 90, 10), of(Uint8Array, 0, 0), of(Uint8Array, 0, 0), of(Uint8Array, 0, 0), of(Uint8Array, 0, 1), of(Float32Array, 107, 5054)];
  data.calls.add(groups, milliseconds);
  const near = (ms, wanted) => assert.ok(Math.abs(ms / wanted - 1) < 0.08, String(ms));
  const all = made.summarise(data, 0, 60, 60, everything);
  assert.equal(all.all, 100);
  near(all.p50[0], 107);
  near(all.p95[0], 5054);
  const one = made.summarise(data, 0, 60, 60, { ...everything, caller: (caller) => caller === 1 });
  assert.equal(one.all, 10);
  near(one.p50[0], 5054);
});

test("of many profiles those in trouble are shown, and that there are more", () => {
  const names = Array.from({ length: 200 }, (_, index) => `p${index}`);
  const data = { ...dataOf([]), changes: [], knows_changes: false, bands: [{ name: "p150", since: 1, until: null, word: "open", bad: true }], levels: [], terminals: [], connections: [], until: 10 };
  data.names = { profiles: names, reasons: [] };
  data.attempts.add(buffers(names.map((_, index) => row(1000, { profile: index, outcome: index === 199 ? 1 : 0 })), ["outcome", "profile", "label"]), milliseconds);
  const s = made.summarise(data, 0, 10, 1, everything);
  const lanes = made.lanesOf(data, s, { since: 0, until: 10 }, { profiles: new Set() }, String);
  assert.deepEqual(lanes.map((lane) => lane.name).slice(0, 5), ["changes", "calls", "latency", "p150", "p199"]);
  assert.deepEqual(lanes[0].notes, [["not recorded"]]);
  assert.equal(lanes[3].notes[0][0], "still open");
  assert.equal(lanes.find((lane) => lane.name === "194 more").notes[0][0], "with less trouble");
});

test("a row of openings is told in one word, which none of them alone has room for", () => {
  const told = [];
  const page = { now: { since: 0, until: 100 }, data: { until: 100 }, left: 0, end: 500, s: { count: 0 }, top: 0, floor: 26, tall: 26 };
  const picture = Object.assign(Object.create(made.Picture.prototype), page, { box() {}, say: (x, _y, text) => told.push([x, text]) });
  const band = (since, until, word) => ({ since, until, word });
  const bands = [];
  for (let at = 10; at < 40; at += 3) bands.push(band(at, at + 2.9, "open"), band(at + 2.9, at + 3, "half open"));
  picture.profile({ bands: [...bands, band(60, 61, "open"), band(80, null, "parked")], tried: [], failed: [] });
  assert.deepEqual(told, [[55, "open"], [405, "parked"]]);
});

test("a part is never rounded to nothing or to all", () => {
  assert.deepEqual([[0, 10], [1, 1e5], [123, 1e4], [99999, 1e5], [5, 5], [0, 0]].map(([a, b]) => made.percent(a, b)), ["0 %", "< 0.1 %", "1.2 %", "> 99.9 %", "100 %", "0 %"]);
});

test("times are the kernel's, lengths as exact as it matters", () => {
  assert.equal(made.clock(0, 3600), "01:00:00");
  assert.equal(made.clock(86400, 0, { day: true, seconds: false }), "01-02 00:00");
  assert.deepEqual([made.took(null), made.took(12.4), made.took(1500), made.took(45000), made.took(6e5)], ["none", "12 ms", "1.5 s", "45 s", "10 min"]);
  const summer = [[0, 3600], [1000, 7200]]; // the clock goes forward at 1000
  assert.deepEqual([-5, 0, 999, 1000, 5000].map((at) => made.offsetAt(summer, at)), [3600, 3600, 3600, 7200, 7200]);
  assert.deepEqual([0.05, 30, 120, 7200].map(made.span), ["50 ms", "30 s", "2 min", "2 h"]);
});
