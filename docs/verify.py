"""Verifies a copy of an auditchain log, by FORMAT.md alone: python3 verify.py DIR FINGERPRINT|PUB.pem [HEAD]

DIR holds what lies below <prefix>/<chain>/ in the bucket: manifests/ and segments/. HEAD is a checkpoint, a kept head or a manifest
that was kept elsewhere. Exit code: 0 intact, 1 a definite no, 2 could not tell. VERIFYING.md says what is checked, and what is not."""
import base64, datetime, hashlib, json, pathlib, re, subprocess, sys, tempfile, time

BUNDLE = re.compile(r'{"mediaType":"application/vnd\.dev\.sigstore\.bundle\.v0\.3\+json","verificationMaterial":{"publicKey":{"hint":'
    r'"[^"\\]*"}},"dsseEnvelope":{"payload":"([^"]*)","payloadType":"application/vnd\.in-toto\+json","signatures":\[{"sig":"([^"]*)"}\]}}')
NOTHING = {"hash": None, "next_seq": 0, "head": None, "tree_after": [], "lock": {"retain_until": ""}}  # what the genesis follows

def need(true, text):
    if not true: raise ValueError(text)

# Ed25519 (RFC 8032). Points are (X, Y, Z, T) with x = X/Z, y = Y/Z and xy = T/Z.
Q, L, D = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493, -121665 * pow(121666, -1, 2**255 - 19)
def add(p, q):
    a, b, c, d = (p[1]-p[0]) * (q[1]-q[0]), (p[1]+p[0]) * (q[1]+q[0]), 2 * p[3] * q[3] * D, 2 * p[2] * q[2]
    e, f, g, h = (b-a) % Q, (d-c) % Q, (d+c) % Q, (b+a) % Q
    return e*f % Q, g*h % Q, f*g % Q, e*h % Q
