// The page's parts. They are made here and not in the HTML, so that a page whose HTML was damaged can still say so.

function section(id, title, ...children) {
  const h2 = el("h2", "", title);
  h2.id = id + "-title";
  const s = el("section", "", h2, ...children);
  s.id = id;
  s.hidden = true;
  s.setAttribute("aria-labelledby", h2.id);
  return s;
}

function makeLayout() {
  const verdict = el("div");
  verdict.id = "verdict";
  verdict.setAttribute("role", "status");

  const typed = el("textarea");
  Object.assign(typed, { id: "typed", rows: 2, spellcheck: false, autocomplete: "off", autocapitalize: "off" });
  typed.setAttribute("aria-describedby", "compared");
  const label = el("label", "", "Type or paste the fingerprint that you were given in another way than with this file: on paper, by telephone, in a contract");
  label.htmlFor = "typed";
  const fingerprint = el("p");
  const compared = el("p", "note");
  compared.id = "compared";

  const recordBody = el("div");
  const steps = el("ol");
  const technicalBody = el("div");
  const madeBody = el("div");
  const comparison = el("li");
  const parts = {
    verdict, typed, fingerprint, compared, recordBody, steps, technicalBody, madeBody, comparison,
    key: section("key", "The key", el("p", "", "The first key of the log has this fingerprint:"), fingerprint, el("div", "screen", label, typed), compared),
    record: section("record", "The record", recordBody),
    checks: section("checks", "What was checked", steps),
    technical: section("technical", "Technical detail",
      el("details", "", el("summary", "", "Hashes, manifest, keys, checkpoint and proof"), technicalBody)),
    limits: section("limits", "What this does not prove",
      el("ul", "",
        el("li", "", "That the record tells the truth. It is what was logged, unchanged since it was sealed. When that was, the writer's clock said."),
        comparison,
        el("li", "", "That this page's own script is genuine. Whoever can change the data can change the script, too. If much depends on it, check the file with another program, ",
          code("auditchain verify-evidence FILE --key KEY"), ", or with other people's tools by section 10 of the format (docs/FORMAT.md)."),
        el("li", "", "That the log goes on as it did. Its end can have been cut off later; comparing it with heads that were kept elsewhere shows that."),
        el("li", "", "That the stored objects are locked. What the store said of them when this file was made is below, and so is who made it; neither is signed.")),
      madeBody),
  };
  const main = el("main", "", el("p", "brand", "auditchain evidence"), verdict, parts.key, parts.record, parts.checks, parts.technical, parts.limits);
  const style = document.querySelector("style");
  document.body.replaceChildren(main, ...(style ? [style] : []));
  return parts;
}
