// The steps, the technical facts, and what nothing here proves.

// What each step is about, what it means, and what is said of the file where it fails.
const stepWords = {
  page: ["The file is as it was made",
    "A checksum over the whole file, its text, its script and its data, is the one that was written into it.",
    "it was changed since it was made"],
  entry: ["The record is one entry of a log",
    "It has the form that the log's format prescribes. The SHA-256 of its bytes is its name from here on: another byte would be another name.",
    "what it holds is no entry of a log"],
  inclusion: ["The log holds that entry",
    "The log's entries are the leaves of a tree of hashes with one root. The hashes in this file lead from the entry to that root; from an altered entry they would lead elsewhere.",
    "nothing shows that the log holds this entry"],
  checkpoint: ["The log signed that root",
    "The root and the number of entries are signed with the key that the log uses for this alone.",
    "the log's signature on its tree is not there"],
  manifest: ["The log signed where the entry is stored",
    "The manifest of the segment that holds the entry is signed. It says when the segment was sealed, which entries it has, and the same root.",
    "no signed manifest of the log holds the entry"],
  keys: ["The keys are those of the log",
    "They are named by the log's first manifest or, where they were replaced since, by a signed announcement, each under the key before it.",
    "the keys do not lead back to the log's first one"],
  trust: ["The log is the one that you mean",
    "Anyone can make a log with a key of their own. So the key of the first manifest must have the fingerprint that you were given in another way."],
};

function showStep(code, state, text) {
  const [title, meaning] = stepWords[code];
  const li = el("li", state, el("strong", "", title), " ", el("span", "state", { ok: "holds", bad: "does not hold", open: "is for you to say" }[state]),
    el("p", "", meaning), el("p", "said", visible(text.slice(0, 1).toUpperCase() + text.slice(1))));
  li.dataset.step = code;
  li.dataset.state = state;
  return li;
}

function block(title, ...rows) {
  return [el("h3", "", title), list(...rows)];
}

function showTechnical(found, into) {
  const { entry, checkpoint, proof, manifest: m, head } = found;
  const span = (s) => s && `${when(s.first)} to ${when(s.last)}`;
  const maybe = (label, value) => (value === undefined ? null : row(label, value));
  into.append(
    ...block("Entry",
      row("Entry hash", code(found.entryHash)),
      row("Hash of the entry before", code(entry.prev)),
      row("Received", code(entry.received)),
      entry.time && row("Time", code(entry.time)),
      entry.chunk && row("Chunk", code(entry.chunk.sha256), `, ${entry.chunk.entries} entries`)),
    ...block("Manifest",
      row("Number", String(m.n)),
      row("SHA-256 of its payload", code(m.payload_hash)),
      row("Sealed", code(m.sealed_at), " by the writer's clock"),
      maybe("Store's clock minus the writer's", m.clock_skew_ms === undefined ? undefined : `${m.clock_skew_ms} ms`),
      row("Entries", `${m.first_seq} to ${m.next_seq - 1n}`),
      row("Of these", `${m.counts.records} records, ${m.counts.complete} of them with every audit field; ${m.counts.events} events`),
      maybe("Received", span(m.received)),
      maybe("Times of its records", span(m.event_time)),
      row("Segment", code(m.segment.key)),
      row("Version id", m.segment.version_id === "" ? el("span", "none", "none") : code(m.segment.version_id)),
      row("Size", `${m.segment.size} bytes, ${m.segment.raw_size} decompressed`),
      row("SHA-256 of the segment", code(m.segment.sha256)),
      row("Lock that was asked for", code(m.lock.mode), " until ", code(m.lock.retain_until)),
      row("Writer", visible(`auditchain ${m.writer.version} on ${m.writer.host}, instance ${m.writer.instance}`))),
    ...block("Keys",
      row("First key", `${head.first.kind}, SHA-256 `, code(found.fingerprint)),
      ...head.rotations.map((r) => row(`Replaced by manifest ${r.n}`, `sealed ${when(r.sealed_at)}`)),
      head.rotations.length ? row("Key of this manifest", `${head.key.kind}, SHA-256 `, code(head.key.fingerprint)) : null,
      row("Checkpoint key", code(head.checkpointKey)),
      row("The log began", when(head.genesis.genesis.created)),
      row("Its promise", visible(`locked for ${head.genesis.genesis.policy.retention}, mode ${head.genesis.genesis.policy.lock_mode}`))),
    el("h3", "", "Checkpoint"), el("pre", "", visible(proof.checkpoint, true)),
    el("h3", "", "Proof"),
    el("p", "", `${proof.hashes.length} hashes, from entry ${proof.index} to the root of the tree of ${checkpoint.size} entries, the entry's neighbour first:`),
    el("pre", "", proof.hashes.length ? proof.hashes.map(hex).join("\n") : "none: the entry is the only one"));
}

// showComparison says what only the log itself can tell.
function showComparison(m, into) {
  into.replaceChildren(
    "That the record ever was in the log. Whoever had the key that signed this manifest, even after it was replaced by a rotation, could make such evidence " +
      "of a record that never was in the log. So compare the manifest with the log itself, or with a head that was kept: the SHA-256 of the manifest's payload is ",
    code(m.payload_hash), ". This command tells whether the log contains that manifest:",
    el("pre", "", visible(`auditchain verify ... --expect-head ${m.payload_hash}`)));
}

function lockOf(o) {
  if (o.lock_mode === "") return "not locked";
  if (o.lock_mode === "unknown") return "its lock is not known";
  return `locked, mode ${o.lock_mode}, until ${o.retain_until || "no time"}`;
}

function showMade(e, into) {
  into.append(el("h3", "", "As the store said when this was made"), list(
    row("Made", when(e.made.at)),
    row("By", visible(e.made.by)),
    row("From", visible(e.made.from)),
    ...e.objects.map((o) => row(visible(`The ${o.what}`), code(o.key), visible(`${o.version_id && `, version ${o.version_id}`}: ${lockOf(o)}`)))));
}
