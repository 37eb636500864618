package ingest

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/auditchain/auditchain/chain"
)

// previousKey is the key that the chain was signed with until signing_key came.
type previousKey struct {
	public  chain.PublicKey
	private *chain.SigningKey // nil: its file holds the public key alone
}

// readKeys reads the keys that are configured.
func (l *Log) readKeys() (err error) {
	if l.key, err = readSigningKey(l.cfg.SigningKey); err != nil {
		return fmt.Errorf("signing_key: %w", err)
	}
	if l.cfg.PreviousKey == "" {
		return nil
	}
	if l.previous, err = readPreviousKey(l.cfg.PreviousKey); err != nil {
		return fmt.Errorf("previous_signing_key: %w", err)
	}
	if l.previous.public.Equal(l.key.Public()) {
		return errors.New("previous_signing_key: it is the same key as signing_key; set it to the key that the chain was signed with until now, or take it away")
	}
	return nil
}

func readSigningKey(path string) (*chain.SigningKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; `auditchain keygen` makes one", err)
	}
	if err != nil {
		return nil, err
	}
	key, err := chain.ParseSigningKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// readPreviousKey reads a private key, or a public one, which is enough once nothing is to be signed with it.
func readPreviousKey(path string) (*previousKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; once the chain is signed with signing_key, take previous_signing_key away", err)
	}
	if err != nil {
		return nil, err
	}
	p := new(previousKey)
	if block, _ := pem.Decode(text); block != nil && block.Type == "PUBLIC KEY" {
		p.public, err = chain.ParsePublicKey(text)
	} else if p.private, err = chain.ParseSigningKey(text); err == nil {
		p.public = p.private.Public()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// signer is the key for the manifest after the last committed one.
func (l *Log) signer() (*chain.SigningKey, error) {
	switch {
	case l.committed.Key.Equal(l.key.Public()):
		return l.key, nil
	case l.isPrevious(l.committed.Key) && l.previous.private != nil:
		return l.previous.private, nil
	}
	return nil, fmt.Errorf("the key %s, with which the next manifest is to be signed, is not there", l.committed.Key.Fingerprint())
}

// isPrevious reports whether k is the key of previous_signing_key.
func (l *Log) isPrevious(k chain.PublicKey) bool {
	return l.previous != nil && k.Equal(l.previous.public)
}

// signed is a stored manifest whose signature is good.
type signed struct {
	*chain.Manifest
	payload chain.Hash
	data    []byte
	key     chain.PublicKey // that it is signed with
}

// errRetired says that a manifest is signed with a key that the chain has no more.
var errRetired = errors.New("signed with a retired key")

// open checks the signature of data, which lies where manifest n belongs: signing_key's, or, up to the rotation to that, the one's
// before. The error wraps errRetired if it is that one's behind the rotation: whoever has a retired key can sign with it for
// ever, and is never followed. It wraps chain.ErrSignature if it is neither's.
func (l *Log) open(n uint64, data []byte) (signed, error) {
	s := signed{data: data, key: l.key.Public()}
	var err error
	s.Manifest, s.payload, err = chain.OpenManifest(data, s.key)
	if l.previous != nil && errors.Is(err, chain.ErrSignature) {
		s.key = l.previous.public
		s.Manifest, s.payload, err = chain.OpenManifest(data, s.key)
		if err == nil && l.rotatedBefore(n) {
			err = fmt.Errorf("%w: manifest %d in %s has the signature of previous_signing_key (%s), but the chain has gone over to signing_key before; whoever has the retired key put it there, and it is not followed",
				errRetired, n, l.bucket, s.key.Fingerprint())
		}
	}
	return s, err
}

// rotatedBefore reports whether manifest n is known to come behind the rotation to signing_key.
func (l *Log) rotatedBefore(n uint64) bool {
	return l.committed.NextN > 0 && l.committed.Key.Equal(l.key.Public()) && n > l.committed.KeySince
}

// strange says what it means that none of our keys has signed what was read. It is asked where a manifest of ours was to be expected.
func (l *Log) strange(what string, data []byte) error {
	theirs, err := chain.BundleSigner(data)
	switch {
	case err != nil, theirs == l.key.Public().Fingerprint(), l.previous != nil && theirs == l.previous.public.Fingerprint():
		return fmt.Errorf("%s: %w", what, chain.ErrSignature)
	case l.previous == nil:
		return fmt.Errorf("signing_key: %s is signed with the key %s, and this key is %s; to have the chain go over to it, set previous_signing_key to the file of the key before", what, theirs, l.key.Public().Fingerprint())
	}
	return fmt.Errorf("previous_signing_key: %s is signed with the key %s, and this key is %s, signing_key %s; set it to the file of the key that the chain was signed with until now",
		what, theirs, l.previous.public.Fingerprint(), l.key.Public().Fingerprint())
}

// adopt takes manifest s for where the chain stands.
func (l *Log) adopt(s signed) error {
	if s.Chain != l.cfg.Chain {
		return fmt.Errorf("it is of chain %q, not %q", s.Chain, l.cfg.Chain)
	}
	h, err := chain.HeadOf(s.Manifest, s.payload, s.key)
	if err != nil {
		return err
	}
	own := ""
	switch {
	case h.Key.Equal(l.key.Public()):
		own, err = l.key.CheckpointKey(h.Chain)
	case l.isPrevious(h.Key) && l.previous.private != nil:
		own, err = l.previous.private.CheckpointKey(h.Chain)
	}
	if err != nil {
		return err
	}
	if h.CheckpointKey == "" {
		h.CheckpointKey = own
	}
	if own != "" && h.CheckpointKey != own {
		return fmt.Errorf("it announces the key %s with a checkpoint key that is not derived from it", h.Key.Fingerprint())
	}
	l.committed = h
	return nil
}

// setKeys has the head stand before the genesis.
func (l *Log) setKeys() (err error) {
	l.committed = chain.Head{Chain: l.cfg.Chain, Key: l.key.Public()}
	l.committed.CheckpointKey, err = l.key.CheckpointKey(l.cfg.Chain)
	return err
}
