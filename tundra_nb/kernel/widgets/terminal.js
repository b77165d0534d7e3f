// The terminal widget's view. The kernel sends `state` (messages.Terminal) at each change; what is typed goes back.
// The screen takes the focus and every key; the line below it is for whoever would rather write a whole line, and hides
// what is written while the program does not show it either. Text is only ever set as text.

const SIZES = [[80, 24], [100, 30], [120, 40], [160, 50]];
// last character of `ESC [ … X`, or `ESC O X` while the program has asked for application keys
const LETTERS = { ArrowUp: "A", ArrowDown: "B", ArrowRight: "C", ArrowLeft: "D", End: "F", Home: "H" };
// number of `ESC [ … ~`
const NUMBERS = { Insert: 2, Delete: 3, PageUp: 5, PageDown: 6, F5: 15, F6: 17, F7: 18, F8: 19, F9: 20, F10: 21, F11: 23, F12: 24 };
const FUNCTIONS = { F1: "P", F2: "Q", F3: "R", F4: "S" };
const PLAIN = { Enter: "\r", Tab: "\t", Escape: "\x1b", Backspace: "\x7f" };
const CONTROLS = { " ": 0, "@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31, "/": 31, "?": 127 };

// What a terminal sends for a key; null for a key that is the browser's.
const sequence = (event, isApplication) => {
  const { key, ctrlKey, altKey, shiftKey, metaKey } = event;
  if (event.isComposing || metaKey || key === "Dead" || key === "Unidentified") return null;
  if (ctrlKey && shiftKey && /^[cv]$/i.test(key)) return null; // copy and paste
  const modifier = 1 + (shiftKey ? 1 : 0) + (altKey ? 2 : 0) + (ctrlKey ? 4 : 0);
  if (LETTERS[key]) {
    if (modifier > 1) return `\x1b[1;${modifier}${LETTERS[key]}`;
    return (isApplication ? "\x1bO" : "\x1b[") + LETTERS[key];
  }
  if (NUMBERS[key]) return `\x1b[${NUMBERS[key]}${modifier > 1 ? `;${modifier}` : ""}~`;
  if (FUNCTIONS[key]) return modifier > 1 ? `\x1b[1;${modifier}${FUNCTIONS[key]}` : `\x1bO${FUNCTIONS[key]}`;
  if (key === "Tab" && shiftKey) return "\x1b[Z";
  if (PLAIN[key]) return (altKey ? "\x1b" : "") + PLAIN[key];
  if ([...key].length !== 1) return null; // Shift, CapsLock, media keys
  if (ctrlKey && !altKey) {
    if (/^[a-z]$/i.test(key)) return String.fromCharCode(key.toUpperCase().charCodeAt(0) - 64);
    return key in CONTROLS ? String.fromCharCode(CONTROLS[key]) : null;
  }
  return altKey && !ctrlKey ? `\x1b${key}` : key; // with both it is AltGr
};

// Gives keys to the kernel one message at a time; what is typed before it has answered goes together into the next.
// While JupyterLab moves a widget's messages from the kernel's main thread to a subshell, one can overtake another.
const inTurn = (give, answerMs = 2000) => {
  let waiting = "";
  let timer = null;
  const next = () => {
    clearTimeout(timer);
    const text = waiting;
    waiting = "";
    timer = text ? setTimeout(next, answerMs) : null;
    if (text) give(text);
  };
  const type = (text) => {
    waiting += text;
    if (timer === null) next();
  };
  return { type, next };
};

function render({ model, el }) {
  const send = (type, more = {}) => model.send({ type, ...more });
  const { type, next } = inTurn((text) => send("typed", { text }));
  const heard = (message) => message.type === "heard" && next();
  model.on("msg:custom", heard);
  const root = make("div", "tundra-terminal");
  root.dataset.lmSuppressShortcuts = "true"; // or `dd` deletes the cell

  const title = make("span", "tundra-title");
  const how = make("span", "tundra-how");
  const above = make("pre", "tundra-above");
  const screen = make("pre", "tundra-screen");
  screen.tabIndex = 0;
  screen.setAttribute("role", "application");
  screen.setAttribute("aria-label", "terminal: every key goes to the program; Shift and Escape leave it");
  const hint = make("div", "tundra-hint");
  const problem = make("div", "tundra-problem");
  const input = make("input", "tundra-input");
  input.setAttribute("aria-label", "type into the terminal");
  input.spellcheck = false;
  input.autocomplete = "off";

  const button = (label, note, act) => {
    const made = make("button", "", label);
    made.title = note;
    made.addEventListener("click", act);
    return made;
  };
  const size = make("select", "");
  size.setAttribute("aria-label", "size of the screen");
  size.addEventListener("change", () => {
    const [columns, rows] = size.value.split("×").map(Number);
    send("resized", { columns, rows });
  });
  const older = button("Older output", "what has left the screen", () => send("scrolled", { is_on: !model.get("state").above.length }));
  const controls = [
    input,
    button("Ctrl-C", "interrupt the program", () => type("\x03")),
    button("Ctrl-D", "end of input", () => type("\x04")),
    size,
    button("End", "end the terminal and everything in it", () => send("killed")),
  ];

  screen.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.shiftKey && event.key === "Escape") {
      screen.blur();
      event.preventDefault();
      return;
    }
    if (event.ctrlKey && !event.shiftKey && /^c$/i.test(event.key) && String(getSelection())) return; // copies
    if (event.shiftKey && event.key === "PageUp") {
      send("scrolled", { is_on: true });
      event.preventDefault();
      return;
    }
    const text = sequence(event, model.get("state").is_application);
    if (text === null) return;
    event.preventDefault();
    type(text);
  });
  for (const name of ["keypress", "keyup", "copy"]) screen.addEventListener(name, (event) => event.stopPropagation());
  screen.addEventListener("paste", (event) => {
    event.preventDefault();
    event.stopPropagation();
    // the end mark must not stand in what is pasted, or the rest of it would count as typed
    const text = event.clipboardData.getData("text").replaceAll("\x1b[201~", "").replace(/\r?\n/g, "\r");
    type(model.get("state").is_bracketed ? `\x1b[200~${text}\x1b[201~` : text);
  });
  // a click that ends a selection must not lose it; any other takes the focus
  screen.addEventListener("mouseup", () => String(getSelection()) || screen.focus({ preventScroll: true }));
  for (const name of ["mousedown", "click", "focusin"]) root.addEventListener(name, (event) => event.stopPropagation());

  input.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.isComposing) return;
    if (event.key === "Enter") {
      type(`${input.value}\n`);
      input.value = "";
    } else if (event.ctrlKey && !event.altKey && /^[cdz]$/i.test(event.key) && !String(getSelection())) {
      type(sequence(event, false));
      event.preventDefault();
    } else if (!input.value && (event.key.startsWith("Arrow") || event.key === "Tab" || event.key === "Escape")) {
      type(sequence(event, model.get("state").is_application));
      event.preventDefault();
    }
  });
  input.addEventListener("keyup", (event) => event.stopPropagation());

  const fill = (into, lines) => {
    const drawn = [];
    for (const line of lines) {
      for (const [text, css] of line) {
        const piece = make("span", "", text);
        piece.style.cssText = css;
        drawn.push(piece);
      }
      drawn.push("\n");
    }
    into.replaceChildren(...drawn);
  };
  let hadAbove = false;
  const draw = () => {
    const state = model.get("state");
    title.textContent = state.title;
    how.textContent = state.state;
    how.dataset.open = state.is_open;
    problem.replaceChildren(...sentence(state.problem));
    if (!String(getSelection()) || !root.contains(getSelection().anchorNode)) fill(screen, state.lines); // keep a selection
    fill(above, state.above);
    above.hidden = !state.above.length;
    older.textContent = state.above.length ? "Hide older output" : "Older output";
    if (state.above.length && !hadAbove) above.scrollTop = above.scrollHeight;
    hadAbove = state.above.length > 0;
    screen.style.width = above.style.width = `${state.columns}ch`;
    const now = `${state.columns}×${state.rows}`;
    const sizes = SIZES.map((pair) => pair.join("×"));
    size.replaceChildren(...(sizes.includes(now) ? sizes : [now, ...sizes]).map((name) => make("option", "", name)));
    size.value = now;
    const kind = state.is_secret ? "password" : "text";
    if (input.type !== kind) {
      input.type = kind;
      input.value = "";
    }
    input.placeholder = state.is_secret ? "the program hides what is typed" : "type a line, Enter sends it";
    hint.textContent = state.is_open ? "Click the screen: every key goes to the program. Shift-Escape leaves it." : "";
    for (const control of controls) control.disabled = !state.is_open;
  };

  const bar = make("div", "tundra-bar", title, how, older);
  root.append(bar, above, screen, hint, make("div", "tundra-controls", ...controls), problem);
  const leave = mount({ model, el }, root, draw);
  return () => {
    model.off("msg:custom", heard);
    leave();
  };
}

export default { render };
