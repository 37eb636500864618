// The six steps of docs/FORMAT.md, section 10.

const evidence = struct({
  auditchain_evidence: int,
  chain: string,
  entry: nullable(base64),
  proof: string,
  manifest: nullable(base64),
  keys: array(nullable(base64), 10000),
  objects: array(struct({ what: string, key: string, version_id: string, lock_mode: string, retain_until: string }), 100),
  made: struct({ at: time, by: string, from: string }),
});

function readEvidence(text) {
  const e = read(evidence, text, pageSpelling);
  if (e.auditchain_evidence !== 1n) throw new Error("it is of a format that this page does not know");
  for (const name of ["entry", "manifest"]) e[name] ??= new Uint8Array();
  e.keys = e.keys.map((k) => k ?? new Uint8Array());
  return e;
}

// verifyEvidence takes the first five steps, and gets the sixth ready: fingerprint is that of the genesis's key. Each step
// is looked at by itself, so that a reader sees which one fails; a later one that needs what an earlier one failed to find fails, too.
async function verifyEvidence(e) {
  const found = { steps: [], entryHash: hex(await sha256(e.entry)) };
  const step = async (code, check) => {
    const s = { code, ok: false, text: "" };
    try {
      s.text = await check();
      s.ok = true;
    } catch (error) {
      s.text = error.message || error.name; // of cryptography that refuses a key, browsers say no more
    }
    found.steps.push(s);
  };
  const need = (value, what) => {
    if (value === undefined) throw new Error(what + " is not known");
    return value;
  };

  await step("entry", async () => {
    found.entry = parseEntry(e.entry);
    return `Entry ${found.entry.seq}; the SHA-256 of its ${e.entry.length} bytes is ${found.entryHash}.`;
  });
  await step("inclusion", async () => {
    const proof = (found.proof = parseProof(e.proof));
    const c = (found.checkpoint = peekCheckpoint(proof.checkpoint));
    const { seq } = need(found.entry, "the entry");
    if (proof.index !== seq) throw new Error(`the proof is of entry ${proof.index}, this is entry ${seq}`);
    await verifyInclusion(await sha256(e.entry), proof, c);
    return `${proof.hashes.length} hashes lead to the root of the tree of ${c.size} entries, ${hex(c.root)}.`;
  });

  let head, keysError;
  try {
    head = await followKeys(e);
    found.fingerprint = head.first.fingerprint;
  } catch (error) {
    keysError = error;
  }
  found.head = head;

  await step("checkpoint", async () => {
    const c = await openCheckpoint(need(found.proof, "the proof").checkpoint, need(head, "its key").checkpointKey);
    if (c.origin !== e.chain) throw new Error("the checkpoint is of another log");
    return `The root is signed for ${c.origin}.`;
  });
  await step("manifest", async () => {
    const m = await openManifest(e.manifest, need(head, "its key").key);
    const { seq } = need(found.entry, "the entry");
    if (m.chain !== e.chain) throw new Error("the manifest is of another log");
    if ((m.key_since ?? 0n) !== head.keySince) throw new Error("the manifest's key is another than the last one here");
    if (seq < m.first_seq || seq >= m.next_seq) throw new Error(`the manifest does not hold entry ${seq}`);
    if (m.checkpoint !== need(found.proof, "the proof").checkpoint) throw new Error("the proof leads to another checkpoint than the manifest's");
    found.manifest = m;
    return `Manifest ${m.n}, sealed ${m.sealed_at}, holds entries ${m.first_seq} to ${m.next_seq - 1n}.`;
  });
  await step("keys", async () => {
    if (keysError) throw keysError;
    const n = e.keys.length - 1;
    return n === 0 ? "The key is that of the log's first manifest." : `The key was replaced ${n === 1 ? "once" : n + " times"}, each time under the key before.`;
  });
  return found;
}

// firstKey is the key that the genesis names, whoever signed it.
async function firstKey(e) {
  if (e.keys.length === 0) throw new Error("the log's first manifest is missing");
  const m = await openManifest(e.keys[0]);
  if (!m.genesis) throw new Error("the first of the keys is not the log's first manifest");
  return parseKey(m.genesis.manifest_key);
}

// followKeys goes from the genesis over the rotations to the keys that hold after them.
async function followKeys(e) {
  const first = await firstKey(e);
  const rotations = [];
  let key = first, checkpointKey, keySince = 0n, genesis;
  for (const [i, bytes] of e.keys.entries()) {
    const m = await openManifest(bytes, key);
    if (m.chain !== e.chain) throw new Error(`key ${i} is of another log`);
    if (m.kind !== (i === 0 ? "genesis" : "rotation")) throw new Error(`key ${i} is in a ${m.kind}`);
    if ((m.key_since ?? 0n) !== keySince) throw new Error(`key ${i} does not follow the one before it`);
    if (i === 0) {
      genesis = m;
      checkpointKey = m.genesis.checkpoint_key;
      await checkNoteKey(checkpointKey, e.chain);
      const c = await openCheckpoint(m.checkpoint, checkpointKey);
      const empty = await sha256(new Uint8Array());
      if (m.first_seq !== 0n || c.origin !== e.chain || c.size !== 0n || hex(c.root) !== hex(empty)) {
        throw new Error("the log's first manifest does not begin with an empty tree");
      }
      continue;
    }
    await openCheckpoint(m.checkpoint, checkpointKey);
    const next = await parseKey(m.rotation.manifest_key);
    if (next.fingerprint === key.fingerprint || m.rotation.checkpoint_key === checkpointKey) throw new Error(`key ${i} is the one before it again`);
    await checkNoteKey(m.rotation.checkpoint_key, e.chain);
    [key, checkpointKey, keySince] = [next, m.rotation.checkpoint_key, m.n];
    rotations.push(m);
  }
  return { first, key, checkpointKey, keySince, genesis, rotations };
}
