// The terminal widget's view. The kernel sends `state` (messages.Terminal) at each change; what is typed goes back.
// Text is only ever set as text.

const SIZES = [[80, 24], [100, 30], [120, 40], [160, 50]];
const KEYS = { ArrowUp: "\x1b[A", ArrowDown: "\x1b[B", Tab: "\t", Escape: "\x1b" };

function render({ model, el }) {
  const send = (type, more = {}) => model.send({ type, ...more });
  const root = make("div", "tundra-terminal");

  const title = make("span", "tundra-title");
  const how = make("span", "tundra-how");
  const screen = make("pre", "tundra-screen");
  const problem = make("div", "tundra-problem");
  const input = make("input", "tundra-input");
  input.setAttribute("aria-label", "type into the terminal");
  input.placeholder = "type a line, Enter sends it";
  input.spellcheck = false;
  input.autocomplete = "off";

  const button = (label, hint, act) => {
    const made = make("button", "", label);
    made.title = hint;
    made.addEventListener("click", act);
    return made;
  };
  const size = make("select", "");
  size.setAttribute("aria-label", "size of the screen");
  size.addEventListener("change", () => {
    const [columns, rows] = size.value.split("×").map(Number);
    send("resized", { columns, rows });
  });
  const controls = [
    input,
    button("Ctrl-C", "interrupt the program", () => send("typed", { text: "\x03" })),
    button("Ctrl-D", "end of input", () => send("typed", { text: "\x04" })),
    size,
    button("End", "end the terminal and everything in it", () => send("killed")),
  ];

  input.addEventListener("keydown", (event) => {
    // Jupyter's shortcuts must not see what is meant for the program
    event.stopPropagation();
    if (event.isComposing) return;
    if (event.key === "Enter") {
      send("typed", { text: `${input.value}\n` });
      input.value = "";
    } else if (event.ctrlKey && !event.altKey && /^[cdz]$/i.test(event.key) && !String(getSelection())) {
      send("typed", { text: String.fromCharCode(event.key.toLowerCase().charCodeAt(0) - 96) });
      event.preventDefault();
    } else if (!input.value && KEYS[event.key]) {
      send("typed", { text: KEYS[event.key] });
      event.preventDefault();
    }
  });

  const draw = () => {
    const state = model.get("state");
    title.textContent = state.title;
    how.textContent = state.state;
    how.dataset.open = state.is_open;
    problem.textContent = state.problem;
    const drawn = [];
    for (const line of state.lines) {
      for (const [text, css] of line) {
        const piece = make("span", "", text);
        piece.style.cssText = css;
        drawn.push(piece);
      }
      drawn.push("\n");
    }
    screen.replaceChildren(...drawn);
    screen.style.width = `${state.columns}ch`;
    const now = `${state.columns}×${state.rows}`;
    const sizes = SIZES.map((pair) => pair.join("×"));
    size.replaceChildren(...(sizes.includes(now) ? sizes : [now, ...sizes]).map((name) => make("option", "", name)));
    size.value = now;
    for (const control of controls) control.disabled = !state.is_open;
  };

  root.append(make("div", "tundra-bar", title, how), screen, make("div", "tundra-controls", ...controls), problem);
  return mount({ model, el }, root, draw);
}

export default { render };
