/** The explorer: what is filtered, which prompt is selected, and what people marked. */
class Explorer {
  /** @param {Answers} data */
  constructor(data) {
    this.data = data;
    this.marks = new Marks(data.key);
    this.form = document.getElementById("filters");
    this.at = null;
    this.side = "A";
    this.opened = new Set();
    fillForm(this.form, data);
    this.readLink();
    this.table = promptTable(this);
    // A row that is drawn again between press and release gets no click; a screen reader sends nothing but a click.
    for (const event of ["rowMouseDown", "rowClick"]) this.table.on(event, (_, row) => this.select(row.getData().at));
    this.table.on("rowDblClick", () => this.open());
    this.table.on("tableBuilt", () => this.start());
  }

  /** Starts with what the address says. */
  start() {
    const isLinked = linked().size > 0; // the first filtering writes the address
    this.filter();
    showMarks(this);
    if (this.at !== null) this.scrollTo(this.at);
    listen(this);
    listenToKeys(this);
    listenToPrinting(this);
    const section = document.getElementById("samples");
    section.setAttribute("aria-busy", "false");
    if (isLinked && window === window.top) section.scrollIntoView(); // `safecomm view` keeps the reader's place
  }

  /** Sets form and selection to what the address says. */
  readLink() {
    const said = linked();
    for (const field of this.form.elements) {
      if (!field.name || !said.size) continue;
      if (field.type === "checkbox") field.checked = said.has(field.name);
      else if (said.has(field.name) || field.type !== "select-one" || !["a", "b"].includes(field.name)) field.value = said.get(field.name) ?? "";
    }
    if (this.form.a.value === "") this.form.a.selectedIndex = 0;
    const at = this.data.prompts.id.indexOf(said.get("row"));
    this.at = at < 0 ? null : at;
  }

  /** @returns {Filters} */
  get filters() {
    const { a, b, verdict, verdictB, benchmark, attack, category, search, flipped, disagree } = this.form.elements;
    const texts = { a, b, verdict, verdictB, benchmark, attack, category, search };
    const values = Object.fromEntries(Object.entries(texts).map(([name, field]) => [name, field.value]));
    return { ...values, flipped: flipped.checked, disagree: disagree.checked };
  }

  /** Shows the prompts that pass the filters. */
  filter() {
    const filters = this.filters;
    const arms = [armNamed(this.data, filters.a), armNamed(this.data, filters.b)];
    const changed = arms[0] !== this.a || arms[1] !== this.b;
    [this.a, this.b] = arms;
    this.shown = matching(this.data, filters);
    const passes = new Uint8Array(this.data.prompts.id.length);
    for (const at of this.shown) passes[at] = 1;
    this.table.setFilter(row => passes[row.at] === 1);
    if (changed) this.redraw();
    this.count(filters);
    showSample(this);
    this.keepLink();
  }

  /** @param {Filters} filters */
  count(filters) {
    const place = document.querySelector("[data-testid=count]");
    place.textContent = countInWords(this.data, filters, this.shown);
    this.table.element.setAttribute("aria-rowcount", String(this.shown.length));
  }

  redraw() {
    this.table.redraw(true);
  }

  keepLink() {
    const row = this.at === null ? "" : this.data.prompts.id[this.at];
    keepLink({ ...this.filters, row });
  }

  /** @param {number} at - the prompt to select */
  select(at) {
    const before = document.getElementById(`prompt-${this.at}`);
    if (before) markSelected(before, false);
    this.at = at;
    const line = document.getElementById(`prompt-${at}`);
    if (line) markSelected(line, true);
    showSample(this);
    this.keepLink();
  }

  /** @param {number} steps - how far to move in the list */
  move(steps) {
    if (!this.shown.length) return;
    const from = this.shown.indexOf(this.at);
    const place = Math.min(Math.max(from < 0 ? 0 : from + steps, 0), this.shown.length - 1);
    this.select(this.shown[place]);
    this.scrollTo(this.at).then(() => this.focusRow());
  }

  /** @param {number} at - a prompt */
  async scrollTo(at) {
    if (this.shown.includes(at)) await this.table.scrollToRow(at + 1, "nearest", false);
  }

  focusRow() {
    document.getElementById(`prompt-${this.at}`)?.focus({ preventScroll: true });
  }

  /** Opens the selected prompt: harmful texts are unfolded, and the reader's focus goes to it. */
  open() {
    if (this.at === null) return;
    if (isHarmful(this.data, this.at)) this.opened.add(this.at);
    this.refresh();
    document.getElementById("sample-title").focus();
  }

  /** @param {number} at - a prompt */
  isRevealed(at) {
    return this.form.elements.reveal.checked || this.opened.has(at);
  }

  /** @param {boolean} open - whether the selected prompt's fold is open */
  reveal(open) {
    if (open) this.opened.add(this.at);
    else this.opened.delete(this.at);
    this.reformat();
  }

  /** @param {"A"|"B"} side - the answer that keys mark */
  choose(side) {
    this.side = side === "B" && this.b ? "B" : "A";
    for (const card of document.querySelectorAll(".answer")) card.classList.toggle("is-active", card.dataset.side === this.side);
  }

  /** Marks an answer; the same mark again removes it. */
  mark(side, mark) {
    const arm = side === "B" && this.b ? this.b : this.a;
    if (this.at === null || arm.row[this.at] === null) return;
    this.choose(side);
    const id = answerId(arm, this.at);
    this.marks.change(id, { mark: this.marks.of(id).mark === mark ? "" : mark });
    this.refresh();
  }

  remark(arm, remark) {
    this.marks.change(answerId(arm, this.at), { remark });
    showMarks(this);
  }

  /** Draws the selected prompt again, in the list and below it. */
  refresh() {
    const focused = document.activeElement?.closest?.(".answer button");
    const again = focused && `.answer[data-side=${focused.closest(".answer").dataset.side}] [data-mark=${focused.dataset.mark}]`;
    showSample(this);
    this.reformat();
    showMarks(this);
    if (again) document.querySelector(again).focus();
  }

  reformat() {
    const row = this.table.getRow(this.at + 1);
    const isFocused = row && row.getElement() === document.activeElement;
    if (row) row.reformat();
    if (isFocused) this.focusRow();
  }
}
