// Manifests: an in-toto statement in DSSE in a Sigstore bundle. docs/FORMAT.md, section 5.

const maxManifest = 16 << 20;
const payloadType = "application/vnd.in-toto+json";
const mediaType = "application/vnd.dev.sigstore.bundle.v0.3+json";

const bundle = struct({
  mediaType: string,
  verificationMaterial: struct({ publicKey: struct({ hint: string }) }),
  dsseEnvelope: struct({ payload: base64, payloadType: string, signatures: array(struct({ sig: base64 })) }),
});

const span = struct({ first: time, last: time });
const newKeys = { manifest_key: string, checkpoint_key: string };

const statement = struct({
  _type: string,
  subject: array(struct({ name: string, digest: struct({ sha256: hash }) })),
  predicateType: string,
  predicate: struct({
    format: int,
    chain: string,
    n: uint,
    kind: string,
    previous_manifest: nullable(hash),
    key_since: optional(uint),
    first_seq: uint,
    next_seq: uint,
    previous_head: nullable(hash),
    head: nullable(hash),
    checkpoint: string,
    tree_before: array(hash),
    tree_after: array(hash),
    counts: maybe(struct({
      entries: uint, records: uint, events: uint, complete: uint, incomplete: uint,
      source_events: optional(uint), missing: optional(counters), redelivered: optional(uint), conflicts: optional(uint),
    })),
    segment: maybe(struct({
      key: string, version_id: string, size: int, sha256: hash, raw_size: int, raw_sha256: hash,
      frames: array(struct({ size: int, raw_size: int, entries: uint, sha256: hash })),
    })),
    event_time: maybe(span),
    received: maybe(span),
    sources: optional(array(struct({ id: string, ranges: array(pair(uint)) }))),
    sources_omitted: optional(uint),
    sealed_at: time,
    lock: struct({ mode: string, retain_until: time }),
    writer: struct({ version: string, host: string, instance: string }),
    clock_skew_ms: maybe(int),
    genesis: maybe(struct({
      created: time, ...newKeys,
      policy: struct({ retention: string, lock_mode: string, heartbeat_interval_s: int }),
    })),
    rotation: maybe(struct(newKeys)),
  }),
});

// openManifest checks a stored manifest's signature (if key is given) and its content for what can be seen without any other.
async function openManifest(bytes, key) {
  if (bytes.length > maxManifest) throw new Error("the manifest is too long");
  const b = read(bundle, utf8(bytes), signedSpelling);
  const envelope = b.dsseEnvelope;
  if (b.mediaType !== mediaType || envelope.payloadType !== payloadType) throw new Error("the manifest is of another media type");
  if (envelope.signatures.length !== 1) throw new Error("the manifest has not exactly one signature");
  const payload = envelope.payload;
  if (key) {
    if (b.verificationMaterial.publicKey.hint !== key.hint) throw new Error("the manifest names another key than that which has to have signed it");
    const signed = join(encoder.encode(`DSSEv1 ${payloadType.length} ${payloadType} ${payload.length} `), payload);
    if (!(await key.verify(signed, envelope.signatures[0].sig))) throw new Error("the manifest's signature is wrong");
  }
  const s = read(statement, utf8(payload), signedSpelling);
  if (s._type !== "https://in-toto.io/Statement/v1" || s.predicateType !== "urn:auditchain:chain-head:v1") {
    throw new Error("the manifest states something else than the head of a log");
  }
  const m = s.predicate;
  checkManifest(m);
  const subjects = await subjectsOf(m);
  if (JSON.stringify(s.subject) !== JSON.stringify(subjects)) throw new Error("the manifest's subjects are not what it describes");
  m.payload_hash = hex(await sha256(payload));
  return m;
}

async function subjectsOf(m) {
  if (!m.segment) return [{ name: "checkpoint", digest: { sha256: hex(await sha256(encoder.encode(m.checkpoint))) } }];
  const { key, sha256: sum, raw_sha256: raw } = m.segment;
  return [{ name: key, digest: { sha256: sum } }, { name: key.length > 4 ? key.slice(0, -4) : key, digest: { sha256: raw } }];
}

function isChainName(name) {
  return name.length <= 200 && !name.includes("..") && !/(^|\/)(manifests|segments)(\/|$)/.test(name) &&
    /^[a-z0-9]([a-z0-9._-]*[a-z0-9])?(\/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*$/.test(name);
}

function onesIn(n) {
  return n.toString(2).replaceAll("0", "").length;
}

// checkManifest finds what is wrong with a manifest by itself.
function checkManifest(m) {
  const must = (holds, why) => {
    if (!holds) throw new Error("the manifest is wrong in itself: " + why);
  };
  const genesis = m.kind === "genesis", segment = m.kind === "segment", rotation = m.kind === "rotation";
  must(m.format === 1n, "format");
  must(isChainName(m.chain), "chain");
  must(genesis || segment || rotation || m.kind === "heartbeat", "kind");
  must(genesis === (m.n === 0n) && genesis === (m.genesis !== undefined), "genesis");
  must(rotation === (m.rotation !== undefined), "rotation");
  must(m.key_since === undefined || m.key_since < m.n, "key_since");
  for (const v of [m.previous_manifest, m.previous_head, m.head]) must(genesis === (v === null), "previous_manifest, previous_head, head");
  must(segment === (m.segment !== undefined) && segment === (m.counts !== undefined), "segment");
  must(segment ? m.next_seq > m.first_seq : m.next_seq === m.first_seq, "next_seq");
  must(!genesis || m.next_seq === 0n, "next_seq");
  must(m.tree_before.length === onesIn(m.first_seq) && m.tree_after.length === onesIn(m.next_seq), "trees");
  if (!segment) return;
  const c = m.counts;
  must(c.entries === m.next_seq - m.first_seq && c.records + c.events === c.entries && c.complete + c.incomplete + (c.source_events ?? 0n) === c.records, "counts");
  const maxFrame = BigInt(maxLine) + 1n, maxSegment = 8n << 30n;
  let size = 0n, raw = 0n, entries = 0n;
  for (const f of m.segment.frames) {
    must(f.size > 0n && f.raw_size > 0n && f.size <= maxFrame && f.raw_size <= maxFrame && f.entries > 0n && f.entries <= f.raw_size, "frames");
    size += f.size;
    raw += f.raw_size;
    entries += f.entries;
  }
  must(size <= maxSegment && raw <= maxSegment, "frames");
  must(size === m.segment.size && raw === m.segment.raw_size && entries === c.entries, "frames");
}
