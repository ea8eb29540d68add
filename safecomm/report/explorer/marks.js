/**
 * What a person thinks of an answer.
 * @typedef {{mark: "safe"|"unsafe"|"unsure"|"", remark: string}} Mark
 */
const MARKS = { safe: "s", unsafe: "u", unsure: "?" };
const FORMULA = /^[=+\-@\t\r]/;

/** The marks, kept in the browser's storage where the page may use it, and in memory otherwise. */
class Marks {
  /** @param {string} key - the answers' */
  constructor(key) {
    this.name = `safecomm marks ${key}`;
    /** @type {Object<string, Mark>} */
    this.marks = {};
    this.isKept = true;
    try {
      this.marks = JSON.parse(localStorage.getItem(this.name) ?? "{}");
    } catch {
      this.isKept = false;
    }
  }

  /**
   * @param {string} answer - its id
   * @returns {Mark}
   */
  of(answer) {
    return this.marks[answer] ?? { mark: "", remark: "" };
  }

  /**
   * Changes a mark; one without mark and remark is removed.
   * @param {string} answer - its id
   * @param {Partial<Mark>} change
   */
  change(answer, change) {
    const mark = { ...this.of(answer), ...change };
    if (mark.mark || mark.remark) this.marks[answer] = mark;
    else delete this.marks[answer];
    try {
      localStorage.setItem(this.name, JSON.stringify(this.marks));
    } catch {
      this.isKept = false;
    }
  }
}

/**
 * Returns all marked answers, each once even if two arms share it.
 * @param {Answers} data
 * @param {Marks} marks
 * @returns {{arm: Arm, at: number, id: string, mark: Mark}[]}
 */
function marked(data, marks) {
  return Object.entries(marks.marks).flatMap(([id, mark]) => {
    const [evaluation, row] = id.split(":");
    const arm = data.arms.find(one => one.evaluation === evaluation);
    const at = arm ? arm.row.indexOf(Number(row)) : -1;
    return at < 0 ? [] : [{ arm, at, id, mark }];
  });
}

/**
 * Tells whether a marked answer can be a label: judges/labels.py knows safe and unsafe answers to harmful prompts, and
 * of several tries the label of one says nothing about the others.
 */
function isLabel(data, { arm, at, mark }) {
  return isHarmful(data, at) && ["safe", "unsafe"].includes(mark.mark) && !arm.tried.includes(at);
}

/**
 * Returns the labels file that `evaluate.labels` reads (see judging/labels.py).
 * @param {Answers} data
 * @param {Marks} marks
 */
function labelsFile(data, marks) {
  const rows = marked(data, marks).filter(one => isLabel(data, one));
  return csv(["answer_id", "benchmark", "prompt", "response", "unsafe", "remark"], rows.map(({ arm, at, id, mark }) =>
    [id, benchmarkOf(data, at), promptOf(data, arm, at), arm.response[at], mark.mark === "unsafe" ? "1" : "0", mark.remark]));
}

/**
 * Returns all marks, also those that are no labels, with what the judges said.
 * @param {Answers} data
 * @param {Marks} marks
 */
function reviewFile(data, marks) {
  const heads = ["answer_id", "arm", "settings", "benchmark", "category", "prompt", "response", "verdict", "mark", "remark"];
  return csv(heads, marked(data, marks).map(({ arm, at, id, mark }) => [
    id, arm.arm, arm.settings, benchmarkOf(data, at), data.prompts.category[at], promptOf(data, arm, at),
    arm.response[at], arm.verdict[at], mark.mark, mark.remark]));
}

/**
 * Returns a CSV text, in which no cell starts like a formula; as `as_cell` in data/cells.py.
 * @param {string[]} heads
 * @param {string[][]} rows
 */
function csv(heads, rows) {
  const cell = text => `"${(FORMULA.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
  return [heads, ...rows].map(row => row.map(cell).join(",") + "\r\n").join("");
}

/**
 * Saves a text as a file.
 * @param {string} name
 * @param {string} text
 */
function save(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
