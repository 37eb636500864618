package query

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/auditchain/auditchain/chain"
)

// Files of evidence in a directory, for tools that we did not write (docs/VERIFYING.md).
const (
	entryFile      = "entry.json"             // the entry's line, without its newline
	proofFile      = "entry.tlog-proof"       // C2SP tlog-proof
	manifestFile   = "manifest.sigstore.json" // as it is stored
	checkpointFile = "checkpoint"             // signed note, out of the manifest
	genesisFile    = "genesis.sigstore.json"  // as it is stored
	rotationPrefix = "rotation-"              // and a manifest's number: as they are stored
	aboutFile      = "about.json"             // chain, objects, made: not proven by anything
	readmeFile     = "README.txt"
)

// about is what evidence says besides what it proves.
type about struct {
	Format  int                  `json:"auditchain_evidence"`
	Chain   string               `json:"chain"`
	Objects []chain.StoredObject `json:"objects"`
	Made    chain.Made           `json:"made"`
}

// WriteEvidence writes evidence as separate files into dir, which is made, or is there and empty.
func WriteEvidence(dir string, e *chain.Evidence) error {
	m, err := chain.PeekManifest(e.Manifest)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(about{e.Format, e.Chain, e.Objects, e.Made}, "", "  ")
	if err != nil {
		return err
	}
	files := map[string][]byte{
		entryFile: e.Entry, proofFile: []byte(e.Proof), manifestFile: e.Manifest, checkpointFile: []byte(m.Checkpoint),
		aboutFile: append(text, '\n'), readmeFile: []byte(readme),
	}
	for i, data := range e.Keys {
		name := genesisFile
		if i > 0 {
			m, err := chain.PeekManifest(data)
			if err != nil {
				return err
			}
			name = fmt.Sprintf("%s%012d.sigstore.json", rotationPrefix, m.N)
		}
		files[name] = data
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return fmt.Errorf("%s is not empty", dir)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const readme = `One entry of an audit log, and what proves it.

  entry.json               the entry, one line; its SHA-256 is the leaf of the log's tree
  entry.tlog-proof         that it is in the tree of the checkpoint (C2SP tlog-proof, RFC 6962)
  checkpoint               the signed root of that tree (C2SP tlog-checkpoint)
  manifest.sigstore.json   the signed statement that has this checkpoint (in-toto, DSSE, Sigstore bundle)
  genesis.sigstore.json    the log's first statement: it names the keys
  rotation-*.sigstore.json statements that announce newer keys, each signed with the key before, if there are any
  about.json               what the store said of the lock, and when this was made: proven by nothing here

Check all of it, with the fingerprint of the log's first key, which you have to have by another way:

  auditchain verify-evidence DIRECTORY --key FINGERPRINT

With openssl, cosign and other tools: see docs/VERIFYING.md of auditchain. The format is described in docs/FORMAT.md.
`

// maxEvidenceFiles bounds how many rotations a directory may hold.
const maxEvidenceFiles = 10_000

// ReadEvidence reads what WriteEvidence wrote.
func ReadEvidence(dir string) (*chain.Evidence, error) {
	var total int64
	read := func(name string) (data []byte, err error) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() { // a pipe would be waited for
			return nil, cmp.Or(err, fmt.Errorf("%s is no file", name))
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		data, err = io.ReadAll(io.LimitReader(f, chain.MaxEvidence-total+1))
		if total += int64(len(data)); err == nil && total > chain.MaxEvidence {
			err = fmt.Errorf("the files in %s are longer than the %d bytes allowed", dir, chain.MaxEvidence)
		}
		return data, err
	}
	var failed error
	must := func(name string) []byte {
		data, err := read(name)
		failed = errors.Join(failed, err)
		return data
	}
	var a about
	text := must(aboutFile)
	line, proof, manifest, checkpoint, genesis := must(entryFile), must(proofFile), must(manifestFile), must(checkpointFile), must(genesisFile)
	if failed != nil {
		return nil, failed
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("%s: %w", aboutFile, err)
	}
	p, err := chain.ParseInclusionProof(string(proof))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", proofFile, err)
	}
	if p.Checkpoint != string(checkpoint) {
		return nil, fmt.Errorf("%s has another checkpoint than %s", proofFile, checkpointFile)
	}
	keys := [][]byte{genesis}
	names, err := fs.Glob(os.DirFS(dir), rotationPrefix+"*.sigstore.json") // in their order: numbers have leading zeros
	if err != nil {
		return nil, err
	}
	if len(names) > maxEvidenceFiles {
		return nil, fmt.Errorf("%d rotations in %s", len(names), dir)
	}
	for _, name := range names {
		data, err := read(name)
		if err != nil {
			return nil, err
		}
		keys = append(keys, data)
	}
	e := chain.NewEvidence(line, p, manifest, keys, a.Chain)
	e.Proof, e.Objects, e.Made = string(proof), a.Objects, a.Made
	return e, nil
}