def multiply(n, p):
    if n == 0: return 0, 1, 1, 0
    return add(multiply(n - 1, p), p) if n % 2 else multiply(n // 2, add(p, p))
def point(data):
    y, sign = int.from_bytes(data, "little") % 2**255, data[31] >> 7
    square = (y*y - 1) * pow(D*y*y + 1, -1, Q) % Q
    x = pow(square, (Q+3) // 8, Q)
    if x*x % Q != square: x = x * pow(2, (Q-1) // 4, Q) % Q
    need(y < Q and x*x % Q == square, "a key is no point of the curve")
    return (x, y, 1, x*y % Q) if x % 2 == sign else (Q-x, y, 1, -x*y % Q)
def ed25519(key, message, sig):
    (x, y, z, t), s = point(key), int.from_bytes(sig[32:], "little")
    k = int.from_bytes(hashlib.sha512(sig[:32] + key + message).digest(), "little") % L
    x, y, z, t = add(multiply(s % L, point(b"\x58" + b"\x66" * 31)), multiply(k, (Q-x, y, z, Q-t)))
    x, y = x * pow(z, -1, Q) % Q, y * pow(z, -1, Q) % Q
    return len(sig) == 64 and s < L and (y | x % 2 << 255).to_bytes(32, "little") == sig[:32]

def spool(data):  # a temporary file that goes with its last reference
    file = tempfile.NamedTemporaryFile()
    file.write(data), file.seek(0)
    return file
def p256(key, message, sig):
    key, sig = spool(key), spool(sig)
    command = ["openssl", "dgst", "-sha256", "-keyform", "DER", "-verify", key.name, "-signature", sig.name]
    return subprocess.run(command, input=message, capture_output=True).returncode == 0

def sha(*parts): return hashlib.sha256(b"".join(parts)).digest()
def b64(data): return base64.b64encode(data).decode()
def moment(m, size=26): return datetime.datetime.fromisoformat(m["sealed_at"][:size])  # to the microsecond
def public_key(keys): return base64.b64decode(keys["manifest_key"].split("-----BEGIN PUBLIC KEY-----")[1].split("-----END")[0])
def unique(pairs):
    need(len(dict(pairs)) == len(pairs), "a JSON key is repeated")
    return dict(pairs)
def parse(data): return json.loads(data.decode(), object_pairs_hook=unique, parse_constant=lambda name: need(False, name + " is not JSON"))

def open_manifest(data, keys):  # the statement, and its predicate with the payload hash; the genesis names its key itself
    bundle = BUNDLE.fullmatch(data.decode())
    payload, sig = map(base64.b64decode, bundle.groups()) if bundle else (b"", b"")
    need(bundle and (b64(payload), b64(sig)) == bundle.groups(), "it is not spelled as a manifest")
    statement, pae = parse(payload), b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
    key = public_key(keys or statement["predicate"]["genesis"])
    good = ed25519(key[12:], pae, sig) if key[:12].hex() == "302a300506032b6570032100" else p256(key, pae, sig)
    need(good, "it is not signed with the key that holds here")
    return statement, dict(statement["predicate"], hash=sha(payload).hex())

def check_checkpoint(m, vkey):
    (_, key_id, key), root, sig = vkey.split("+", 2), b"", base64.b64decode(m["checkpoint"].split(" ")[-1])[4:]
    for node in map(bytes.fromhex, reversed(m["tree_after"])): root = sha(b"\1", node, root) if root else node
    text = "%s\n%d\n%s\n" % (m["chain"], m["next_seq"], b64(root or sha()))
    need(m["checkpoint"] == "%s\n\u2014 %s %s\n" % (text, m["chain"], b64(bytes.fromhex(key_id) + sig)), "its checkpoint is not of its tree")
    need(ed25519(base64.b64decode(key)[1:], text.encode(), sig), "its checkpoint is not signed with the key that holds here")

def check_manifest(n, statement, m, before, genesis, since):  # one whose signature is good
    policy, lock, s = genesis["genesis"]["policy"], m["lock"], m.get("segment")
    kind = "genesis" if n == 0 else "segment" if s else "rotation" if "rotation" in m else "heartbeat"
    want = {"format": 1, "n": n, "kind": kind, "chain": genesis["chain"], "key_since": since}
    if before: want.update(previous_manifest=before["hash"], first_seq=before["next_seq"], tree_before=before["tree_after"],
                           previous_head=before["head"] or before["hash"])
    if not s: want.update(next_seq=m["first_seq"], head=m["previous_head"], tree_after=m["tree_before"])
    for name, value in want.items(): need(m.get(name) == value, f"its {name} is not {value}")
    subjects = [("checkpoint", sha(m["checkpoint"].encode()).hex())]
    if s: subjects = [(s["key"], s["sha256"]), (s["key"][:-4], s["raw_sha256"])]
    need(statement == {"_type": "https://in-toto.io/Statement/v1", "predicateType": "urn:auditchain:chain-head:v1",
         "predicate": statement["predicate"], "subject": [{"name": a, "digest": {"sha256": b}} for a, b in subjects]}, "its subjects")
    place = "segments/date=%s/%012d(-[0-9a-f]{16})?[.]ndjson[.]zst" % (m["sealed_at"][:10], n)
    need(not s or re.fullmatch(place, s["key"]), "its segment lies elsewhere than it should")
    years, days = re.fullmatch(r"(?:(\d+)y)?(?:(\d+)d)?", policy["retention"]).groups("0")
    sealed, strength = moment(m, 19), ["NONE", "GOVERNANCE", "COMPLIANCE"].index
    until = sealed.replace(year=sealed.year + int(years), day=1) + datetime.timedelta(sealed.day - 1 + int(days))
    until = max(until.isoformat(), before["lock"]["retain_until"][:19] if before else "")
    need(strength(lock["mode"]) >= strength(policy["lock_mode"]) and lock["retain_until"] >= until, "its lock is too weak or too short")

def is_source_event(record):
    source, event = record.get("source"), record.get("source_event")
    if not (isinstance(source, dict) and isinstance(event, str) and event): return False
    name, seq = source.get("id"), source.get("seq")
    return isinstance(name, str) and 0 < len(name.encode()) <= 256 and type(seq) is int and 0 <= seq < 2**64

def check_segment(path, m):
    s, seq, head, tree, at, raw = m["segment"], m["first_seq"], m["previous_head"], [*map(bytes.fromhex, m["tree_before"])], 0, hashlib.sha256()
    said, counts = m["counts"], dict.fromkeys(("records", "events", "source_events", "redelivered", "conflicts"), 0)
    data = path.read_bytes() if path.exists() and path.stat().st_size == s["size"] else b""
    need(sha(data).hex() == s["sha256"], "its segment is missing, or its size or SHA-256 is another")
    for f in s["frames"]:
        frame, at = data[at:at + f["size"]], at + f["size"]
        need(sha(frame).hex() == f["sha256"] and frame[:4] == b"\x28\xb5\x2f\xfd" and frame[4] & 7 == 4, "a frame is another")
        with subprocess.Popen(["zstd", "-dcqM128MB"], stdin=spool(frame), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as zstd:
            lines = zstd.stdout.read(min(f["raw_size"], 2**26 + 1) + 1)  # more than that is not taken
        need(zstd.returncode == 0 and len(lines) == f["raw_size"] and lines.count(b"\n") == f["entries"], "a frame holds other lines")
        raw.update(lines)
        for line in lines[:-1].split(b"\n"):
            need(line.startswith(b'{"seq":%d,"prev":"%s",' % (seq, head.encode())), f"entry {seq} does not follow the one before")
            digest, entry, bits = sha(line), parse(line), seq
            event, redelivered, conflict = (name in entry for name in ("event", "redelivered", "conflict"))
            need(redelivered or not conflict, f"entry {seq} conflicts with none")
            for name, true in zip(counts, (not event, event, not event and is_source_event(entry["record"]), redelivered, conflict)): counts[name] += true
            head, node, seq = digest.hex(), sha(b"\0", digest), seq + 1
            while bits & 1: node, bits = sha(b"\1", tree.pop(), node), bits >> 1
            tree.append(node)
    need((at, raw.hexdigest(), said["entries"]) == (s["size"], s["raw_sha256"], seq - m["first_seq"]), "its lines are others")
    need(all(said.get(name, 0) == n for name, n in counts.items()), "its counts are others")
    need(said["complete"] + said["incomplete"] + counts["source_events"] == counts["records"], "its counts do not add up")
    need((seq, head, [node.hex() for node in tree]) == (m["next_seq"], m["head"], m["tree_after"]), "its head or tree is another")

def identity(kept):  # of a head: the text of a checkpoint, or the payload hash
    if kept[:1] != b"{": return kept[:kept.index(b"\n\n")].decode()
    return parse(kept).get("payload_sha256") or sha(base64.b64decode(parse(kept)["dsseEnvelope"]["payload"])).hex()

def main(root, trusted, kept=None):
    if not re.fullmatch("[0-9a-f]{64}", trusted): trusted = sha(public_key({"manifest_key": pathlib.Path(trusted).read_text()})).hex()
    found = (re.fullmatch(r"(\d{12}|[1-9]\d{12,})\.sigstore\.json", f.name) for f in pathlib.Path(root, "manifests").iterdir())
    codes, known, now = {0}, set(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    genesis, keys, since, before, expected = None, None, None, NOTHING, 0
    def say(code, text): codes.add(code), print(("notice: ", "no: ", "unchecked: ")[code] + text)
    for n in sorted(int(name[1]) for name in found if name):
        if n != expected: say(1, f"manifests {expected} to {n - 1} are not there")
        previous, before, expected = before if n == expected else None, None, n + 1
        try:
            need(n == 0 or genesis, "nothing proves it without the genesis")
            statement, m = open_manifest(pathlib.Path(root, f"manifests/{n:012d}.sigstore.json").read_bytes(), keys)
            need(genesis or sha(public_key(m["genesis"])).hex() == trusted, "it names another key than the trusted one")
            check_checkpoint(m, (keys or m["genesis"])["checkpoint_key"])
            check_manifest(n, statement, m, previous, genesis or m, since)
            genesis, keys, before = genesis or m, keys or m["genesis"], m
            known |= {m["hash"], m["checkpoint"].partition("\n\n")[0]}
            gap = (moment(m) - moment(previous)).total_seconds() if n and previous else 0
            if not 0 <= gap <= genesis["genesis"]["policy"]["heartbeat_interval_s"] * 1.5 + 60: say(0, f"manifest {n} is {gap} s after the last")
            if m["kind"] == "rotation":
                need(all(m["rotation"][k] != keys[k] for k in ("manifest_key", "checkpoint_key")), "it does not replace both keys")
                keys, since = m["rotation"], n
            path, expired = pathlib.Path(root, m.get("segment", {}).get("key", "")), m["lock"]["retain_until"] < now
            if expired and not path.exists(): say(0, f"the segment of manifest {n} is gone; its lock is over")
            elif m["kind"] == "segment": check_segment(path, m)
        except Exception as error: say(2 if isinstance(error, OSError) else 1, f"manifest {n}: {error}")
    if kept and identity(pathlib.Path(kept).read_bytes()) not in known: say(1, "the kept head is not in this log")
    code = 1 if 1 in codes else 2 if 2 in codes or not known else 0
    print("NOT intact" if code == 1 else "could not tell" if code else f"intact: {before['next_seq']} entries to the head {before['head']}")
    return code

if __name__ == "__main__":
    try: sys.exit(main(*sys.argv[1:]))
    except Exception as error: sys.exit(print(f"could not tell: {error!r}\n\n{__doc__}") or 2)
