// What the panel's script works out without a page. The page itself: tests/browser/test_panel.py.

import assert from "node:assert/strict";
import { test } from "node:test";

import { breakerWords, cellFor, grouped, headline, kindsIn, local, named, narrowest, parts, plugins, short, stateOf } from "../../tundra_nb/labextension/static/tundra.js";

const ready = { profile: "a", state: "ready" };

test("a cell is made of ids, codes and known words only", () => {
  assert.equal(cellFor("why", "7532729173400358259"), "%tundra why 7532729173400358259");
  assert.equal(cellFor("explain", "RateLimitError::Exceeded"), "%tundra explain RateLimitError::Exceeded");
  assert.equal(cellFor("incident", "123"), "%tundra incident open 123");
  assert.equal(cellFor("dash"), "%tundra dash");
  for (const [kind, value] of [["why", "1; import os"], ["why", ""], ["why", "1\n!rm"], ["explain", "A\n%run x"], ["explain", "a b"], ["incident", "x"], ["show", "../x"], ["run", "1"]]) assert.equal(cellFor(kind, value), "", `${kind} ${value}`);
});

test("the headline says what is worst", () => {
  const of = (more) => headline({ profiles: [ready, { ...ready, profile: "b" }], breakers: [], ...more });
  assert.deepEqual(of({}), { tone: "good", words: "well: 2 profiles ready" });
  assert.equal(of({ breakers: [{ profile: "a", state: "open" }] }).words, "a open");
  assert.equal(of({ profiles: [{ profile: "a", state: "parked" }] }).words, "a parked");
  assert.equal(of({ profiles: [{ profile: "a", state: "cooling" }] }).words, "a cooling");
  assert.equal(of({ breakers: [{ profile: "a", state: "half_open" }] }).words, "a half open");
  assert.equal(of({ problems: [{ message: "the disk is full" }], breakers: [{ profile: "a", state: "open" }] }).words, "degraded: the disk is full");
  assert.equal(of({ store: { error: { message: "away" } } }).tone, "bad");
  assert.equal(headline({}).words, "no profile yet");
});

test("a time of another day is told with its day", () => {
  const at = new Date(2026, 10, 30, 17, 16, 57), told = `it begins at ${at.toISOString()}`;
  assert.equal(local(told, new Date(2026, 10, 30, 1)), `it begins at ${at.toLocaleTimeString()}`);
  assert.equal(local(told, new Date(2026, 11, 1, 1)), `it begins at ${at.toLocaleString()}`);
});

test("what stands between backticks is code, and they are not shown", () => {
  assert.deepEqual(parts("`%tundra providers recheck a` takes it back in."), ["", "%tundra providers recheck a", " takes it back in."]);
  assert.deepEqual(parts("a ` alone"), ["a ` alone"]);
});

test("the status bar has the short form", () => {
  assert.equal(short("ready", { profiles: [ready] }), "tundra: well");
  assert.equal(short("ready", { profiles: [ready], breakers: [{ profile: "a", state: "open" }, { profile: "b", state: "open" }] }), "tundra: 2 open");
  assert.equal(short("held", {}), "tundra: stopped");
  assert.equal(short("asleep", {}), "tundra: not running");
});

test("an answer that is none is known by its status and reason", () => {
  assert.equal(stateOf(404, null), "absent");
  assert.equal(stateOf(404, { code: "HandleNotFound" }), "broken");
  assert.equal(stateOf(403, { message: "Forbidden" }), "refused");
  assert.equal(stateOf(503, { code: "IpcError", reason: "held" }), "held");
  assert.equal(stateOf(503, { code: "IpcError", reason: "died" }), "died");
  assert.equal(stateOf(503, { code: "IpcError", reason: "absent" }), "asleep");
});

test("an open breaker counts down", () => {
  const breaker = { state: "open", open_for_s: 29.2 };
  assert.deepEqual([0, 9.5, 40].map((passed) => breakerWords(breaker, passed)), ["open, probe in 30 s", "open, probe in 20 s", "open"]);
  assert.equal(breakerWords(undefined), "closed");
});

test("of a profile's buckets the narrowest is shown", () => {
  const row = (resource, remaining, limit) => ({ owner: "tundra", tier: "profile", limit_key: "a", resource, remaining, limit });
  const found = narrowest([row("requests", 30, 60), row("tokens", 100, 1000), { ...row("requests", 0, 60), owner: "provider" }], "a");
  assert.deepEqual(found, { share: 0.1, words: "100 of 1000 tokens" });
  assert.equal(narrowest(undefined, "a"), null);
});

test("the same error of several calls is told once, as the newest", () => {
  const of = (id, code) => ({ operation_id: id, code, profile: "a" });
  const found = grouped([of("3", "X"), of("2", "Y"), of("1", "X")]);
  assert.deepEqual(found.map((row) => [row.operation_id, row.code, row.count]), [["3", "X", 2], ["2", "Y", 1]]);
  assert.deepEqual(grouped(undefined), []);
});

test("an error names its profile once", () => {
  assert.equal(named({ profile: "a", message: "a: breaker open" }), "a: breaker open");
  assert.equal(named({ profile: "a", message: "api key refused" }), "a: api key refused");
  assert.equal(named({ profile: null, message: "no profile" }), "no profile");
});

test("kinds of events are read as they come, in whatever pieces", () => {
  const first = kindsIn("event: hello\ndata: {}\n\nevent: err");
  assert.deepEqual(first, { kinds: ["hello"], rest: "event: err" });
  assert.deepEqual(kindsIn(`${first.rest}or_event\ndata: {"a": 1}\n`).kinds, ["error_event"]);
});

test("there is one plugin, which requires nothing of the application", () => {
  const [plugin] = plugins({ apputils: { ICommandPalette: "palette" }, application: null, launcher: null, notebook: null, statusbar: null });
  assert.deepEqual([plugin.id, plugin.requires, plugin.optional, plugin.autoStart], ["tundra-nb:plugin", [], ["palette"], true]);
});
