// The provider widget's view. The kernel sends `state` (messages.Providers) at each change; between two of them the
// countdowns go on here. Text is only ever set as text.

const TICK_MS = 200;

const number = (value) =>
  value === null ? "?" : value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });

const seconds = (left) => (left < 10 ? `${left.toFixed(1)} s` : left < 120 ? `${left.toFixed(0)} s` : `${(left / 60).toFixed(0)} min`);

const TONE = {
  ready: "good", closed: "good", cooling: "warn", half_open: "warn", disabled: "dim", parked: "bad", breaker_open: "bad",
  open: "bad",
};

function render({ model, el }) {
  const root = make("div", "tundra-providers");
  let countdowns = [];
  let came = 0;

  const pill = (word, more, left) => {
    const made = make("span", `tundra-pill tundra-${TONE[word] ?? "dim"}`, word.replace("_", " "));
    made.dataset.state = word;
    if (left > 0) {
      const rest = make("span", "tundra-countdown");
      countdowns.push({ rest, left, more });
      made.append(rest);
    }
    return made;
  };

  const level = (bucket) => {
    const share = bucket.limit ? Math.min(Math.max((bucket.remaining ?? 0) / bucket.limit, 0), 1) : 0;
    const fill = make("div", share < 0.15 ? "tundra-fill tundra-low" : "tundra-fill");
    fill.style.width = `${share * 100}%`;
    const track = make("div", "tundra-track", fill);
    track.setAttribute("role", "meter");
    track.setAttribute("aria-valuemin", "0");
    track.setAttribute("aria-valuemax", String(bucket.limit ?? 0));
    track.setAttribute("aria-valuenow", String(bucket.remaining ?? 0));
    track.setAttribute("aria-label", bucket.resource);
    const limit = bucket.limit === null ? "" : ` of ${number(bucket.limit)}`;
    const told = make("span", "tundra-told", `${bucket.resource} ${number(bucket.remaining)}${limit}`);
    if (bucket.waiting) told.append(`, ${bucket.waiting} waiting`);
    const left = bucket.penalised_s || bucket.reset_s || 0;
    if (left > 0) {
      const rest = make("span", "tundra-countdown");
      countdowns.push({ rest, left, more: bucket.penalised_s ? "shut for" : "full in" });
      told.append(rest);
    }
    return make("div", "tundra-level", track, told);
  };

  const cell = (name, ...children) => make("td", name, ...children);

  const draw = () => {
    const state = model.get("state");
    countdowns = [];
    came = performance.now();
    const body = make("tbody");
    for (const profile of state.profiles) {
      const named = cell("tundra-name", make("b", "", profile.name), make("div", "tundra-dim", profile.model || profile.kind));
      const how = cell("", pill(profile.state, "for", profile.cooling_s ?? 0));
      if (profile.reason) how.append(make("div", "tundra-reason", profile.reason));
      const breaker = cell("", pill(profile.breaker, "probe in", profile.probe_s));
      breaker.classList.add("tundra-breaker");
      if (profile.failures) breaker.append(make("div", "tundra-dim", `${profile.failures} failure${profile.failures === 1 ? "" : "s"} in a row`));
      const row = make("tr", "", named, how, breaker);
      row.append(cell("", ...profile.ours.map(level)), cell("", ...profile.theirs.map(level)));
      row.dataset.profile = profile.name;
      body.append(row);
    }
    const head = make("tr", "");
    for (const name of ["profile", "state", "breaker", "our buckets", "the provider's own"]) head.append(make("th", "", name));
    const shown = [];
    if (state.problem) shown.push(make("div", "tundra-problem", state.problem));
    if (state.profiles.length) shown.push(make("table", "", make("thead", "", head), body));
    else if (!state.problem) shown.push(make("div", "tundra-dim", "no profile yet: %tundra status tells how to make one"));
    if (state.shared.length) {
      const tiers = state.shared.map((tier) => make("div", "tundra-tier", make("b", "", tier.name), ...tier.buckets.map(level)));
      shown.push(make("div", "tundra-shared", ...tiers));
    }
    root.replaceChildren(...shown);
    root.classList.toggle("tundra-stale", Boolean(state.problem));
    tick();
  };

  const tick = () => {
    const passed = (performance.now() - came) / 1000;
    for (const { rest, left, more } of countdowns) {
      rest.textContent = left > passed ? `, ${more} ${seconds(left - passed)}` : "";
    }
  };

  const unmount = mount({ model, el }, root, draw);
  const timer = setInterval(tick, TICK_MS);
  return () => {
    clearInterval(timer);
    unmount();
  };
}

export default { render };
