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
  if (entry.redelivered) facts.push(row("Delivered again", "The writer had taken a record of this source and number before."));
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
  const record = members(entry.record);
  const meta = entry.meta ? members(entry.meta) : [];
  const all = [...record, ...attributesOf(meta)];
  const rows = [];
  const seen = new Set();
  for (const [label, ...names] of auditFields) {
    const found = all.filter(([key]) => names.includes(key));
    names.forEach((n) => seen.add(n));
    for (const [key, raw] of found) rows.push(fieldRow(label, key, value(raw)));
    if (found.length === 0) rows.push(fieldRow(label, names[0], el("span", "none", "not in the record")));
  }
  for (const [key, raw] of all) if (key.startsWith("gen_ai.") && !seen.has(key)) rows.push(fieldRow("", key, value(raw)));
  const body = el("tbody", "", ...rows.slice(0, maxRows));
  const table = el("table", "", body);
  table.setAttribute("aria-label", "Audit fields of the record");
  into.append(el("h3", "", "What it says"), table);
  if (rows.length > maxRows) into.append(el("p", "note", `${rows.length - maxRows} more rows are not shown here.`));
  if (record.some(([key]) => key === "$dup")) into.append(el("p", "note", "The record repeats a key. Its first value is above; the others stand in $dup below."));
  const payload = record.filter(([key, raw]) => key === "payload" && raw[0] === "{").flatMap(([, raw]) => members(raw));
  for (const [name, title] of [["prompt", "Prompt"], ["response", "Response"]]) {
    for (const [, raw] of [...payload, ...record].filter(([key]) => key === name).slice(0, maxRows)) {
      const pre = el("pre", "text");
      if (raw[0] === '"') pre.append(clipped(textOf(raw), maxText, true));
      else pretty(raw, pre);
      into.append(el("h3", "", title), pre);
    }
  }
}

// attributesOf is meta.otlp.attributes, where Fluent Bit's OpenTelemetry input puts a record's attributes.
function attributesOf(meta) {
  const inside = (all, name) => all.filter(([key, raw]) => key === name && raw[0] === "{").flatMap(([, raw]) => members(raw));
  return inside(inside(meta, "otlp"), "attributes");
}

function fieldRow(label, key, shown) {
  const th = el("th", "", ...(label ? [el("span", "", label), " "] : []), code(key));
  th.scope = "row";
  return el("tr", "", th, el("td", "", shown));
}

// value shows what a member holds: text as text, hashes and whatever is put together letter by letter.
function value(raw) {
  if (raw === '""') return el("span", "none", "empty");
  if (raw[0] === "{" || raw[0] === "[") return el("code", "", clipped(raw, 2000));
  const text = raw[0] === '"' ? textOf(raw) : raw;
  return el(/^[0-9a-f]{32,}$/i.test(text) ? "code" : "bdi", "", clipped(text, 2000));
}

function saveAs(bytes, name) {
  const a = el("a");
  a.href = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 60000); // it is read after the click
}
