package chain

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"
)

// SigningKey signs manifests, and holds the checkpoint key that is derived from it.
type SigningKey struct {
	key        crypto.Signer
	checkpoint ed25519.PrivateKey
	public     PublicKey
}

// checkpointKeyInfo is HKDF's info for the checkpoint key: C2SP checkpoints want an Ed25519 key used for nothing else.
const checkpointKeyInfo = "auditchain v1 checkpoint key"

// GenerateKey makes a new Ed25519 signing key and returns it as PEM (PKCS #8, RFC 5958).
func GenerateKey() ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseSigningKey reads one unencrypted private key, Ed25519 or ECDSA P-256, from PEM: PKCS #8, or SEC 1 for ECDSA.
func ParseSigningKey(text []byte) (*SigningKey, error) {
	block, rest := pem.Decode(text)
	if block != nil && block.Type == "EC PARAMETERS" { // openssl ecparam -genkey puts them first
		block, _ = pem.Decode(rest)
	}
	if block == nil {
		return nil, errors.New("no PEM block in it")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("its PEM block is %q, want an unencrypted \"PRIVATE KEY\"", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the private key: %w", err)
	}
	var secret []byte
	k := new(SigningKey)
	switch key := key.(type) {
	case ed25519.PrivateKey:
		k.key, secret = key, key.Seed()
	case *ecdsa.PrivateKey:
		if key.Curve != elliptic.P256() {
			return nil, fmt.Errorf("its curve is %s, want P-256", key.Curve.Params().Name)
		}
		k.key = key
		if secret, err = key.Bytes(); err != nil {
			return nil, fmt.Errorf("reading the private key: %w", err)
		}
	default:
		return nil, fmt.Errorf("it is a %T, want Ed25519 or ECDSA P-256", key)
	}
	if k.public, err = newPublicKey(k.key.Public()); err != nil {
		return nil, err
	}
	seed, err := hkdf.Key(sha256.New, secret, nil, checkpointKeyInfo, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("deriving the checkpoint key: %w", err)
	}
	k.checkpoint = ed25519.NewKeyFromSeed(seed)
	return k, nil
}

// Public returns the key that verifies what k signs.
func (k *SigningKey) Public() PublicKey { return k.public }

// Sign signs message as DSSE wants it: Ed25519 (RFC 8032), or ECDSA over SHA-256 in ASN.1 DER.
func (k *SigningKey) Sign(message []byte) ([]byte, error) {
	if _, ok := k.key.(ed25519.PrivateKey); ok {
		return k.key.Sign(rand.Reader, message, crypto.Hash(0))
	}
	digest := sha256.Sum256(message)
	return k.key.Sign(rand.Reader, digest[:], crypto.SHA256)
}

// CheckpointKey returns the verifier key, in the form of C2SP signed notes, of the checkpoints that k signs for chain.
func (k *SigningKey) CheckpointKey(chain string) (string, error) {
	return note.NewEd25519VerifierKey(chain, k.checkpoint.Public().(ed25519.PublicKey))
}

// PublicKey verifies manifests.
type PublicKey struct {
	key crypto.PublicKey
	der []byte // SubjectPublicKeyInfo
}

func newPublicKey(key crypto.PublicKey) (PublicKey, error) {
	switch key := key.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return PublicKey{}, fmt.Errorf("its curve is %s, want P-256", key.Curve.Params().Name)
		}
	default:
		return PublicKey{}, fmt.Errorf("it is a %T, want Ed25519 or ECDSA P-256", key)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return PublicKey{}, err
	}
	return PublicKey{key: key, der: der}, nil
}

// ParsePublicKey reads a public key from PEM (PKIX "PUBLIC KEY", RFC 5280).
func ParsePublicKey(text []byte) (PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return PublicKey{}, errors.New("no PEM block in it")
	}
	if block.Type != "PUBLIC KEY" {
		return PublicKey{}, fmt.Errorf("its PEM block is %q, want \"PUBLIC KEY\"", block.Type)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return PublicKey{}, fmt.Errorf("reading the public key: %w", err)
	}
	return newPublicKey(key)
}

// PEM returns the key as PEM (PKIX).
func (k PublicKey) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.der})
}

// Fingerprint is the SHA-256 of the key's SubjectPublicKeyInfo (DER).
func (k PublicKey) Fingerprint() Hash { return Sum(k.der) }

// Equal reports whether both are the same key.
func (k PublicKey) Equal(other PublicKey) bool { return string(k.der) == string(other.der) }

// Verify reports whether sig is k's signature of message.
func (k PublicKey) Verify(message, sig []byte) bool {
	switch key := k.key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, sig)
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(message)
		return ecdsa.VerifyASN1(key, digest[:], sig)
	}
	return false
}

// hint names the key in a Sigstore bundle: the base64 of its fingerprint.
func (k PublicKey) hint() string {
	fp := k.Fingerprint()
	return base64.StdEncoding.EncodeToString(fp[:])
}
