// Checkpoints: C2SP tlog-checkpoint in C2SP signed-note, and the proof of inclusion, C2SP tlog-proof.

const noteName = /^[^\t\n\v\f\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000+]+$/;

// parseNoteKey reads a verifier key: name, key id in hex, and 0x01 with the Ed25519 key in base64.
async function parseNoteKey(text) {
  const m = /^([^+]*)\+([0-9a-fA-F]{8})\+(.+)$/s.exec(text);
  if (!m || !noteName.test(m[1])) throw new Error("the checkpoint key is no verifier key of signed notes");
  const key = fromBase64(m[3], false);
  const id = (await sha256(join(encoder.encode(m[1] + "\n"), key))).slice(0, 4);
  if (hex(id) !== m[2].toLowerCase() || key.length !== 33 || key[0] !== 1) throw new Error("the checkpoint key is no verifier key of signed notes");
  return { name: m[1], id: hex(id), key: key.slice(1) };
}

async function checkNoteKey(text, chain) {
  const { name } = await parseNoteKey(text);
  if (name !== chain) throw new Error("the checkpoint key has another name than the log");
}

// openCheckpoint checks a signed note and returns what it commits to. Signatures by others, witnesses for instance, may stand
// beside that of the key.
async function openCheckpoint(signed, noteKey) {
  const { name, id, key } = await parseNoteKey(noteKey);
  const malformed = new Error("the checkpoint is no signed note");
  const split = signed.lastIndexOf("\n\n");
  if (/[\u0000-\u0009\u000b-\u001f]/.test(signed) || split < 0 || !signed.endsWith("\n") || split + 2 === signed.length) throw malformed;
  const text = signed.slice(0, split + 1);
  const lines = signed.slice(split + 2, -1).split("\n");
  if (lines.length > 100) throw malformed;
  let verified = false;
  for (const line of lines) {
    const m = /^\u2014 ([^ ]+) (.+)$/.exec(line);
    if (!m || !noteName.test(m[1])) throw malformed;
    const sig = fromBase64(m[2], false);
    if (sig.length < 5) throw malformed;
    if (m[1] !== name || hex(sig.slice(0, 4)) !== id || verified) continue;
    verified = await verifyEd25519(key, encoder.encode(text), sig.slice(4));
    if (!verified) throw new Error("the checkpoint's signature is wrong");
  }
  if (!verified) throw new Error("the checkpoint is not signed with the log's checkpoint key");
  return parseCheckpoint(text);
}

// peekCheckpoint reads a signed note without checking its signatures.
function peekCheckpoint(signed) {
  const split = signed.indexOf("\n\n");
  if (split < 0) throw new Error("the checkpoint is no signed note");
  return parseCheckpoint(signed.slice(0, split + 1));
}

function parseCheckpoint(text) {
  const lines = text.split("\n");
  if (lines.length !== 4 || lines[3] !== "") throw new Error("the checkpoint is not origin, size and root");
  const size = uint64(lines[1]);
  const root = fromBase64(lines[2]);
  if (size === undefined || root.length !== 32) throw new Error("the checkpoint's size or root is not in its one spelling");
  return { origin: lines[0], size, root };
}

const maxProofText = 64 << 10;

function parseProof(text) {
  const bad = new Error("the proof is no C2SP tlog-proof");
  const m = /^c2sp\.org\/tlog-proof@v1\n(?:extra [^\n]*\n)?index ([0-9]+)\n((?:[^\n]+\n)*)\n(.*)$/s.exec(text);
  if (!m || encoder.encode(text).length > maxProofText) throw bad;
  const index = uint64(m[1]);
  const hashes = m[2].split("\n").slice(0, -1).map((line) => fromBase64(line));
  if (index === undefined || hashes.length > 64 || hashes.some((h) => h.length !== 32)) throw bad;
  return { index, hashes, checkpoint: m[3] };
}

// verifyInclusion is RFC 9162, section 2.1.3.2 (the tree is that of RFC 6962). All numbers are BigInt.
async function verifyInclusion(entryHash, { index, hashes }, { size, root }) {
  if (index >= size) throw new Error(`entry ${index} is not in a tree of ${size} entries`);
  const node = (left, right) => sha256(join(Uint8Array.of(1), left, right));
  let fn = index, sn = size - 1n;
  let r = await sha256(join(Uint8Array.of(0), entryHash));
  for (const p of hashes) {
    if (sn === 0n) throw new Error("the proof has too many hashes");
    if (fn & 1n || fn === sn) {
      r = await node(p, r);
      while (fn !== 0n && !(fn & 1n)) {
        fn >>= 1n;
        sn >>= 1n;
      }
    } else {
      r = await node(r, p);
    }
    fn >>= 1n;
    sn >>= 1n;
  }
  if (sn !== 0n) throw new Error("the proof has too few hashes");
  if (hex(r) !== hex(root)) throw new Error(`the hashes do not lead from the entry to the root of the tree of ${size} entries`);
}
