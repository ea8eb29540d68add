/**
 * Makes an element; texts stay text, whatever they contain.
 * @param {string} tag
 * @param {Object<string, string>} attributes
 * @param {...(Node|string)} children
 * @returns {HTMLElement}
 */
function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** @param {string|null} verdict */
function verdictTag(verdict) {
  return element("span", { class: `verdict ${verdict ?? "none"}` }, verdict ?? "no answer");
}

/**
 * Makes the table of prompts, which draws only the rows in view.
 * @param {Explorer} explorer
 * @returns {Tabulator}
 */
function promptTable(explorer) {
  const at = cell => cell.getData().at;
  const verdictOf = side => cell => (explorer[side] ? verdictTag(explorer[side].verdict[at(cell)]) : "");
  const table = new Tabulator("#answers-table", {
    data: explorer.data.prompts.id.map((_, place) => ({ id: place + 1, at: place })),
    height: "min(420px, 60vh)",
    rowHeight: 38,
    layout: "fitColumns",
    responsiveLayout: "hide",
    columnDefaults: { headerSort: false, resizable: false },
    placeholder: "No prompt passes the filters.",
    rowFormatter: row => describeRow(explorer, row),
    columns: [
      { title: "A", formatter: verdictOf("a"), width: 98, responsive: 0 },
      { title: "B", formatter: verdictOf("b"), width: 98, responsive: 0 },
      { title: "Notes", formatter: cell => notesOf(explorer, at(cell)), width: 180, responsive: 3 },
      { title: "Benchmark", formatter: cell => benchmarkCell(explorer.data, at(cell)), width: 170, responsive: 2 },
      { title: "Category", formatter: cell => textCell(explorer.data.prompts.category[at(cell)]), width: 150, responsive: 4 },
      { title: "Prompt", formatter: cell => promptCell(explorer, at(cell)), minWidth: 130, widthGrow: 1, responsive: 0 },
    ],
  });
  table.on("tableBuilt", () => describeTable(table.element));
  return table;
}

/** Names the table's parts for screen readers: Tabulator leaves the part that scrolls, and takes the focus, without a role. */
function describeTable(grid) {
  grid.setAttribute("aria-label", "Prompts");
  grid.removeAttribute("aria-owns");
  grid.querySelector(".tabulator-tableholder").setAttribute("role", "rowgroup");
  grid.querySelector(".tabulator-tableholder .tabulator-table").setAttribute("role", "none");
}

/** Tells a row's element which prompt it stands for, and makes it a stop for the keyboard. */
function describeRow(explorer, row) {
  const { at } = row.getData(), line = row.getElement();
  line.dataset.testid = "row";
  line.id = `prompt-${at}`;
  line.tabIndex = -1;
  markSelected(line, at === explorer.at);
}

/** @param {HTMLElement} line @param {boolean} selected */
function markSelected(line, selected) {
  line.setAttribute("aria-selected", String(selected));
  line.classList.toggle("is-selected", selected);
}

/** @param {string} text */
function textCell(text) {
  return element("span", { dir: "auto", title: text }, text);
}

function benchmarkCell(data, at) {
  return textCell(benchmarkOf(data, at));
}

/** Returns what is special about a prompt's answers: flipped, disputed, marked. */
function notesOf(explorer, at) {
  const { data, a, b, marks } = explorer;
  const sides = [a, b].filter(arm => arm && arm.row[at] !== null);
  const words = sides.map(arm => marks.of(answerId(arm, at)).mark).filter(Boolean);
  const notes = [
    isFlipped(data, a, b, at) ? "⇄ flipped" : "",
    isDisputed(a, at) || isDisputed(b, at) ? "≠ judges" : "",
    words.length ? `✎ ${words.join(", ")}` : "",
  ];
  return textCell(notes.filter(Boolean).join(" · "));
}

/** Returns the prompt's text, or a sign that it is folded. */
function promptCell(explorer, at) {
  const { data } = explorer;
  if (isHarmful(data, at) && !explorer.isRevealed(at)) return element("span", { class: "folded" }, "⚠ harmful, folded");
  return textCell(promptOf(data, explorer.a, at).slice(0, 300));
}
