// The record, for people. It is called with an entry whose bytes have been verified, and not before.

const auditFields = [
  ["Request", "request_id", "gen_ai.response.id"],
  ["Time of the request", "timestamp"],
  ["Model", "model_id", "gen_ai.response.model", "gen_ai.request.model"],
  ["Model checksum", "model_checksum"],
  ["Hash of the input", "input_hash"],
  ["Hash of the output", "output_hash"],
  ["User", "user_id", "user.id", "enduser.id"],
  ["Input tokens", "input_tokens", "gen_ai.usage.input_tokens"],
  ["Output tokens", "output_tokens", "gen_ai.usage.output_tokens"],
  ["Latency in ms", "latency_ms"],
  ["Status", "status", "http.response.status_code", "error.type"],
  ["Source", "source"],
];

const maxText = 100000;
const maxRows = 500;

function showRecord(e, entry, into) {
  const facts = [row("Log", code(e.chain)), row("Entry", String(entry.seq)), row("Received", when(entry.received)), row("Tag", value(entry.tag))];
  if (entry.conflict) facts.push(row("Conflict", "The writer had taken another record of this source and number before."));
  else if (entry.redelivered) facts.push(row("Delivered again", "The writer had taken a record of this source and number before."));
  if (entry.event !== undefined) {
    into.append(list(...facts, row("Event", code(entry.event))),
      el("p", "note", "This entry is no record of an inference: it is what the log's writer itself had to say."));
  } else {
    into.append(list(...facts, row("Time of the record", when(entry.time))));
    showFields(entry, into);
  }
  const pre = el("pre", "json");
  const whole = pretty(entry.text, pre);
  into.append(el("h3", "", "The entry, as it is in the log"), pre);
  if (!whole) into.append(el("p", "note", "The entry is too long to show all of it here. Save its line to see the rest."));
  const save = el("button", "", "Save the line");
  save.type = "button";
  save.addEventListener("click", () => saveAs(e.entry, `entry-${entry.seq}.json`));
  into.append(el("p", "screen note", save, " Its SHA-256, as sha256sum prints it, is the entry hash below."));
}

function showFields(entry, into) {
  const known = auditFields.flatMap(([, ...names]) => names); // no Set: hashing millions of other keys takes longer than comparing
  const isField = (key) => known.includes(key) || key.startsWith("gen_ai.");
  const record = members(entry.record, (key) => isField(key) || ["payload", "prompt", "response", "$dup"].includes(key));
  const all = [...record.filter(([key]) => isField(key)), ...attributesOf(entry.meta, isField)];
  const rows = []; // of label, key and value
  for (const [label, ...names] of auditFields) {
    const found = all.filter(([key]) => names.includes(key));
    for (const member of found) rows.push([label, ...member]);
    if (found.length === 0) rows.push([label, names[0]]);
  }
  for (const member of all) if (!known.includes(member[0])) rows.push(["", ...member]);
  const body = el("tbody", "", ...rows.slice(0, maxRows).map((r) => fieldRow(...r)));
  const table = el("table", "", body);
  table.setAttribute("aria-label", "Audit fields of the record");
  into.append(el("h3", "", "What it says"), table);
  if (rows.length > maxRows) into.append(el("p", "note", `${rows.length - maxRows} more rows are not shown here.`));
  if (record.some(([key]) => key === "$dup")) into.append(el("p", "note", "The record repeats a key. Its first value is above; the others stand in $dup below."));
  const texts = [...inside(record, "payload", (key) => key === "prompt" || key === "response"), ...record];
  for (const [name, title] of [["prompt", "Prompt"], ["response", "Response"]]) {
    for (const [, raw] of texts.filter(([key]) => key === name)) {
      const pre = el("pre", "text");
      if (raw[0] === '"') pre.append(clipped(JSON.parse(raw), maxText, true));
      else pretty(raw, pre);
      into.append(el("h3", "", title), pre);
    }
  }
}

// attributesOf is meta.otlp.attributes, where Fluent Bit's OpenTelemetry input puts a record's attributes.
function attributesOf(meta, wanted) {
  if (!meta) return [];
  const otlp = members(meta, (key) => key === "otlp");
  return inside(inside(otlp, "otlp", (key) => key === "attributes"), "attributes", wanted);
}

// inside lists the members of the object that the member of that name is.
function inside(all, name, wanted) {
  return all.filter(([key, raw]) => key === name && raw[0] === "{").flatMap(([, raw]) => members(raw, wanted));
}

// fieldRow shows a field of the record; raw is left out where the record has none.
function fieldRow(label, key, raw) {
  const shown = raw === undefined ? el("span", "none", "not in the record") : value(raw);
  const th = el("th", "", ...(label ? [el("span", "", label), " "] : []), code(key));
  th.scope = "row";
  return el("tr", "", th, el("td", "", shown));
}

// value shows what a member holds: text as text, hashes and whatever is put together letter by letter.
function value(raw) {
  if (raw === '""') return el("span", "none", "empty");
  if (raw[0] === "{" || raw[0] === "[") return el("code", "", clipped(raw, 2000));
  const text = raw[0] === '"' ? JSON.parse(raw) : raw;
  return el(/^[0-9a-f]{32,}$/i.test(text) ? "code" : "bdi", "", clipped(text, 2000));
}

function saveAs(bytes, name) {
  const a = el("a");
  a.href = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 60000); // it is read after the click
}
