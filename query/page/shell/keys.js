// Keys and signatures: Ed25519 (RFC 8032), and ECDSA P-256 over SHA-256.

const ed25519Prefix = "302a300506032b6570032100"; // SubjectPublicKeyInfo up to the 32 bytes of the key
const p256Prefix = "3059301306072a8648ce3d020106082a8648ce3d030107034200"; // up to 0x04, x and y

// parseKey reads a public key from PEM. Where the lines break is of no account: the fingerprint is that of the bytes.
async function parseKey(pem) {
  const m = /^-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]+)\n-----END PUBLIC KEY-----\n$/.exec(pem);
  if (!m) throw new Error("a public key is not PEM");
  const der = fromBase64(m[1].replaceAll("\n", ""));
  const sum = await sha256(der);
  const fingerprint = hex(sum), hint = toBase64(sum);
  const text = hex(der);
  if (der.length === 44 && text.startsWith(ed25519Prefix)) {
    const raw = der.slice(12);
    return { fingerprint, hint, kind: "Ed25519", verify: (message, sig) => verifyEd25519(raw, message, sig) };
  }
  if (der.length === 91 && text.startsWith(p256Prefix) && der[26] === 4) {
    const point = der.slice(26);
    return { fingerprint, hint, kind: "ECDSA P-256", verify: (message, sig) => verifyP256(point, message, sig) };
  }
  throw new Error("a public key is neither Ed25519 nor ECDSA P-256");
}

const ed25519Order = (1n << 252n) + 27742317777372353535851937790883648493n;

// verifyEd25519 sees for itself that the signature's second half is less than the group's order (RFC 8032, section 5.1.7): of
// the libraries behind browsers not all do, and take two signatures for one message then.
async function verifyEd25519(raw, message, sig) {
  if (sig.length !== 64 || BigInt("0x" + hex(sig.slice(32).reverse())) >= ed25519Order) return false;
  const key = await crypto.subtle.importKey("raw", raw, { name: "Ed25519" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "Ed25519" }, key, sig, message);
}

async function verifyP256(point, message, sig) {
  const rs = fromDER(sig);
  if (!rs) return false;
  const key = await crypto.subtle.importKey("raw", point, { name: "ECDSA", namedCurve: "P-256" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, rs, message);
}

// fromDER makes the 64 bytes r and s, which WebCrypto wants, of an ECDSA signature: a SEQUENCE of two INTEGERs, in DER and
// nothing else. It returns null if that is not what sig is.
function fromDER(sig) {
  if (sig.length < 8 || sig.length > 72 || sig[0] !== 0x30 || sig[1] !== sig.length - 2) return null;
  const out = new Uint8Array(64);
  let at = 2;
  for (const end of [32, 64]) {
    const length = sig[at + 1];
    const number = sig.subarray(at + 2, at + 2 + length);
    if (sig[at] !== 0x02 || length === 0 || number.length !== length) return null;
    if (number[0] & 0x80) return null; // negative
    if (length > 1 && number[0] === 0 && !(number[1] & 0x80)) return null; // a zero that need not be there
    const magnitude = number[0] === 0 ? number.subarray(1) : number;
    if (magnitude.length === 0 || magnitude.length > 32) return null;
    out.set(magnitude, end - magnitude.length);
    at += 2 + length;
  }
  return at === sig.length ? out : null;
}

// selfTest finds out whether this browser can check signatures at all, so that one that cannot is not taken for a
// signature that is wrong. The signatures are of "auditchain", with keys of which nothing else is known.
async function selfTest() {
  const message = encoder.encode("auditchain");
  const other = encoder.encode("auditchaim");
  for (const [verify, key, sig] of [
    [verifyEd25519, "t5MqJiInJZNVuxqx9RtYyn87TxYi+C5mRDfATBcBxgU=", "u0okFbzF5iOaIV1p429aLmtDbfccnklfcT1jJhddmslvk7zuyew/LmlDco0g7aNT6UGOUYW0Cykpo6f121f6Aw=="],
    [verifyP256, "BEVSybOvzXqRVEuzTUox1dwj5EUCM8sAuq/0tayY3+qWPYTfdMmk80YMmihV27/qqUTJUlrOus1p6xQY+2lKljc=", "MEQCIFoAnog9d/dSkaRE1uKScH6uCdvPjEXdJQq9OptKqscsAiBkBvduVDPCrQIsyqj/BFdTdVyekm8JCQfUE4DB3pb9Hg=="],
  ]) {
    const k = fromBase64(key), s = fromBase64(sig);
    if (!(await verify(k, message, s)) || (await verify(k, other, s))) return false;
  }
  return hex(await sha256(message)) === "0fb4aff0e42a3a7efbbffafd386e5da89c49dcf1f7bdabd66fe2a09706de2f8c";
}
