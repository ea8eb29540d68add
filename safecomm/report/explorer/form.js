const CHOICES = ["benchmark", "attack", "category"];

/** Fills the form's lists with what the answers contain. */
function fillForm(form, data) {
  const names = data.arms.map(arm => arm.arm), { a, b, verdict, verdictB } = form.elements;
  const first = names.includes(data.shown[0]) ? data.shown[0] : names[0];
  const second = [data.shown[1], ...names].find(name => name && name !== first);
  addOptions(a, names.map(name => [name, name]));
  addOptions(b, names.map(name => [name, name]));
  for (const [field, value] of [[a, first], [b, second]]) {
    for (const option of field.options) option.defaultSelected = option.value === (value ?? "");
  }
  const words = [...new Set(data.arms.flatMap(arm => [...new Set(arm.verdict)]))].filter(Boolean).sort();
  for (const field of [verdict, verdictB]) addOptions(field, words.map(word => [word, word]));
  for (const name of CHOICES) {
    const values = [...new Set(data.prompts[name])].filter(Boolean).sort();
    addOptions(form.elements[name], values.map(value => [value, value]));
    form.elements[name].closest("label").hidden = values.length === 0;
  }
  if (data.prompts.attack.some(Boolean)) addOptions(form.elements.attack, [[NO_ATTACK, "no attack"]]);
  form.elements.disagree.closest("label").hidden = data.judges.length < 2;
}

/** @param {HTMLSelectElement} field @param {[string, string][]} options - values and texts */
function addOptions(field, options) {
  field.append(...options.map(([value, text]) => new Option(text, value)));
}

/** Says how many answers are marked, and which of the marks are labels. */
function showMarks(explorer) {
  const all = marked(explorer.data, explorer.marks), labels = all.filter(one => isLabel(explorer.data, one));
  const kept = explorer.marks.isKept ? "" : " This browser does not keep them for this page: export them before you close it.";
  document.getElementById("marked").textContent = `${number(all.length)} marked, ${number(labels.length)} of them labels.${kept}`;
  document.querySelector("[data-testid=export-labels]").disabled = labels.length === 0;
  document.getElementById("export-review").disabled = all.length === 0;
}

/** @param {Explorer} explorer */
function listen(explorer) {
  const { form, data, marks } = explorer;
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("input", event => (event.target.name === "reveal" ? explorer.redraw() : explorer.filter()));
  form.elements.reveal.addEventListener("change", () => showSample(explorer));
  form.addEventListener("reset", () => setTimeout(() => explorer.filter()));
  document.getElementById("swap").addEventListener("click", () => swap(explorer));
  document.querySelector("[data-testid=export-labels]").addEventListener("click", () => save("labels.csv", labelsFile(data, marks)));
  document.getElementById("export-review").addEventListener("click", () => save("review.csv", reviewFile(data, marks)));
  addEventListener("hashchange", () => {
    if (!linked().size) return;
    explorer.readLink();
    explorer.filter();
  });
}

/** Swaps the two arms and their verdicts. */
function swap(explorer) {
  const { a, b, verdict, verdictB } = explorer.form.elements;
  if (!b.value) return;
  [a.value, b.value, verdict.value, verdictB.value] = [b.value, a.value, verdictB.value, verdict.value];
  explorer.filter();
}
