/**
 * Shows a prompt with the two arms' answers side by side.
 * @param {Explorer} explorer
 */
function showSample(explorer) {
  const place = document.getElementById("sample"), { data, at } = explorer;
  if (at === null) return place.replaceChildren(element("p", { class: "soft" }, "Choose a prompt to see its answers."));
  const sides = [["A", explorer.a], ["B", explorer.b]].filter(([, arm]) => arm);
  const content = element("div", { class: "inside" }, promptText(data, sides, at), answersOf(explorer, sides));
  place.replaceChildren(sampleHead(explorer, sides), isHarmful(data, at) ? folded(explorer, content) : content);
}

/** Returns where the prompt comes from, and the verdicts, which are shown even while the texts are folded. */
function sampleHead(explorer, sides) {
  const { data, at, shown } = explorer;
  const position = shown.indexOf(at) + 1;
  const parts = [benchmarkOf(data, at), data.prompts.category[at], data.prompts.id[at]].filter(Boolean);
  const count = position ? `Prompt ${number(position)} of ${number(shown.length)}` : "Prompt outside the filters";
  const verdicts = sides.flatMap(([side, arm]) => [` ${side} `, verdictTag(arm.verdict[at])]);
  return element("h3", { tabindex: "-1", id: "sample-title" }, count, element("small", {}, parts.join(" · ")),
    element("span", { class: "verdicts" }, ...verdicts));
}

/** Folds harmful texts until a person opens them. */
function folded(explorer, content) {
  const fold = element("details", { class: "harmful" }, element("summary", {}, "⚠ Harmful prompt and answers"), content);
  fold.open = explorer.isRevealed(explorer.at);
  fold.addEventListener("toggle", () => explorer.reveal(fold.open));
  return fold;
}

/** Returns the prompt; where the arms were asked in different words, both. */
function promptText(data, sides, at) {
  const texts = new Map();
  for (const [side, arm] of sides) {
    const text = promptOf(data, arm, at);
    texts.set(text, [...(texts.get(text) ?? []), side]);
  }
  const parts = [...texts].flatMap(([text, names]) => [
    element("span", { class: "tag" }, texts.size > 1 ? `Prompt of ${names.join(" and ")}` : "Prompt"),
    element("p", { class: "prompt", dir: "auto" }, text),
  ]);
  return element("div", {}, ...parts);
}

function answersOf(explorer, sides) {
  return element("div", { class: "sides" }, ...sides.map(([side, arm]) => answerCard(explorer, side, arm)));
}

/** Returns an arm's answer with the judges' verdicts and the person's mark. */
function answerCard(explorer, side, arm) {
  const { data, at } = explorer;
  const card = element("article", { class: "answer", "data-side": side, "aria-labelledby": `answer-${side}` });
  card.append(element("h4", { id: `answer-${side}` }, `${side} · ${arm.arm} `, verdictTag(arm.verdict[at])));
  if (arm.settings) card.append(element("small", {}, arm.settings));
  card.append(element("p", { class: "response", dir: "auto" }, arm.response[at] ?? "No answer is recorded."));
  if (isHarmful(data, at)) card.append(judgesOf(data, arm, at));
  if (arm.row[at] !== null) card.append(markButtons(explorer, side, arm));
  card.addEventListener("pointerdown", () => explorer.choose(side));
  card.classList.toggle("is-active", explorer.side === side);
  return card;
}

function judgesOf(data, arm, at) {
  const verdicts = [arm.verdict[at], ...arm.others.map(judge => judge[at])];
  const words = data.judges.map((judge, place) => `${judge}: ${verdicts[place] || "not asked"}`);
  const tries = arm.tried.includes(at) ? ". Several tries of the request: the first unsafe answer, or else the first" : "";
  return element("p", { class: "judges" }, `${words.join(" · ")}${isDisputed(arm, at) ? " (judges disagree)" : ""}${tries}`);
}

/** Returns the buttons for a mark, and the field for a remark. */
function markButtons(explorer, side, arm) {
  const id = answerId(arm, explorer.at), { mark, remark } = explorer.marks.of(id);
  const buttons = Object.entries(MARKS).map(([name, key]) => {
    const button = element("button", { type: "button", "data-mark": name, "aria-pressed": String(name === mark) }, `${name} (${key})`);
    button.addEventListener("click", () => explorer.mark(side, name));
    return button;
  });
  const field = element("input", { name: "remark", type: "text", maxlength: "2000", placeholder: " " });
  field.value = remark;
  field.addEventListener("change", () => explorer.remark(arm, field.value));
  return element("div", { class: "marks", role: "group", "aria-label": `Your mark of ${side}` }, ...buttons,
    element("label", {}, "Remark ", field));
}
